"""``python -m nos_ext.docgen`` writes docs/reference/ from the tables; with ``--check`` it tells what is old."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

from .optim import library
from .rule.shorthand import HYPERS, OPERANDS
from .rule.table import OPS

FOLDER: Final = Path(__file__).parent.parent / "docs" / "reference"
_ARGUMENTS: Final = {"clip": "a, lo, hi", "drop": "a, prob", "normal": "std"}  # as the ops' own docs call them
_DOMAINS: Final = (
    (
        "any",
        "everything",
        "the highest of what it takes: a tensor if there is one, else a number per tensor, else a scalar",
    ),
    ("scalar", "scalars and numbers per tensor", "the same"),
    ("random", "everything; the last argument must be no tensor", "a tensor, with one draw per element and step"),
    ("reduce", "tensors only", "a number per tensor"),
    ("global", "tensors only", "a number that is the same for all tensors of a call"),
)
_AVERAGED: Final = """def averaged(p, g, k, *, lr, beta=0.9):
    k = beta * k + (1 - beta) * norm(g)
    return p - lr * g / (k / (1 - beta ** t)), k
"""
_NOTE: Final = "<!-- Written by `python -m nos_ext.docgen`. Do not edit. -->"
_MODULES: Final = ("nos_ext", "nos_ext.optim", "nos_ext.schedules")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head), *[" | ".join(row) for row in rows]]
    return "\n".join(f"| {line} |" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


def ops_page() -> str:
    rows = []
    for op in OPS.values():
        arguments = _ARGUMENTS.get(op.name) or ", ".join("abc"[: op.arity])
        rows.append((_code(f"{op.name}({arguments})"), _code(op.symbol), op.domain, _plain(op.doc), str(op.cost)))
    return f"""{_NOTE}
# Ops

The rows of `csrc/ops/ops.def`. Every op can be called by its name in rule text; those with a symbol can be written
infix as well. `x ** 2` with the number 2 means `square(x)`, `-x` means `neg(x)`, `clip(x, l)` means `clip(x, -l, l)`.
The cost counts additions; how each op rounds and what it does with NaN, infinities and signed zeros is in
[numerics.md](../numerics.md).

{_table(("op", "infix", "domain", "meaning", "cost"), rows)}

`orthogonalize(x)` is no row of the table, as matrix products are no op of the engine. It takes a tensor and gives one,
and it has options: [Muon](../howto/muon.md).

Constants: `e`, `pi`, `inf`. Built-in scalars: `t`, the step, from 1; `T`, the number of steps of the training.

## What an op takes and gives

A value in a rule is one of three things:

* a **scalar**, one number per step: numbers, hyperparameters, `t`, `T`, and what is made of them alone;
* a **number per tensor**, one for each parameter tensor and step: `norm(g)`, and what is made of such numbers alone or
  with scalars;
* a **tensor**, one number per element: `p`, `g`, most states, and everything that a tensor has a part in.

The domain of an op says which of them it takes:

{_table(("domain", "takes", "gives"), _DOMAINS)}

So `p - lr * g / norm(g)` divides the gradient of each tensor by its own norm, and
`p - lr * g * min(1, 1 / global_norm(g))` shortens the gradients of all tensors together where they are longer than 1.
All tensors are those of one call that have a gradient: in an optimizer the parameters of all groups, in a population
those of one slice. Scalars and numbers per tensor are computed in double and rounded where they meet a tensor. A
parameter without elements is left alone, with its states, and counts in no reduction.

## States that are one number per tensor

A state is kept as one number for each parameter, of the shape `()`, when its new value is such a number. Here `k` is a
moving average of norms, and takes no more memory than that:

```python
{_AVERAGED}```

`Program.per_tensor_states` has the names of these states. All other states have the shape of their parameter. That is
so, too, where no reduction has a part in the new value, as in `k = 0.9 * k`.
"""


def operands_page() -> str:
    rows = [(_code(spec.name), _code(spec.formula), _plain(spec.doc)) for spec in OPERANDS.values()]
    hypers = ", ".join(f"`{name}` = {value:g}" for name, value in HYPERS.items())
    return f"""{_NOTE}
# Operands of the short form

A rule that is one expression is the update `u` of `p - lr * u`, over the operands of the paper. `m`, `v` and `y` are
states; one that is used more than once is still updated once a step, and in its own formula its name is the old value.
A draw that is used twice is one draw. Hyperparameters, where an operand uses them:
{hypers}.

{_table(("operand", "formula", "meaning"), rows)}

`lr`, `t`, `T`, numbers and all [ops](ops.md) can be used as well.
"""


def rules_page() -> str:
    uses = [(f"[`{name}`](#{name})", _plain(library.ENTRIES[name].use)) for name in library.names()]
    parts = [
        f"""{_NOTE}
# Named rules

The rules of `nos_ext.optim.library`: `nos_ext.compile_rule(library.adamw)` compiles one. Where `torch.optim` has the
optimizer, the rule computes the same numbers. Formulas are written with the learning rate as &eta;.

{_table(("rule", "what to use it for"), uses)}
"""
    ]
    for name in library.names():
        entry, rule = library.ENTRIES[name], library.get(name)
        parts.append(
            f"## {name}\n\n{entry.doc}\n\n```python\n{rule.to_text()}```\n\n$$\n{rule.to_latex()}\n$$\n\n"
            f"Use: {entry.use}\n\nSource: {entry.source}.\n"
        )
    return "\n".join(parts)


def api_page(name: str, note: str) -> str:
    """Makes the page of a module's public names. The comments behind the table become the docstrings on the site."""
    module = import_module(name)
    public = [each for each in module.__all__ if not each.startswith("__")]
    rows = [(_code(each), _plain(_about(getattr(module, each)))) for each in public]
    comments = "\n".join(f"<!-- ::: {_place(module, each)} -->" for each in public)
    about, _, more = (inspect.getdoc(module) or "").partition("\n\n")
    text = "\n\n".join([about, *[part for part in more.split("\n\n") if part and not part.lstrip().startswith(">>>")]])
    return f"{note}\n# `{name}`\n\n{text}\n\n{_table(('name', 'what it is'), rows)}\n\n{comments}\n"


def _place(module: ModuleType, name: str) -> str:
    """Says where a name is found by who reads the sources: the module nos_ext.rule hides the function of that name."""
    thing, place = getattr(module, name), f"{module.__name__}.{name}"
    return place if inspect.ismodule(thing) or place not in sys.modules else f"{thing.__module__}.{name}"


def _about(thing: object) -> str:
    """Returns the first paragraph of what a thing says of itself."""
    said = re.sub(r"^\w+\(.*\) -> .*\n\n", "", inspect.getdoc(thing) or "")  # pybind11 begins with the signature
    return " ".join(said.partition("\n\n")[0].split())


def pages() -> dict[str, str]:
    """Makes every page. The keys are file names."""
    tables = {"ops.md": ops_page(), "operands.md": operands_page(), "rules.md": rules_page()}
    return tables | {f"{name.replace('.', '_')}.md": api_page(name, _NOTE) for name in _MODULES}


def stale(made: Mapping[str, str]) -> list[str]:
    """Lists those of the pages that are missing or differ from what the tables say."""
    return [name for name, text in made.items() if not _same(FOLDER / name, text)]


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def main(arguments: Sequence[str], made: Mapping[str, str], program: str) -> int:
    """Writes pages or, with --check, tells which are old; returns the exit status."""
    if list(arguments) not in ([], ["--check"]):
        print(f"usage: python -m {program} [--check]", file=sys.stderr)
        return 2
    if arguments:
        names = stale(made)
        for name in names:
            print(f"{FOLDER / name} is out of date; run python -m {program}", file=sys.stderr)
        return 1 if names else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], pages(), "nos_ext.docgen"))
