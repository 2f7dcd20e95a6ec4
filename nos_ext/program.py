"""Owns Program: a compiled rule. The compiled module verifies it; what is Python here reads it back as text or code."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import _C

if TYPE_CHECKING:
    from .rule.definition import Rule


class Program(_C.Program):
    """An update rule compiled to verified bytecode: immutable, comparable, picklable, small.

    ``nos_ext.compile_rule`` makes one from a rule, `from_bytes` reads one back. Two programs are equal when their
    bytecode is.
    """

    __slots__ = ()

    @classmethod
    def from_bytes(cls, bytecode: bytes | bytearray | memoryview) -> Program:
        """Read `bytecode`. ValueError says what is wrong with bytes that are no program, TypeError if they are none."""
        if not isinstance(bytecode, bytes | bytearray | memoryview):
            raise TypeError(f"bytecode is a {type(bytecode).__name__}; pass the bytes of Program.bytecode")
        return cls(bytes(bytecode))

    @property
    def fingerprint(self) -> str:
        """32 hex digits, the same for programs that differ in the rule's name at most."""
        return hashlib.blake2b(self.identity(), digest_size=16).hexdigest()

    @property
    def rule(self) -> Rule:
        """The expression graph, read back from the bytecode."""
        from .rule.decompile import decompile

        return decompile(self)

    def to_text(self) -> str:
        """The rule as the source of a function; compiling it gives the same bytecode.

        For bytecode that `nos_ext.compile_rule` did not make it gives a program with the same results: dead code goes,
        and random draws are numbered in order.
        """
        return self.rule.to_text()

    def to_latex(self) -> str:
        """The rule as aligned LaTeX equations."""
        return self.rule.to_latex()

    def to_pytorch(self) -> str:
        """The rule as a stand-alone source file with one torch.optim.Optimizer; it imports math and torch only."""
        return self.rule.to_pytorch()

    def reference(
        self, params: Sequence[Any], grads: Sequence[Any], state: Any = (), **arguments: Any
    ) -> tuple[list[Any], dict[str, list[Any]]]:
        """One step in NumPy float64 or torch, returned instead of written; see nos_ext.rule.reference.reference."""
        return self.rule.reference(params, grads, state, **arguments)

    def _repr_latex_(self) -> str:
        return f"${self.to_latex()}$"

    def __repr__(self) -> str:
        states = f", states {', '.join(self.state_names)}" if self.state_names else ""
        return f"<nos_ext.Program {self.name}: {len(self)} instructions{states}, {self.fingerprint[:8]}>"

    def __eq__(self, other: object) -> bool:
        return self.bytecode == other.bytecode if isinstance(other, _C.Program) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.bytecode)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.bytecode,)
