"""Trains a small GPT on a text file with any update rule, or with Muon for the matrices and a rule for the rest.

python examples/recipes/gpt.py TEXT --rule adamw --lr 1e-3 --matrices muon --matrices-lr 0.02
torchrun --nproc-per-node 8 examples/recipes/gpt.py TEXT --rule powersign --lr 0.1 --dtype bf16

TEXT is a file in UTF-8. Its tokens are its bytes, or those of a sentencepiece model (--spm). Its last tenth is for
validation. README.md beside this file has more commands.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

import nos_ext
from nos_ext import optim, schedules


class Block(nn.Module):
    """A Block is a pre-norm transformer block: causal attention, then two layers with GELU between them.

    Query, key and value have a matrix each, so that Muon orthogonalizes each of them by itself.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        parts = (part(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(*parts, dropout_p=dropout, is_causal=True)
        x = x + F.dropout(self.out(y.transpose(1, 2).flatten(-2)), dropout)
        return x + F.dropout(self.narrow(F.gelu(self.wide(self.norm2(x)))), dropout)


class GPT(nn.Module):
    """A GPT says for each token of a text what comes next: (N, T) tokens to (N, T, vocabulary) scores, T <= context."""

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for name, p in self.named_parameters():
            if p.ndim > 1:  # as GPT-2; what is added to the sum of all blocks begins smaller
                added = name.endswith(("out.weight", "narrow.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * depth) if added else 0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def read_tokens(path: Path, spm: Any) -> tuple[torch.Tensor, int]:
    """Returns the tokens of a text, and how many bytes it has."""
    try:
        text = path.read_bytes()
        tokens = spm.encode(text.decode("utf-8")) if spm else list(text)
    except OSError as error:
        raise SystemExit(f"TEXT {path}: {error.strerror}; pass a text file in UTF-8") from None
    except UnicodeDecodeError as error:
        raise SystemExit(f"TEXT {path} is not in UTF-8 ({error}); convert it, or leave --spm out") from None
    return torch.tensor(tokens, dtype=torch.int32), len(text)


def load_spm(path: Path) -> Any:
    """Loads a sentencepiece model."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise SystemExit(f"--spm {path} needs sentencepiece: pip install sentencepiece") from None
    if not path.is_file():
        raise SystemExit(f"--spm {path}: there is no such file; train one with spm_train, or leave --spm out for bytes")
    return SentencePieceProcessor(model_file=str(path))


def batches(run: Run, tokens: torch.Tensor, context: int, steps: int, epoch: int) -> Iterator[torch.Tensor]:
    """Yields stretches of context + 1 tokens from random places of the text, this process's part of each batch."""
    generator = run.generator(epoch)
    along = torch.arange(context + 1)
    for _ in range(steps):
        places = torch.randint(len(tokens) - context, (run.options.batch_size, 1), generator=generator)
        yield tokens[places[run.rank :: run.world] + along].long().to(run.device)


def loss_of(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Returns the mean over all tokens of minus the logarithm of the probability that the model gives the next one."""
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1).float(), tokens[:, 1:].flatten())


@torch.no_grad()
def validation_loss(run: Run, model: nn.Module, tokens: torch.Tensor, context: int) -> float:
    """Returns the loss on one stretch of the text after the other; each process looks at its part of them."""
    model.eval()
    stretches = tokens.unfold(0, context + 1, context)
    total = torch.zeros((), device=run.device, dtype=torch.float64)
    for part in stretches[run.rank :: run.world].split(run.share):
        with run.autocast():
            total += loss_of(model, part.long().to(run.device)) * len(part)
    model.train()
    return run.sum(total)[0] / len(stretches)


def make_two_rules(net: GPT, options: argparse.Namespace, steps: int) -> optim.RuleOptimizer:
    """Makes the optimizer in which --matrices has the hidden matrices, and --rule embeddings, vectors and the head."""
    if options.matrices_lr is None:
        raise SystemExit(f"--matrices {options.matrices} needs a learning rate of its own: pass --matrices-lr")
    hidden, rest = read_rule("--matrices", options.matrices), read_rule("--rule", options.rule)
    matrices: dict[str, Any] = {"rule": hidden, "lr": options.matrices_lr}
    if options.weight_decay is not None:
        if "weight_decay" not in hidden.hyperparameters:
            raise SystemExit(f"--weight-decay {options.weight_decay}: rule '{hidden.name}' has none; leave it out")
        matrices["weight_decay"] = options.weight_decay
    others = {"rule": rest, **({"weight_decay": 0.0} if "weight_decay" in rest.hyperparameters else {})}
    return build_optimizer(optim.groups(net, matrices, others, head=net.head), rest, options, steps)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text", type=Path, metavar="TEXT", help="a text file in UTF-8")
    parser.add_argument("--spm", type=Path, metavar="MODEL", help="a sentencepiece model; bytes are the tokens without")
    parser.add_argument("--matrices", metavar="RULE", help="rule of the hidden matrices, such as muon")
    parser.add_argument("--matrices-lr", type=float, help="its learning rate")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument(
        "--epoch-steps", type=int, help="steps of an epoch (default: so many as have the text's length)"
    )
    add_shared_options(parser, epochs=10, batch_size=64, out="runs/gpt")
    options = parser.parse_args(arguments)
    if options.width % options.heads:
        raise SystemExit(f"--width {options.width} is no multiple of --heads {options.heads}")

    run = Run(options)
    spm = load_spm(options.spm) if options.spm else None
    tokens, size = read_tokens(options.text, spm)
    cut = len(tokens) * 9 // 10
    train, held = tokens[:cut], tokens[cut:]
    if len(held) <= options.context:
        raise SystemExit(
            f"TEXT {options.text} has {len(tokens)} tokens, and a tenth of them must be more than --context "
            f"{options.context}; take a longer text or a smaller context"
        )
    steps = options.epoch_steps or max(1, len(train) // (options.context * options.batch_size))
    bits = len(tokens) / size / math.log(2)  # of a byte, for each unit of loss

    vocabulary = spm.vocab_size() if spm else 256
    net = GPT(vocabulary, options.context, options.width, options.depth, options.heads, options.dropout)
    model = run.distribute(net)
    make = make_two_rules if options.matrices else make_optimizer
    optimizer = make(net, options, steps * options.epochs)
    schedule = make_schedule(optimizer, options, steps * options.epochs)
    for epoch in run.start(model=net, optimizer=optimizer, schedule=schedule):
        total = torch.zeros((), device=run.device)
        for batch in batches(run, train, options.context, steps, epoch):
            with run.autocast():
                loss = loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        optimizer.eval()  # schedule-free rules evaluate other weights than they train
        found = validation_loss(run, net, held, options.context)
        optimizer.train()
        run.end_of_epoch(total / steps, validation_loss=found, bits_per_byte=found * bits)
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
