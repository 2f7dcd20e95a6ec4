"""Owns the command bench, which measures the search itself."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ..bench import BENCHES, load_bench
from ..errors import choose
from ..run import versions
from .output import as_json, emit, markdown, note, table
from .parser import Parser


def call(args: argparse.Namespace) -> int:
    if args.name is None:
        emit("\n".join(f"{name:12} {about}" for name, (_, about) in BENCHES.items()))
        return 0
    if args.name not in BENCHES:
        raise choose("bench", args.name, tuple(BENCHES))
    options = parser_of(args.name).parse_args(args.rest)
    result = load_bench(args.name).run(options, note=note)
    if options.json:
        found = asdict(result)
        document = {"format": 1, "bench": args.name, "versions": versions(), **found.pop("head"), **found}
        emit(as_json(document), keep=True)
        return 0
    form = markdown if options.markdown else table
    emit("\n".join([result.title, form(result.columns, result.rows), *result.notes]), keep=True)
    return 0


def parser_of(name: str) -> Parser:
    """Returns the parser of a bench's own options."""
    parser = Parser(prog=f"nos-search bench {name}", description=BENCHES[name][1])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown, for docs")
    load_bench(name).arguments(parser)
    return parser
