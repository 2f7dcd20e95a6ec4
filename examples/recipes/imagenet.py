"""Trains an image classifier of torchvision or timm on folders of JPEGs, as ImageNet is kept, with any update rule.

python examples/recipes/imagenet.py DATA --net mobilenet_v2 --rule powersign --lr 0.1
torchrun --nproc-per-node 8 examples/recipes/imagenet.py DATA --net timm/mobilenetv3_large_100 --rule lion --lr 3e-4

DATA has the folders train and val, and each of them a folder of images per class. README.md beside this file has more
commands.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset
from torchvision import datasets, models, transforms

import nos_ext
from nos_ext import optim, schedules

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1], per colour


def make_net(name: str, classes: int) -> nn.Module:
    """Makes a network of torchvision, or with "timm/" before its name one of timm, with random weights."""
    if not name.startswith("timm/"):
        if name not in models.list_models(module=models):
            raise SystemExit(f"--net {name}: torchvision has {', '.join(models.list_models(module=models))}")
        return models.get_model(name, num_classes=classes)
    try:
        import timm
    except ImportError:
        raise SystemExit(f"--net {name} needs timm: pip install timm") from None
    try:
        return timm.create_model(name.removeprefix("timm/"), num_classes=classes)
    except RuntimeError as error:
        raise SystemExit(f"--net {name}: {error}; timm.list_models() has the names") from None


def read_folders(folder: Path, size: int) -> tuple[datasets.ImageFolder, datasets.ImageFolder]:
    """Returns the training images, cropped and mirrored at random, and those for validation, cropped in the middle."""
    both = [transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)]
    train = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *both]
    held = [transforms.Resize(size * 8 // 7), transforms.CenterCrop(size), *both]  # 256 before 224
    try:
        found = (
            datasets.ImageFolder(folder / "train", transforms.Compose(train)),
            datasets.ImageFolder(folder / "val", transforms.Compose(held)),
        )
    except FileNotFoundError as error:
        raise SystemExit(f"DATA {folder}: {error}; it must have train/CLASS/*.jpg and val/CLASS/*.jpg") from None
    if found[0].classes != found[1].classes:
        raise SystemExit(f"DATA {folder}: train and val have different classes; each must have a folder of every class")
    return found


@torch.no_grad()
def accuracies(run: Run, model: nn.Module, loader: DataLoader) -> tuple[float, float]:
    """Returns how often the class is the first guess, and one of the first five, in percent."""
    model.eval()
    found = torch.zeros(3, device=run.device)
    for images, classes in loader:
        with run.autocast():
            scores = model(images.to(run.device, non_blocking=True))
        right = scores.topk(min(5, scores.shape[1])).indices == classes.to(run.device).unsqueeze(1)
        found += torch.stack([right[:, 0].sum(), right.sum(), torch.tensor(len(classes), device=run.device)])
    model.train()
    first, five, count = run.sum(*found)
    return 100 * first / count, 100 * five / count


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="a folder with train/CLASS/*.jpg and val/CLASS/*.jpg")
    parser.add_argument("--net", default="mobilenet_v2", help="a name of torchvision, or timm/NAME")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side")
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=8, help="processes that read images, for each that trains")
    add_shared_options(parser, epochs=90, batch_size=256, out="runs/imagenet")
    options = parser.parse_args(arguments)

    run = Run(options)
    train, held = read_folders(options.data, options.size)
    steps = len(train) // run.world // run.share
    if not steps:
        raise SystemExit(
            f"--batch-size {options.batch_size}: there are {len(train)} images in {options.data / 'train'}"
        )
    shuffled: Any = DistributedSampler(train, run.world, run.rank, seed=options.seed, drop_last=True)
    mine: Dataset = Subset(held, range(run.rank, len(held), run.world))
    rest = {"num_workers": options.workers, "pin_memory": run.device.type == "cuda"}
    loader = DataLoader(train, run.share, sampler=shuffled, drop_last=True, **rest)
    # Its own generator: what the validation draws must not move the training's draws.
    held_loader = DataLoader(mine, run.share, generator=torch.Generator(), **rest)

    net = make_net(options.net, len(train.classes))
    model = run.distribute(net)
    optimizer = make_optimizer(net, options, steps * options.epochs)
    schedule = make_schedule(optimizer, options, steps * options.epochs)
    for epoch in run.start(model=net, optimizer=optimizer, schedule=schedule):
        shuffled.set_epoch(epoch)
        total = torch.zeros((), device=run.device)
        for images, classes in loader:
            images, classes = (x.to(run.device, non_blocking=True) for x in (images, classes))
            with run.autocast():
                loss = F.cross_entropy(model(images).float(), classes, label_smoothing=options.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        optimizer.eval()  # schedule-free rules evaluate other weights than they train
        first, five = accuracies(run, net, held_loader)
        optimizer.train()
        run.end_of_epoch(total / steps, accuracy=first, accuracy_of_five=five)
    return run.finish()


# -- the same lines in every recipe, from here to the end -----------------------------------------------------------

KEPT = ("out", "resume", "log", "device")  # options that a resumed training may change


def add_shared_options(parser: argparse.ArgumentParser, *, epochs: int, batch_size: int, out: str) -> None:
    """Adds the options that all recipes have."""
    add = parser.add_argument
    add("--rule", default="powersign", help="a name of the library, the text of a rule, or @FILE (default: powersign)")
    add("--lr", type=float, required=True, help="the highest learning rate; every rule needs its own")
    add("--weight-decay", type=float, help="of matrices and filters, if the rule has it (default: the rule's own)")
    hyper = "a hyperparameter of the rule: a number, or a decay over the training: linear, cosine or restart"
    add("--set", action="append", default=[], metavar="NAME=VALUE", dest="hyper", help=hyper)
    add("--clip-norm", type=float, help="clip gradients to this norm (default: do not)")
    add("--decay", choices=("linear_cosine", "cosine", "linear", "none"), default="linear_cosine")
    add("--warmup", type=int, default=0, metavar="STEPS", help="steps in which the learning rate rises to --lr")
    add("--epochs", type=int, default=epochs)
    add("--batch-size", type=int, default=batch_size, help=f"of all processes together (default: {batch_size})")
    add("--dtype", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast; weights stay fp32")
    add("--seed", type=int, default=0)
    add("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    add("--out", type=Path, default=Path(out), help=f"folder of checkpoint.pt and result.json (default: {out})")
    add("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
    add("--log", type=Path, metavar="DIR", help="folder for TensorBoard")


def read_rule(option: str, text: str) -> Any:
    """Returns the compiled rule that `text` names, contains, or has in the file after its @."""
    try:
        if text in optim.names():
            return nos_ext.compile_rule(optim.library.get(text))
        if text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        return nos_ext.compile_rule(text)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{option}: {error}\npass @FILE, the text of a rule, or {', '.join(optim.names())}") from None


def read_hyperparameters(rule: Any, given: Sequence[str], steps: int) -> dict[str, Any]:
    """Returns what the options --set say, each checked to be a hyperparameter of the rule."""
    decays = {name: getattr(schedules, f"{name}_decay") for name in ("linear", "cosine", "restart")}
    names = [name for name in rule.hyperparameters if name not in ("lr", "weight_decay")]
    found: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in names:
            raise SystemExit(f"--set {text}: rule '{rule.name}' has the hyperparameters {', '.join(names) or 'none'}")
        try:
            found[name] = decays[value](steps) if value in decays else float(value)
        except ValueError:
            raise SystemExit(f"--set {text}: pass NAME=VALUE, a number or one of {', '.join(decays)}") from None
    return found


def make_optimizer(net: nn.Module, options: argparse.Namespace, steps: int) -> optim.RuleOptimizer:
    """Makes the optimizer of --rule, in which only matrices and filters have weight decay."""
    rule = read_rule("--rule", options.rule)
    groups: list[dict[str, Any]] = [{"params": [p for p in net.parameters() if p.requires_grad]}]
    if "weight_decay" in rule.hyperparameters:
        params = groups[0]["params"]
        decayed = {} if options.weight_decay is None else {"weight_decay": options.weight_decay}
        groups = [{"params": [p for p in params if p.ndim > 1], **decayed}]
        groups += [{"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0}]
    elif options.weight_decay:
        raise SystemExit(f"--weight-decay {options.weight_decay}: rule '{rule.name}' has none; leave the option out")
    return build_optimizer(groups, rule, options, steps)


def build_optimizer(groups: list[dict[str, Any]], rule: Any, options: argparse.Namespace, steps: int) -> Any:
    """Makes the optimizer of param groups that are already divided."""
    hyper = read_hyperparameters(rule, options.hyper, steps)
    try:
        return optim.RuleOptimizer(
            groups, rule, options.lr, clip_norm=options.clip_norm, seed=options.seed, total_steps=steps, **hyper
        )
    except ValueError as error:
        raise SystemExit(f"--rule {rule.name} --lr {options.lr}, with what --set and others say: {error}") from None


def make_schedule(optimizer: Any, options: argparse.Namespace, steps: int) -> Any:
    """Makes the schedule of the learning rate: a linear rise in --warmup steps, and --decay over the others."""
    if not 0 <= options.warmup < steps:
        raise SystemExit(f"--warmup {options.warmup}: the training has {steps} steps; pass fewer, or more --epochs")
    rest = steps - options.warmup
    rise = None
    if options.warmup:  # step i of it has (i + 1) / warmup of the rate
        rise = lr_scheduler.LinearLR(optimizer, 1 / options.warmup, 1.0, max(1, options.warmup - 1))
    decay = {
        "linear_cosine": lambda: schedules.LinearCosineDecay(optimizer, rest),
        "cosine": lambda: schedules.CosineDecay(optimizer, rest),
        "linear": lambda: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, rest),
        "none": lambda: lr_scheduler.ConstantLR(optimizer, 1.0, 1),
    }[options.decay]()
    return lr_scheduler.SequentialLR(optimizer, [rise, decay], [options.warmup]) if rise else decay


class Run:
    """A Run is one training: its place among the processes of torchrun, its checkpoint, its log and its results.

    `rank` is the number of this process, of `world`. `device` is where this process computes. `share` is its part of
    --batch-size. `history` has the figures of each epoch that is over.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if options.epochs < 1 or options.batch_size < 1 or options.batch_size % self.world:
            raise SystemExit(
                f"--epochs {options.epochs} --batch-size {options.batch_size}: both must be at least 1, and the batch "
                f"a multiple of the {self.world} processes"
            )
        self.share = options.batch_size // self.world
        self.path = options.out / "checkpoint.pt"
        if self.path.exists() and not options.resume:
            raise SystemExit(
                f"--out {options.out} has a checkpoint; go on from it with --resume, or name another folder"
            )
        kind = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.device = torch.device(kind, int(os.environ.get("LOCAL_RANK", 0)) if kind == "cuda" else None)
        if kind == "cuda":
            torch.cuda.set_device(self.device)
        if self.world > 1:
            dist.init_process_group("nccl" if kind == "cuda" else "gloo")
        self.history: list[dict[str, float]] = []
        self._writer = self._open_log() if options.log and self.rank == 0 else None
        torch.manual_seed(options.seed)  # every process makes the same weights

    def _open_log(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise SystemExit(f"--log {self.options.log} needs TensorBoard: pip install tensorboard") from None
        return SummaryWriter(self.options.log)

    def distribute(self, net: nn.Module) -> nn.Module:
        """Puts the network on the device, and returns what trains it: itself, or DDP around it."""
        net.to(self.device)
        if self.world == 1:
            return net
        return nn.parallel.DistributedDataParallel(net, [self.device] if self.device.type == "cuda" else None)

    def autocast(self) -> torch.autocast:
        """Returns the context in which --dtype is used."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.dtype == "bf16")

    def generator(self, epoch: int) -> torch.Generator:
        """Returns a generator for the order of an epoch, the same in every process."""
        return torch.Generator().manual_seed(self.options.seed + 1_000_003 * epoch)

    def sum(self, *values: Any) -> list[float]:
        """Returns the sum of each value over all processes."""
        total = torch.tensor([float(value) for value in values], dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, in the order of their ranks."""
        if self.world == 1:
            return [value]
        found = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def start(self, **parts: Any) -> range:
        """Loads the checkpoint if there is one, into model=, optimizer= and schedule=; returns the epochs to do."""
        self._parts, self._began = parts, time.perf_counter()
        if not self.path.exists():
            torch.manual_seed(self.options.seed + 1 + self.rank)  # each process draws its own augmentations
        else:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            now = {**self._plain_options(), "processes": self.world}
            for name, value in saved["options"].items():
                if name not in KEPT and value != now.get(name):
                    raise SystemExit(
                        f"--resume: {self.path} was written with {name} {value}, and this is {now.get(name)}; "
                        "repeat the old options, or name another --out"
                    )
            for name, part in parts.items():
                part.load_state_dict(saved[name])
            self.history = saved["history"]
            rng = saved["rng"][self.rank]
            torch.set_rng_state(rng["cpu"])
            if "cuda" in rng:
                torch.cuda.set_rng_state(rng["cuda"])
            if self.rank == 0:
                print(f"goes on after epoch {len(self.history)} of {self.options.epochs}", flush=True)
        return range(len(self.history) + 1, self.options.epochs + 1)

    def end_of_epoch(self, train_loss: float, **figures: float) -> None:
        """Prints and logs the figures of an epoch, and saves everything; the loss is that of this process's batches."""
        now = time.perf_counter()
        loss = self.sum(train_loss)[0] / self.world
        figures = {"loss": loss, **figures, "seconds": now - self._began}
        self._began = now
        self.history.append(figures)
        epoch, rate = len(self.history), self._parts["optimizer"].param_groups[0]["lr"]
        diverged = not math.isfinite(loss)
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state()
        everyone = self.gather(rng)
        if self.rank == 0:
            shown = "  ".join(f"{name} {value:.5g}" for name, value in figures.items())
            print(f"epoch {epoch}/{self.options.epochs}  {shown}  lr {rate:.3g}", flush=True)
            if self._writer:
                for name, value in {**figures, "lr": rate}.items():
                    self._writer.add_scalar(name, value, epoch)
                self._writer.flush()
            if not diverged:
                self._save(everyone)
            self.write_result(diverged=diverged)
        if diverged:
            raise SystemExit(f"the loss is {loss} in epoch {epoch}: --lr {self.options.lr} is too high for this rule")

    def _save(self, rng: list[Any]) -> None:
        """Writes the checkpoint beside the old one and moves it there, so that there is a whole one at any time."""
        options = {**self._plain_options(), "processes": self.world}
        saved = {"options": options, "history": self.history, "rng": rng}
        saved |= {name: part.state_dict() for name, part in self._parts.items()}
        self.options.out.mkdir(parents=True, exist_ok=True)
        torch.save(saved, self.path.with_suffix(".new"))
        os.replace(self.path.with_suffix(".new"), self.path)

    def write_result(self, **more: Any) -> dict[str, Any]:
        """Writes result.json: the options, the figures of each epoch, and `more`; returns it."""
        result = {"options": self._plain_options(), "processes": self.world, "history": self.history, **more}
        if self.rank == 0:
            self.options.out.mkdir(parents=True, exist_ok=True)
            text = json.dumps(result, indent=1) + "\n"
            (self.options.out / "result.json").write_text(text, encoding="utf-8")
        return result

    def finish(self, **more: Any) -> dict[str, Any]:
        """Writes the last result, ends the processes' group, and returns the result."""
        result = self.write_result(diverged=False, **more)
        if self._writer:
            self._writer.close()
        if self.world > 1:
            dist.destroy_process_group()
        return result

    def _plain_options(self) -> dict[str, Any]:
        return {name: str(v) if isinstance(v, Path) else v for name, v in vars(self.options).items()}


if __name__ == "__main__":
    main()
