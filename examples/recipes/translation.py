"""Trains a transformer to translate, on pairs of text files as those of WMT, with any update rule; reports BLEU.

python examples/recipes/translation.py train.en train.de valid.en valid.de --rule adamw --lr 7e-4 --warmup 4000
torchrun --nproc-per-node 8 examples/recipes/translation.py train.en train.de valid.en valid.de --rule lion --lr 1e-4

Line n of one file is the translation of line n of the other. Both languages share one sentencepiece vocabulary, which
is trained on the first two files unless --spm names a model. README.md beside this file has more commands.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sacrebleu
import sentencepiece
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

import nos_ext
from nos_ext import optim, schedules

PAD, UNKNOWN, BEGIN, END = range(4)  # tokens that every model of this recipe has


class Translator(nn.Module):
    """A Translator is a pre-norm transformer: it takes the tokens of texts and of the beginnings of their translations,
    and gives each token of the vocabulary a score of being the next, after every token of the translations.

    One matrix embeds the tokens of both languages, and is the output layer, too.
    """

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.width, self.dropout = width, dropout
        self.tokens = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.tokens.weight, std=width**-0.5)
        rest = {"dropout": dropout, "batch_first": True, "norm_first": True}
        encoder = nn.TransformerEncoderLayer(width, heads, 4 * width, **rest)
        decoder = nn.TransformerDecoderLayer(width, heads, 4 * width, **rest)
        self.encoder = nn.TransformerEncoder(encoder, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder, depth, nn.LayerNorm(width))
        for part in (self.encoder, self.decoder):
            for p in part.parameters():
                if p.ndim > 1:
                    nn.init.xavier_uniform_(p)  # the layers are copies of one, and began alike

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the embedded tokens with the sines and cosines of their places added."""
        rates = torch.exp(torch.arange(0, self.width, 2, device=tokens.device) * (-math.log(1e4) / self.width))
        angles = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(1) * rates
        places = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
        return F.dropout(self.tokens(tokens) * math.sqrt(self.width) + places, self.dropout, self.training)

    def encode(self, source: torch.Tensor) -> torch.Tensor:
        """Returns what the decoder reads of the text."""
        return self.encoder(self.embed(source), src_key_padding_mask=source == PAD)

    def decode(self, source: torch.Tensor, memory: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns the scores of what follows each token of `target`."""
        length = target.shape[1]
        future = torch.ones(length, length, dtype=torch.bool, device=target.device).triu(1)
        mask = source == PAD
        found = self.decoder(self.embed(target), memory, future, memory_key_padding_mask=mask, tgt_is_causal=True)
        return F.linear(found, self.tokens.weight)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.decode(source, self.encode(source), target)


@torch.no_grad()
def beam_search(net: Any, source: torch.Tensor, beam: int, longest: int, alpha: float = 0.6) -> list[list[int]]:
    """Returns the best translation of each text that a search with `beam` hypotheses finds; with 1 it is greedy.

    The search for a text is over when `beam` hypotheses have ended, or the best of those can no longer be surpassed.
    The score of a translation is its logarithmic probability over ((5 + length) / 6) ** alpha, as in GNMT, with the
    token that ends it counted. One that has not ended after `longest` tokens is ended there.
    """
    count, device = len(source), source.device
    memory = net.encode(source).repeat_interleave(beam, 0)
    source = source.repeat_interleave(beam, 0)
    tokens = torch.full((count * beam, 1), BEGIN, device=device)
    scores = torch.full((count, beam), -math.inf, device=device)
    scores[:, 0] = 0.0  # all hypotheses are alike at first
    best: list[tuple[float, list[int]]] = [(-math.inf, [])] * count
    over = [0] * count  # how many hypotheses have ended
    for length in range(1, longest + 1):
        steps = net.decode(source, memory, tokens)[:, -1].float().log_softmax(-1)
        steps[:, [PAD, BEGIN]] = -math.inf
        size = steps.shape[1]
        every = (scores.view(-1, 1) + steps).view(count, -1)
        found, place = every.topk(min(2 * beam, every.shape[1]))  # of which at most `beam` end
        row, token = place // size, place % size
        last = length == longest
        ended = (token == END) | last
        penalty = ((5 + length) / 6) ** alpha
        for i, j in (ended & found.isfinite()).nonzero().tolist():
            if j >= beam or over[i] >= beam:
                continue
            over[i] += 1
            score = found[i, j].item() / penalty
            if score > best[i][0]:
                words = tokens[i * beam + row[i, j]][1:].tolist()
                best[i] = (score, words if token[i, j] == END else [*words, token[i, j].item()])
        scores, kept = found.masked_fill(ended, -math.inf).topk(beam)
        bounds = (scores[:, 0] / ((5 + longest) / 6) ** alpha).tolist()  # no continuation has a better score
        if all(over[i] >= beam or bounds[i] <= best[i][0] for i in range(count)):
            break
        origin = row.gather(1, kept) + beam * torch.arange(count, device=device).unsqueeze(1)
        tokens = torch.cat([tokens[origin.flatten()], token.gather(1, kept).view(-1, 1)], 1)
    return [words for _, words in best]


def load_spm(run: Run, options: argparse.Namespace) -> Any:
    """Loads the model that --spm names, or trains one on both texts and leaves it in --out."""
    path = options.spm or options.out / "spm.model"
    if options.spm and not path.is_file():
        raise SystemExit(f"--spm {path}: there is no such file; without the option a model is trained")
    if run.rank == 0 and not options.spm and not run.path.exists():
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=[str(options.source), str(options.target)], model_writer=model, vocab_size=options.vocabulary,
                hard_vocab_limit=False, input_sentence_size=2_000_000, shuffle_input_sentence=True, minloglevel=2,
                pad_id=PAD, unk_id=UNKNOWN, bos_id=BEGIN, eos_id=END,
            )  # fmt: skip
        except RuntimeError as error:
            raise SystemExit(f"--vocabulary {options.vocabulary}: {error}; pass another number of tokens") from None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.getvalue())
    run.gather(None)  # the others wait for it
    spm = sentencepiece.SentencePieceProcessor(model_file=str(path))
    found = (spm.pad_id(), spm.unk_id(), spm.bos_id(), spm.eos_id())
    if found != (PAD, UNKNOWN, BEGIN, END):
        raise SystemExit(f"--spm {path}: its pad, unk, bos and eos are {found}; train it with them as 0, 1, 2 and 3")
    return spm


def read_pairs(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Returns the lines of two text files that belong together."""
    try:
        texts = [path.read_text(encoding="utf-8").removesuffix("\n").split("\n") for path in (source, target)]
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}; pass four text files, a sentence a line") from None
    if len(texts[0]) != len(texts[1]):
        raise SystemExit(f"{source} has {len(texts[0])} lines and {target} {len(texts[1])}; line n must mean line n")
    kept = [pair for pair in zip(*texts, strict=True) if pair[0].strip() and pair[1].strip()]
    if not kept:
        raise SystemExit(f"{source} and {target} have no line in which both have text")
    return [pair[0] for pair in kept], [pair[1] for pair in kept]


class Sentences:
    """Sentences are the tokens of many texts, all in one row, in which text i has `row[ends[i] : ends[i + 1]]`."""

    def __init__(self, spm: Any, lines: list[str]) -> None:
        rows, sizes = [], [0]
        for i in range(0, len(lines), 10_000):  # lists of integers take much more memory than the row
            encoded = [[*tokens, END] for tokens in spm.encode(lines[i : i + 10_000])]
            rows.append(torch.tensor([token for tokens in encoded for token in tokens], dtype=torch.int32))
            sizes += map(len, encoded)
        self.row, self.lengths = torch.cat(rows), torch.tensor(sizes[1:])
        self.ends = torch.tensor(sizes).cumsum(0)

    def batch(self, which: Sequence[int], device: torch.device) -> torch.Tensor:
        """Returns some of the texts as one tensor, with PAD behind the shorter ones."""
        rows = [self.row[self.ends[i] : self.ends[i + 1]].long() for i in which]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD).to(device)


def buckets(
    lengths: torch.Tensor, tokens: int, longest: int | None = None, generator: torch.Generator | None = None
) -> list[list[int]]:
    """Divides texts into batches of like length, in which no more than `tokens` are, those of padding included.

    Texts above `longest` are left out. `generator` shuffles texts of the same length, and the batches. How many batches
    there are depends on the lengths alone.
    """
    order = torch.randperm(len(lengths), generator=generator) if generator else torch.arange(len(lengths))
    order = order[lengths[order] <= longest] if longest else order
    order = order[lengths[order].argsort(stable=True)]
    batches: list[list[int]] = []
    for i, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if not batches or length * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(i)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)] if generator else batches


def loss_of(model: nn.Module, source: torch.Tensor, target: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Returns the mean over all tokens of minus the logarithm of their probability, with smoothed labels."""
    read = torch.cat([torch.full_like(target[:, :1], BEGIN), target[:, :-1]], 1)
    scores = model(source, read).flatten(0, 1).float()
    return F.cross_entropy(scores, target.flatten(), ignore_index=PAD, label_smoothing=smoothing)


@torch.no_grad()
def evaluate(
    run: Run, net: Translator, source: Sentences, target: Sentences, lines: list[str], spm: Any
) -> list[float]:
    """Returns the loss of the validation pairs and the BLEU of their translations; each process has its part."""
    options, said = run.options, {}
    net.eval()
    total, count = 0.0, 0
    for which in buckets(torch.maximum(source.lengths, target.lengths), run.share)[run.rank :: run.world]:
        texts, wanted = source.batch(which, run.device), target.batch(which, run.device)
        with run.autocast():
            size = int((wanted != PAD).sum())
            total, count = total + loss_of(net, texts, wanted).item() * size, count + size
            found = beam_search(net, texts, options.beam, min(2 * texts.shape[1] + 10, options.longest))
        said |= dict(zip(which, spm.decode(found), strict=True))
    net.train()
    total, count = run.sum(total, count)
    everyone = {i: text for part in run.gather(said) for i, text in part.items()}
    bleu = sacrebleu.corpus_bleu([everyone[i] for i in range(len(lines))], [lines]).score
    return [total / count, bleu]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("source", "target", "valid_source", "valid_target"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    parser.add_argument("--spm", type=Path, metavar="MODEL", help="a sentencepiece model (default: train one)")
    parser.add_argument("--vocabulary", type=int, default=32000, help="tokens of a model that is trained")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--longest", type=int, default=256, help="pairs with more tokens on a side are left out")
    parser.add_argument("--beam", type=int, default=4, help="hypotheses of the search; 1 is greedy")
    add_shared_options(parser, epochs=20, batch_size=32768, out="runs/translation")
    options = parser.parse_args(arguments)
    if options.width % options.heads or options.width % 2 or options.beam < 1:
        raise SystemExit(
            f"--width {options.width} --heads {options.heads} --beam {options.beam}: the width must be even and a "
            "multiple of the heads, and the beam at least 1"
        )

    run = Run(options)
    texts = read_pairs(options.source, options.target)
    held_texts = read_pairs(options.valid_source, options.valid_target)
    spm = load_spm(run, options)
    source, target = (Sentences(spm, lines) for lines in texts)
    held = [Sentences(spm, lines) for lines in held_texts]
    lengths = torch.maximum(source.lengths, target.lengths)
    # A batch is of tokens, not of pairs: each process has batches of its own, of --batch-size over their number.
    steps = len(buckets(lengths, run.share, options.longest)) // run.world
    if not steps or run.share < options.longest:
        raise SystemExit(
            f"--batch-size {options.batch_size}: it is counted in tokens, must have {options.longest} (--longest) for "
            f"each process, and leave a batch for each; there are {len(lengths)} pairs"
        )

    net = Translator(spm.vocab_size(), options.width, options.depth, options.heads, options.dropout)
    model = run.distribute(net)
    optimizer = make_optimizer(net, options, steps * options.epochs)
    schedule = make_schedule(optimizer, options, steps * options.epochs)
    for epoch in run.start(model=net, optimizer=optimizer, schedule=schedule):
        total = torch.zeros((), device=run.device)
        for which in buckets(lengths, run.share, options.longest, run.generator(epoch))[run.rank :: run.world][:steps]:
            texts, wanted = source.batch(which, run.device), target.batch(which, run.device)
            with run.autocast():
                loss = loss_of(model, texts, wanted, options.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        optimizer.eval()  # schedule-free rules evaluate other weights than they train
        held_loss, bleu = evaluate(run, net, *held, held_texts[1], spm)
        optimizer.train()
        run.end_of_epoch(total / steps, validation_loss=held_loss, bleu=bleu)
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
