"""Trains a Wide ResNet on CIFAR-10 with any update rule: the training with which the paper compares its rules.

python examples/recipes/cifar10.py DATA --rule powersign --lr 0.1
torchrun --nproc-per-node 8 examples/recipes/cifar10.py DATA --rule powersign --lr 0.1 --dtype bf16

DATA is the folder cifar-10-batches-py, or the one that has it, from cifar-10-python.tar.gz, unpacked, which
https://www.cs.toronto.edu/~kriz/cifar.html offers. README.md beside this file has more commands.
"""

from __future__ import annotations

import argparse
import codecs
import io
import json
import math
import os
import pickle
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

import nos_ext
from nos_ext import optim, schedules

MEAN, DEVIATION = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)  # of the training images' bytes, per colour


class Block(nn.Module):
    """A Block is the residual block of a Wide ResNet: twice batch norm, ReLU and a 3x3 convolution."""

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(y)
        y = self.conv1(y)
        return kept + self.conv2(self.dropout(F.relu(self.norm2(y))))


def wide_resnet(name: str, dropout: float) -> nn.Sequential:
    """Makes the network of Zagoruyko and Komodakis (2016) that has `name`, wrn-DEPTH-WIDTH."""
    found = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
    if not found or int(found[1]) < 10 or (int(found[1]) - 4) % 6 or not int(found[2]):
        raise SystemExit(
            f"--net {name}: pass wrn-DEPTH-WIDTH, where the depth is 10, 16, 22, 28, ...; such as wrn-16-4"
        )
    blocks, width = (int(found[1]) - 4) // 6, int(found[2])
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)]
    before = 16
    for stage in range(3):
        after = 16 * width * 2**stage
        for i in range(blocks):
            layers.append(Block(before, after, 2 if stage and not i else 1, dropout))
            before = after
    layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)]
    net = nn.Sequential(*layers)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


class Arrays(pickle.Unpickler):
    """An Arrays reads a pickle of plain values and NumPy arrays, and refuses every other class."""

    ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): codecs.encode,
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a batch of CIFAR-10") from None


def read_images(folder: Path, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the images of these files, bytes of shape (N, 3, 32, 32), and their classes."""
    place = folder / "cifar-10-batches-py" if (folder / "cifar-10-batches-py").is_dir() else folder
    images, classes = [], []
    for name in names:
        try:
            batch = Arrays(io.BytesIO((place / name).read_bytes()), encoding="bytes").load()
            images.append(torch.from_numpy(np.array(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32)))
            classes.append(torch.tensor(batch[b"labels"]))
        except FileNotFoundError:
            raise SystemExit(
                f"DATA {folder}: there is no {place / name}; get cifar-10-python.tar.gz from "
                "https://www.cs.toronto.edu/~kriz/cifar.html and unpack it there with tar -xf"
            ) from None
        except Exception as error:  # a pickle can fail in any way
            raise SystemExit(
                f"DATA {folder}: {place / name} is no batch of CIFAR-10: {error}; unpack it again"
            ) from None
    return torch.cat(images), torch.cat(classes)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Returns bytes as numbers with mean 0 and deviation 1 in each colour."""
    mean, deviation = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (MEAN, DEVIATION))
    return (images.float() - mean) / deviation


def augmented(images: torch.Tensor) -> torch.Tensor:
    """Returns the images padded by 4 black pixels and cropped at random places, half of them mirrored."""
    count, colours, size, _ = images.shape
    padded = F.pad(images, (4, 4, 4, 4))
    place = torch.randint(0, 9, (2, count, 1), device=images.device)
    along = torch.arange(size, device=images.device).expand(count, size)
    mirrored = torch.where(torch.rand(count, 1, device=images.device) < 0.5, size - 1 - along, along)
    rows, columns = along + place[0], mirrored + place[1]
    image = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
    colour = torch.arange(colours, device=images.device).view(1, -1, 1, 1)
    return padded[image, colour, rows[:, None, :, None], columns[:, None, None, :]]


def batches(run: Run, count: int, epoch: int) -> Iterator[torch.Tensor]:
    """Yields which images each batch of this process has; what is left over in an epoch is left out."""
    order = torch.randperm(count, generator=run.generator(epoch))
    for batch in order.split(run.options.batch_size)[: count // run.options.batch_size]:
        yield batch[run.rank :: run.world].to(run.device)


@torch.no_grad()
def accuracy(run: Run, model: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> float:
    """Returns the share of images whose class is found, in percent; each process looks at its part of them."""
    model.eval()
    mine = range(run.rank, len(classes), run.world)
    right = torch.zeros((), device=run.device)
    for part in torch.tensor(mine, device=run.device).split(500):
        with run.autocast():
            right += (model(normalised(images[part])).argmax(1) == classes[part]).sum()
    model.train()
    return 100 * run.sum(right)[0] / len(classes)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="the folder cifar-10-batches-py, or the one that has it"
    )
    parser.add_argument("--net", default="wrn-28-10", help="wrn-DEPTH-WIDTH (default: wrn-28-10)")
    parser.add_argument("--dropout", type=float, default=0.0)
    help_ = "validate on the last N training images (the paper: 5000), and test at the end only"
    parser.add_argument("--hold-out", type=int, default=0, metavar="N", help=help_)
    add_shared_options(parser, epochs=300, batch_size=128, out="runs/cifar10")
    options = parser.parse_args(arguments)

    run = Run(options)
    images, classes = (x.to(run.device) for x in read_images(options.data, [f"data_batch_{i}" for i in range(1, 6)]))
    test_images, test_classes = (x.to(run.device) for x in read_images(options.data, ["test_batch"]))
    count = len(classes) - options.hold_out
    if not options.batch_size <= count <= len(classes):
        raise SystemExit(
            f"--batch-size {options.batch_size} --hold-out {options.hold_out}: {len(classes)} training images are "
            "too few for that, or the number is negative"
        )
    held = (images[count:], classes[count:]) if options.hold_out else (test_images, test_classes)

    net = wide_resnet(options.net, options.dropout)
    model = run.distribute(net)
    steps = count // options.batch_size
    optimizer = make_optimizer(net, options, steps * options.epochs)
    schedule = make_schedule(optimizer, options, steps * options.epochs)
    for epoch in run.start(model=net, optimizer=optimizer, schedule=schedule):
        total = torch.zeros((), device=run.device)
        for index in batches(run, count, epoch):
            with run.autocast():
                loss = F.cross_entropy(model(normalised(augmented(images[index]))).float(), classes[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        optimizer.eval()  # schedule-free rules evaluate other weights than they train
        found = accuracy(run, net, *held)
        optimizer.train()
        run.end_of_epoch(total / steps, accuracy=found)
    optimizer.eval()
    return run.finish(test_accuracy=accuracy(run, net, test_images, test_classes))


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
