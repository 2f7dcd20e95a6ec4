"""Owns the command space, which prints the vocabulary, the masks and the size of a search space."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from nos_ext.optim import library

from ..bounds import check_count
from ..errors import UsageError, choose
from ..space import LionSpace, Options, ProgramSpace, SearchSpace, Space, TextSpace
from ..space.space import MAX_GROUPS
from ..train.seeds import check_seed
from .output import as_json, emit, table


def space_of(args: argparse.Namespace, default: str = Space.kind) -> SearchSpace:
    """Returns the space that the options of groups.space_words describe, which is of the kind `default` where they do
    not say."""
    kind = default if args.space is None else args.space
    if kind not in _KINDS:
        raise choose("--space", kind, tuple(_KINDS))
    make, options, _ = _KINDS[kind]
    for option in dict.fromkeys(name for _, names, _ in _KINDS.values() for name in names):
        if option not in options and getattr(args, option) not in (None, False):
            kinds = " or ".join(name for name, (_, names, _) in _KINDS.items() if option in names)
            shown = f"--{option.replace('_', '-')}"
            raise UsageError(f"{shown} is an option of --space {kinds}, and this is {kind}; leave {shown} out")
    return make(args)


def call(args: argparse.Namespace) -> int:
    check_seed(args.seed)
    check_count("--samples", args.samples, "0 prints none", least=0)
    chosen = space_of(args)
    generator = torch.Generator().manual_seed(args.seed)
    if isinstance(chosen, TextSpace):
        document = {"format": 1, **chosen.config(), **chosen.words()}
        emit(as_json(document) if args.json else "\n".join(_describe_text(chosen)))
        return 0
    samples = [chosen.sample(generator) for _ in range(args.samples)]
    if args.json:
        document = {
            "format": 1,
            **chosen.config(),
            "size": chosen.size(),
            "size_masked": chosen.size(masked=True),
            "positions": [{"name": p.name, "kind": p.kind, "tokens": list(p.names)} for p in chosen.positions],
            "samples": [{"tokens": list(tokens), "rule": chosen.text(tokens)} for tokens in samples],
        }
        emit(as_json(document))
        return 0
    _, _, describe = _KINDS[chosen.kind]
    text = describe(chosen)
    if samples:
        text += ["\nsamples", *(f"  {' '.join(map(str, sample))}  {chosen.text(sample)}" for sample in samples)]
    text.append(f"\nlibrary rules that evaluate and export know by name: {', '.join(library.names())}")
    emit("\n".join(text))
    return 0


# --- the paper's groups ----------------------------------------------------------------------------------------------


def _make_groups(args: argparse.Namespace) -> SearchSpace:
    options = Options(
        bias_correction=not args.no_bias_correction,
        drop_rescale=args.drop_rescale,
        noise_variance=args.noise_variance,
        distinct_operands=not args.no_masks,
        last_not_add=not args.no_masks,
        use_earlier=not args.no_masks,
    )
    given = {"vocabulary": args.vocabulary, "groups": args.groups}
    return Space(**{name: value for name, value in given.items() if value is not None}, options=options)


def _describe_groups(chosen: Space) -> list[str]:
    sizes = [Space(vocabulary=chosen.vocabulary, groups=n, options=chosen.options) for n in range(1, MAX_GROUPS + 1)]
    by_groups = [[str(s.groups), str(s.length), f"{s.size():,}", f"{s.size(masked=True):.3g}"] for s in sizes]
    text = [
        f"vocabulary {chosen.vocabulary}, {chosen.groups} group(s) of op1 op2 u1 u2 b, meaning b(u1(op1), u2(op2))",
        f"strings    {chosen.size():,} ({chosen.size():.3g}), {chosen.size(masked=True):.3g} within the masks",
        "\nsize by groups, (operands + earlier outputs)^2 * unary^2 * binary each",
        table(["groups", "length", "strings", "within the masks"], by_groups),
    ]
    for title, tokens in (("operand", chosen.operands), ("unary", chosen.unary), ("binary", chosen.binary)):
        rows = [[str(k), t.name, chosen.token_text(t).format("x", "y"), t.doc] for k, t in enumerate(tokens)]
        text.append(f"\n{title}\n" + table(["index", "token", "text", "meaning"], rows))
    switches = asdict(chosen.options).items()
    return [*text, "\noptions and masks", *(f"  {name} {'on' if value else 'off'}" for name, value in switches)]


# --- programs --------------------------------------------------------------------------------------------------------


def _make_program(args: argparse.Namespace) -> SearchSpace:
    kind = LionSpace if args.space == LionSpace.kind else ProgramSpace
    return kind() if args.lines is None else kind(lines=args.lines)


def _describe_program(chosen: ProgramSpace) -> list[str]:
    text = [
        f"programs of {chosen.lines} lines of op a b c, meaning x = op(a, b; c); the last is the update",
        f"strings    {chosen.size():.3g}, {chosen.size(masked=True):.3g} within the masks",
    ]
    parts = {"a": "a", "b": "b", "c": "c", "d": "(1 - c)", "s": "m"}
    for title, position in (("op", 0), ("operand", 1), ("constant", 3)):
        tokens = chosen.positions[position].tokens
        rows = [[str(k), t.name, t.text.format(**parts), t.doc] for k, t in enumerate(tokens)]
        text.append(f"\n{title}\n" + table(["index", "token", "text", "meaning"], rows))
    text.append("\nm is the average's own state. Later lines may take the values of earlier ones. Known rules:")
    return [*text, *(f"  {name:10} {chosen.text(known)}" for name, known in chosen.known().items())]


# --- text ------------------------------------------------------------------------------------------------------------


def _describe_text(chosen: TextSpace) -> list[str]:
    words = chosen.words()
    ops = [[name, str(op["arguments"]), op["symbol"], op["doc"]] for name, op in words["ops"].items()]
    return [
        "all rules of the language: an update u of p - lr * u, or def name(p, g, state, ..., *, lr, hyper=0.9, ...)",
        f"states     {words['states']} at most; characters {words['longest']} at most",
        "\noperands\n" + table(["name", "meaning"], list(map(list, words["operands"].items()))),
        "\nfunctions\n" + table(["name", "arguments", "infix", "meaning"], ops),
        f"\nlibrary rules that may be proposed by name: {', '.join(words['library'])}",
    ]


_OF_GROUPS = ("vocabulary", "groups", "no_bias_correction", "drop_rescale", "noise_variance", "no_masks")
# For each kind of space: how it is made from a command line, by which options, and the lines that describe it.
_KINDS: dict[str, tuple[Callable[[argparse.Namespace], SearchSpace], tuple[str, ...], Callable[[Any], list[str]]]] = {
    Space.kind: (_make_groups, _OF_GROUPS, _describe_groups),
    ProgramSpace.kind: (_make_program, ("lines",), _describe_program),
    LionSpace.kind: (_make_program, ("lines",), _describe_program),
    TextSpace.kind: (lambda args: TextSpace(), (), _describe_text),
}
