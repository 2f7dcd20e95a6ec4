"""Owns the printing of rules as stand-alone PyTorch optimizers: one source file that imports math and torch only.

The file has the rule as a function `update`, written as in the rule's own text, and an optimizer class around it. Ops
whose torch expression is more than one call come from the op table as small functions in the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .definition import RESERVED, Rule
from .errors import RuleError
from .expr import Expr
from .format import ATOM, Layout, Text, node_text, number_text, to_text
from .table import OPS, RANDOM

_PLAIN: Final = frozenset(("add", "sub", "mul", "div", "neg"))  # Python's operators on tensors mean the same
_LIMIT: Final = 14  # operations in one line; torch's names are longer than those of rule text
_TAKEN: Final = frozenset(
    ("lr", "self", "closure", "step", "torch", "math", "update", "random", "_number", "_draw", "_words")
).union([f"_{op}" for op in OPS])

_HEADER: Final = '''"""{class_name}: {summary}

{text}

Stand-alone PyTorch optimizer written by nos_ext.
"""

{imports}'''

_NUMBER: Final = """def _number(x):
    return torch.as_tensor(x, dtype=torch.float64)"""

_UPDATE: Final = '''def update({arguments}):
    """One step of the rule: the new {results}. Scalars are tensors of dimension 0 in float64."""
{body}'''

_CLASS: Final = '''class {class_name}(torch.optim.Optimizer):
    """{summary}

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
{argument_docs}        maximize: ascend instead of descend.
    """

    _STATES = {states}
    _NUMBERS = {numbers}

    def __init__(
        self,
        params,
        lr,
        *,
{signature}        maximize=False,
    ):
        if lr < 0:
            raise ValueError(f"Invalid learning rate: {{lr}}")
{checks}        defaults = {{
            "lr": lr,
{defaults}            "maximize": maximize,
        }}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """Perform one step. `closure`, if given, computes the loss again and returns it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        tensor = -1
        for group in self.param_groups:
            numbers = {{name: _number(group[name]) for name in self._NUMBERS}}
            for p in group["params"]:
                tensor += 1
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError("{class_name} does not support sparse gradients")
                state = self.state[p]
                dtype = torch.promote_types(p.dtype, torch.float32)
                if not state:
                    state["step"] = torch.tensor(0.0)
                    for name in self._STATES:
                        state[name] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)
                state["step"] += 1
                g = -p.grad if group["maximize"] else p.grad
                old = [p, *[state[name] for name in self._STATES]]
                new = update(
                    *[x.to(dtype) for x in (p, g, *old[1:])],
                    **numbers,
                    t=state["step"].double(),
{extra}                )
                for x, value in zip(old, new):
                    x.copy_(value)
        return loss
'''

_DRAWS: Final = '''def _words(p, seed, step, tensor, site):
    """Philox4x32-10: a 32-bit word for every element of p. int64 holds the unsigned arithmetic."""
    mask = 0xFFFFFFFF
    q = torch.arange((p.numel() + 3) // 4, dtype=torch.int64, device=p.device)
    c0, c1 = q & mask, (q >> 32 & 0xFFFFF) | site << 20
    c2, c3 = torch.full_like(q, tensor), torch.full_like(q, step & mask)
    k0, k1 = seed & mask, seed >> 32 & mask

    def multiply(a, b):  # the high and the low word of the product
        x, y = a * (b >> 16), a * (b & 0xFFFF)
        return x + (y >> 16) >> 16, ((x & 0xFFFF) << 16) + y & mask

    for _ in range(10):
        (h0, l0), (h1, l1) = multiply(c0, 0xD2511F53), multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0
        k0, k1 = k0 + 0x9E3779B9 & mask, k1 + 0xBB67AE85 & mask
    return torch.stack([c0, c1, c2, c3], dim=1)


def _draw(kind, p, seed, step, tensor, site):
    """Uniform draws from [0, 1) or normal ones, numbered in the order of p's elements in memory."""
    words = _words(p, seed, step, tensor, site).double()
    if kind == "normal":  # Box-Muller
        radius = torch.sqrt(-2.0 * torch.log(words[:, 0::2] * 2.0**-32 + 2.0**-33))
        angle = words[:, 1::2] * (2.0 * math.pi * 2.0**-32)
        draws = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=2)
    else:
        draws = torch.floor(words / 256) * 2.0**-24
    out = torch.empty_like(p, dtype=torch.float64, memory_format=torch.preserve_format)
    return out.as_strided((p.numel(),), (1,)).copy_(draws.flatten()[: p.numel()]).as_strided(p.shape, out.stride())'''


def to_pytorch(rule: Rule) -> str:
    """Source of a module with the optimizer. RuleError if a name of the rule is one that torch optimizers use."""
    return _Export(rule).source()


def class_name(name: str) -> str:
    """`power_sign` as PowerSign."""
    text = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    return text if text[:1].isalpha() else f"Rule{text}"


class _Export:
    def __init__(self, rule: Rule) -> None:
        for name in (*rule.state_names, *rule.hyperparameters):
            if name in _TAKEN and name != "lr":
                raise RuleError(f"the exported optimizer needs the name '{name}' for itself; rename it in the rule")
        self._rule = rule
        self._layout = Layout(rule.simplified, rule.state_names, RESERVED.union(rule.hyperparameters, _TAKEN), _LIMIT)
        self._helpers: dict[str, str] = {}
        self._kinds = {node.op for node in self._layout.order}

    def source(self) -> str:
        rule = self._rule
        body = self._body()
        random, total = bool(self._kinds & RANDOM), "total" in self._kinds
        options = [
            (name, f"{name}={_number_source(value)}", "hyperparameter of the rule.")
            for name, value in rule.hyperparameters.items()
            if value is not None
        ]
        arguments = ["p", "g", *rule.state_names, "*", *rule.hyperparameters, "t"]
        extra = checks = ""
        if total:
            arguments.append("T")
            options.insert(0, ("total_steps", "total_steps", "length of the training in steps."))
            extra += _line(20, 'T=_number(group["total_steps"]),')
            checks += _line(8, "if not total_steps > 0:")
            checks += _line(12, 'raise ValueError(f"Invalid total_steps: {total_steps}")')
        if random:
            arguments.append("random")
            options.append(("seed", "seed=0", "key of the draws, which depend on it, step, tensor and element only."))
            draw = 'lambda kind, site: _draw(kind, p, group["seed"], int(state["step"]), tensor, site)'
            extra += _line(20, f"random={draw},")
        signature = "".join([_line(8, f"{text},") for _, text, _ in options])
        summary = (rule.doc.splitlines() or [f"The update rule {rule.name}."])[0]
        names = {
            "class_name": class_name(rule.name),
            "summary": summary.replace("\\", "\\\\").replace('"', "'"),
        }
        blocks = [
            _NUMBER,
            *self._helpers.values(),
            *([_DRAWS] if random else []),
            _UPDATE.format(
                arguments=", ".join(arguments), results=" and the new ".join(["p", *rule.state_names]), body=body
            ),
            _CLASS.format(
                **names,
                argument_docs="".join([_line(8, f"{name}: {doc}") for name, _, doc in options]),
                states=_tuple_source(rule.state_names),
                numbers=_tuple_source(tuple(rule.hyperparameters)),
                signature=signature,
                checks=checks,
                defaults="".join([_line(12, f'"{name}": {name},') for name, _, _ in options]),
                extra=extra,
            ),
        ]
        imports = "import math\n\nimport torch" if any("math." in block for block in blocks) else "import torch"
        text = "\n".join([f"    {line}" for line in to_text(rule).splitlines()])
        return "\n\n\n".join([_HEADER.format(**names, text=text, imports=imports), *blocks])

    def _body(self) -> str:
        rule, layout = self._rule, self._layout
        texts: dict[Expr, Text] = {}
        sources: dict[Expr, str] = {}
        for node in layout.order:
            texts[node] = self._node(node, [texts[x] for x in node.args])
            if node in layout.names:
                sources[node] = texts[node][0]
                texts[node] = layout.names[node], ATOM
        lines = [f"    {layout.names[node]} = {sources[node]}" for node in layout.statements]
        slots = ["p", *rule.state_names]
        results = []
        for slot, node in zip(slots, rule.simplified, strict=True):
            text = texts[node][0]
            if node.op == "constant":
                text = f"_number({text})"
            elif node.op in ("param", "state") and text != slot:
                text = f"{text}.clone()"  # the tensor itself is about to be overwritten
            results.append(text)
        lines.append(f"    return {', '.join(results)}" if len(results) > 1 else f"    return ({results[0]},)")
        return "\n".join(lines)

    def _node(self, node: Expr, args: Sequence[Text]) -> Text:
        if node.op == "constant":
            return _number_source(node.value), node_text(node, ())[1]  # type: ignore[arg-type]
        if not node.args:
            return node_text(node, ())
        op = node.op
        wrap = op not in _PLAIN or all(x.op == "constant" for x in node.args)
        texts = [
            (f"_number({text})", ATOM) if wrap and x.op == "constant" else (text, strength)
            for x, (text, strength) in zip(node.args, args, strict=True)
        ]
        if op in _PLAIN:
            return node_text(node, texts, infix=True)
        return f"{self._function(node)}({', '.join(self._operands(node, texts))})", ATOM

    def _operands(self, node: Expr, texts: Sequence[Text]) -> list[str]:
        out = [text for text, _ in texts]
        if node.op in RANDOM:
            kind = "normal" if node.op == "normal" else "uniform"
            out.append(f'random("{kind}", {self._rule.sites[node]})')
        return out

    def _function(self, node: Expr) -> str:
        """The name of torch's function, or of one made here from the op table."""
        spec = OPS[node.op]
        letters = ", ".join("abc"[: spec.arity])
        plain = re.fullmatch(rf"(torch\.\w+)\({letters}\)", spec.torch)
        if plain:
            return plain[1]
        name = f"_{node.op}"
        if name not in self._helpers:
            expression = spec.torch.replace("_F", f"torch.result_type({letters})")
            drawn = re.search(r"_uniform|_normal", expression)
            if drawn:
                letters += f", {drawn[0]}"
            self._helpers[name] = f"def {name}({letters}):\n    return {expression}"
        return name


def _line(indent: int, text: str) -> str:
    return f"{' ' * indent}{text}\n"


def _tuple_source(names: tuple[str, ...]) -> str:
    return "(" + "".join([f'"{name}", ' for name in names]).rstrip(" ").removesuffix("," * (len(names) > 1)) + ")"


def _number_source(value: float) -> str:
    return re.sub(r"\b(e|pi|inf)$", r"math.\1", number_text(value))
