"""Owns encode, which turns a definition into the bytes of a program. csrc/program/bytecode.h draws the encoding."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

from .definition import Definition
from .errors import RuleError
from .expr import ELEMENT, Expr, draws, postorder
from .simplify import contract as contracted
from .table import OPS, RANDOM, REDUCTIONS

ELEMENTWISE: Final = 1  # versions
WITH_REDUCTIONS: Final = 2
SCALAR_BIT: Final = 0x8000
# limits of csrc/program/bytecode.h
MAX_CONSTANTS: Final = 1024
MAX_SCALAR_CODE: Final = 1024
MAX_CODE: Final = 4096
MAX_SITES: Final = 4095

_OPCODES: Final = {op.name: op.code for op in OPS.values()}


class _Encoder:
    """An _Encoder numbers the nodes of a simplified graph and lists its instructions."""

    def __init__(self, rule: Definition) -> None:
        self.constants: list[float] = []
        self.code: list[Expr] = []
        self.scalar_code: list[Expr] = []
        self._states = {name: 2 + i for i, name in enumerate(rule.state_names)}
        self._per_tensor = rule.per_tensor_states
        self._hypers = {name: SCALAR_BIT | (2 + i) for i, name in enumerate(rule.hyperparameters)}
        self.operands: dict[Expr, int] = {}

    def collect(self, order: Sequence[Expr]) -> None:
        operands, code, scalar_code, constants = self.operands, self.code, self.scalar_code, self.constants
        next_value = 2 + len(self._states)
        numbers: list[Expr] = []
        states: dict[str, Expr] = {}
        tensor_code: list[Expr] = []
        for node in order:
            op = node.op
            if node.args:
                if node.scalar:
                    scalar_code.append(node)
                    continue
                code.append(node)
                if node.level == ELEMENT:
                    operands[node] = next_value
                    next_value += 1
                else:
                    tensor_code.append(node)
            elif op == "hyper":
                operands[node] = self._hypers[node.value]  # type: ignore[index]
            elif op == "constant":
                numbers.append(node)
                constants.append(node.value)  # type: ignore[arg-type]
            elif op == "state":
                states[str(node.value)] = node
                operands[node] = self._states[node.value]  # type: ignore[index]
            else:
                operands[node] = _FIXED[op]
        # Scalars are numbered after the hyperparameters: the constants first, then the instructions; then, for each
        # tensor, the states that are one number, and the instructions that give one.
        next_scalar = SCALAR_BIT | (2 + len(self._hypers))
        for known in [*numbers, *scalar_code, *[states.get(name) for name in self._per_tensor], *tensor_code]:
            if known is not None:
                operands[known] = next_scalar
            next_scalar += 1

    def check_limits(self) -> None:
        for found, limit, what in (
            (len(self.code), MAX_CODE, "instructions"),
            (len(self.scalar_code), MAX_SCALAR_CODE, "scalar instructions"),
            (len(self.constants), MAX_CONSTANTS, "different constants"),
            (sum(node.op in RANDOM for node in self.code), MAX_SITES, "random draws"),
        ):
            if found > limit:
                raise RuleError(f"the rule has {found} {what}; the limit is {limit}")

    def instructions(self, nodes: Sequence[Expr], sites: Mapping[Expr, int]) -> list[int]:
        operands = self.operands
        out: list[int] = []
        for node in nodes:
            op = node.op
            row = [_OPCODES[op], 0, 0, 0]
            for k, x in enumerate(node.args, 1):
                row[k] = operands[x]
            if op in RANDOM:
                row[3] = sites[node]
            out += row
        return out


_FIXED: Final = {"param": 0, "grad": 1, "step": SCALAR_BIT, "total": SCALAR_BIT | 1}


def encode(rule: Definition, *, contract: bool = False) -> bytes:
    """Encodes `rule`, with fused multiply-adds if `contract`. RuleError says which limit of programs it is over."""
    outputs = contracted(rule.simplified) if contract else rule.simplified
    encoder = _Encoder(rule)
    encoder.collect(postorder(outputs))
    encoder.check_limits()
    numbers = bool(rule.per_tensor_states) or not REDUCTIONS.isdisjoint([node.op for node in encoder.code])
    hypers = rule.hyperparameters
    name = rule.name.encode()
    parts = [
        b"NOSP",
        struct.pack(
            "<7H",
            WITH_REDUCTIONS if numbers else ELEMENTWISE,
            len(rule.state_names),
            len(hypers),
            len(encoder.constants),
            len(encoder.scalar_code),
            len(encoder.code),
            len(name),
        ),
        name,
    ]
    for state_name in rule.state_names:
        raw = state_name.encode()
        parts += [struct.pack("<H", len(raw)), raw]
        if numbers:
            parts.append(bytes([state_name in rule.per_tensor_states]))
    for hyper_name, default in hypers.items():
        raw = hyper_name.encode()
        parts += [
            struct.pack("<H", len(raw)),
            raw,
            struct.pack("<Bd", default is not None, 0.0 if default is None else default),
        ]
    parts.append(struct.pack(f"<{len(encoder.constants)}d", *encoder.constants))
    random = [node for node in encoder.code if node.op in RANDOM]
    sites = [rule.sites[draw] for draw in draws(rule.simplified)] if random else []  # contraction keeps their order
    words = encoder.instructions(encoder.scalar_code, {})
    words += encoder.instructions(encoder.code, dict(zip(random, sites, strict=True)))
    words += [encoder.operands[x] for x in outputs]
    parts.append(struct.pack(f"<{len(words)}H", *words))
    return b"".join(parts)
