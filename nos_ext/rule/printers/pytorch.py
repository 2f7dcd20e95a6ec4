"""Owns to_pytorch, which writes a rule as a stand-alone PyTorch optimizer: one file that imports math and torch only.

The file has the rule as a function `update`, written as in the rule's own text, and an optimizer class around it. Ops
whose torch expression is more than one call come from the op table as small functions in the file.
"""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from ..definition import RESERVED, Definition
from ..errors import RuleError
from ..expr import Expr, postorder
from ..table import DRAWS, GLOBAL, MATRIX, OPS, RANDOM, REDUCTIONS
from . import pytorch_templates as templates
from .formatter import Form, Written
from .function_text import to_text
from .layout import Layout
from .text import TextFormatter, number_text

_PLAIN: Final = frozenset(("add", "sub", "mul", "div", "neg"))  # for these, Python's operators on tensors mean the same
_LIMIT: Final = 14  # operations in one line; fewer than in rule text, as torch's names are longer
# Names that the file itself uses, so that a rule's must not hide them, and keys that torch keeps in states and groups.
_TAKEN: Final = frozenset(
    (
        "lr",
        "self",
        "closure",
        "step",
        "torch",
        "math",
        "update",
        "random",
        "_number",
        "_draw",
        "_words",
        "_together",
        "ValueError",
    )
).union(("initial_lr", "param_names", "differentiable"), [f"_{op}" for op in OPS])


def to_pytorch(rule: Definition, lr: float | None = None) -> str:
    """Writes the source of a module with the optimizer; `lr` is the default of its learning rate, or None for none.

    RuleError names a name of the rule that the optimizer needs, or what the file cannot have."""
    if lr is not None and not 0 <= lr < math.inf:
        raise ValueError(f"to_pytorch: lr is {lr}; give a finite number that is not negative")
    if any(node.op in MATRIX for node in postorder(rule.simplified)):
        raise RuleError(
            f"rule '{rule.name}' has orthogonalize, which to_pytorch() does not write; use "
            "nos_ext.optim.RuleOptimizer(params, rule, lr)"
        )
    return _Export(rule).source(lr)


def class_name(name: str) -> str:
    """Makes PowerSign of `power_sign`, and TrueRule of `true`, for a class must not hide what Python has."""
    text = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    if not text[:1].isalpha():
        text = f"Rule{text}"
    return f"{text}Rule" if keyword.iskeyword(text) or hasattr(builtins, text) else text


class _Export:
    """An _Export puts the source of one optimizer together."""

    def __init__(self, rule: Definition) -> None:
        for name in (*rule.state_names, *rule.hyperparameters):
            if name in _TAKEN and name != "lr":
                raise RuleError(f"the exported optimizer needs the name '{name}' for itself; rename it in the rule")
            if name.startswith("__"):
                raise RuleError(f"Python gives '{name}' a meaning of its own inside a class; rename it in the rule")
        self._rule = rule
        self._layout = Layout(rule.simplified, rule.state_names, RESERVED.union(rule.hyperparameters, _TAKEN), _LIMIT)
        self._formatter = TorchFormatter(rule.sites)
        self._kinds = {node.op for node in self._layout.order}

    def source(self, lr: float | None) -> str:
        rule = self._rule
        body = self._body()
        random, total = bool(self._kinds & RANDOM), "total" in self._kinds
        options = [
            (name, f"{name}={_number_source(value)}", "hyperparameter of the rule.")
            for name, value in rule.hyperparameters.items()
            if value is not None
        ]
        arguments = ["p", "g", *rule.state_names, "*", *rule.hyperparameters, "t"]
        extra = checks = saved_checks = ""
        if total:
            arguments.append("T")
            options.insert(0, ("total_steps", "total_steps", "length of the training in steps."))
            extra += _line(20, 'T=_number(group["total_steps"]),')
            checks += _line(8, "if not total_steps > 0:")
            checks += _line(12, 'raise ValueError(f"Invalid total_steps: {total_steps}")')
            required = 'number(old["total_steps"]) > 0, "total_steps", old["total_steps"], "a positive number"'
            saved_checks += _line(12, f"require({required})")
        if random:
            arguments.append("random")
            options.append(("seed", "seed=0", "key of the draws, which depend on it, step, tensor and element only."))
            draw = '_random(p, group["seed"], int(state["step"]), tensor)'
            extra += _line(20, f"random={draw},")
            required = 'hasattr(old["seed"], "__index__"), "seed", old["seed"], "an integer"'
            saved_checks += _line(12, f"require({required})")
        signature = "".join([_line(8, f"{text},") for _, text, _ in options])
        names = {
            "class_name": class_name(rule.name),
            "summary": _doc_line(rule.doc) or f"The update rule {rule.name}.",
        }
        blocks = [
            templates.NUMBER,
            *self._formatter.helpers.values(),
            *([templates.DRAWS] if random else []),
            *([templates.TOGETHER] if self._kinds & GLOBAL else []),
            templates.UPDATE.format(
                arguments=", ".join(arguments), results=" and the new ".join(["p", *rule.state_names]), body=body
            ),
            templates.CLASS.format(
                **names,
                argument_docs="".join([_line(8, f"{name}: {doc}") for name, _, doc in options]),
                states=_tuple_source(rule.state_names),
                numbers=_tuple_source(tuple(rule.hyperparameters)),
                rate="" if lr is None else f"={_number_source(lr)}",
                signature=signature,
                checks=checks,
                defaults="".join([_line(12, f'"{name}": {name},') for name, _, _ in options]),
                saved_checks=saved_checks,
                extra=extra,
                **self._parts(),
            ),
        ]
        text = "\n".join([f"    {line}" for line in to_text(rule).splitlines()])
        return "\n\n\n".join([templates.HEADER.format(**names, text=text), *blocks])

    def _parts(self) -> dict[str, str]:
        """Returns the parts of the class that depend on reductions."""
        together, numbers = bool(self._kinds & GLOBAL), self._rule.per_tensor_states
        return {
            "per_tensor": templates.PER_TENSOR.format(names=_tuple_source(numbers)) if numbers else "",
            "shape": templates.SHAPE if numbers else "p.shape",
            "empty_number": templates.EMPTY_NUMBER if numbers else "",
            "zero_numbers": templates.ZERO_NUMBERS if numbers else "",
            "states_by_name": templates.STATES if numbers else "",
            "tensors": templates.TENSORS_AND_NUMBERS if numbers else templates.TENSORS,
            "skipped": "p.grad is None or p.numel() == 0" if self._kinds & REDUCTIONS else "p.grad is None",
            "start": templates.START_ALL if together else "",
            "finish": templates.FINISH_ALL if together else templates.FINISH,
        }

    def _body(self) -> str:
        rule, layout = self._rule, self._layout
        texts, sources = self._formatter.write(layout.order, layout.names)
        lines = [f"    {layout.names[node]} = {sources[node]}" for node in layout.statements]
        slots = ["p", *rule.state_names]
        results = []
        for slot, node in zip(slots, rule.simplified, strict=True):
            text = texts[node]
            if node.op == "constant":
                text = f"_number({text})"
            elif node.op in ("param", "state") and text != slot:
                text = f"{text}.clone()"  # the tensor itself is about to be overwritten
            results.append(text)
        lines.append(f"    return {', '.join(results)}" if len(results) > 1 else f"    return ({results[0]},)")
        return "\n".join(lines)


class TorchFormatter(TextFormatter):
    """A TorchFormatter writes rule text with torch's functions in the place of the rule language's.

    Functions that torch does not have are made here, and `helpers` has their source.
    """

    def __init__(self, sites: Mapping[Expr, int]) -> None:
        self._sites = sites
        self.helpers: dict[str, str] = {}

    def number(self, value: float) -> str:
        return _number_source(value)

    def node(self, node: Expr, operands: Sequence[Written]) -> Written:
        wrap = node.op not in _PLAIN or all(x.op == "constant" for x in node.args)
        texts = list(operands)
        for i, x in enumerate(node.args):
            # torch computes number / tensor as number * (1 / tensor), which rounds twice and is inf for a subnormal
            # tensor.
            if x.op == "constant" and (wrap or (node.op == "div" and i == 0)):
                texts[i] = Written(f"_number({operands[i].text})")
        return super().node(node, texts)

    def form(self, node: Expr, operands: Sequence[Written]) -> Form:
        infix = self.infix(node) if node.op in _PLAIN else None
        return self.call(node) if infix is None else infix

    def call(self, node: Expr) -> Form:
        arguments = [f"#{k}" for k in range(len(node.args))]
        if node.op in RANDOM:
            arguments.append(f'random("{DRAWS[node.op]}", {self._sites[node]})')
        if node.op in GLOBAL:  # the update stops here until those of all other parameters have come to this place
            return Form(f"(yield {', '.join([self._function(node), *arguments])})")
        return Form(f"{self._function(node)}({', '.join(arguments)})")

    def _function(self, node: Expr) -> str:
        """Names torch's function, or one that is made here from the op table."""
        spec = OPS[node.op]
        letters = ", ".join("abc"[: spec.arity])
        plain = re.fullmatch(rf"(torch\.\w+)\({letters}\)", spec.torch)
        if plain and node.op not in REDUCTIONS:
            return plain[1]
        name = f"_{node.op}"
        if name not in self.helpers:
            expression = spec.torch.replace("_F", f"torch.result_type({letters})")
            drawn = re.search(r"_uniform|_normal", expression)
            if drawn:
                letters += f", {drawn[0]}"
            if node.op in REDUCTIONS:
                expression = re.sub(r"\b[ab]\b", r"\g<0>.double()", expression)
            self.helpers[name] = f"def {name}({letters}):\n    return {expression}"
        return name


def _doc_line(doc: str) -> str:
    """Takes the first line of a description. It is foreign text, and must not become code inside of a docstring."""
    line = next((line for line in doc.splitlines() if line.strip()), "").strip()
    line = "".join(c if c.isprintable() else " " for c in line)  # removes other separators of lines, and surrogates
    return line.replace("\\", "\\\\").replace('"', "'")


def _line(indent: int, text: str) -> str:
    return f"{' ' * indent}{text}\n"


def _tuple_source(names: tuple[str, ...]) -> str:
    return "(" + "".join([f'"{name}", ' for name in names]).rstrip(" ").removesuffix("," * (len(names) > 1)) + ")"


def _number_source(value: float) -> str:
    return re.sub(r"\b(e|pi|inf)$", r"math.\1", number_text(value))
