"""Owns the forms in which users hold an update rule: Rule, its formula, and Program, its bytecode, or MatrixProgram.
An optimizer runs a SplitProgram where it has to.

Each can be turned into the others, so they stand in one file. Whatever is made of a rule (text, LaTeX, MathML, PyTorch,
bytecode, reference values) is made of its Definition by a file below this one.
"""

from __future__ import annotations

import functools
import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from .. import _C
from .compile import encode
from .decompile import decompile, per_tensor_states
from .definition import Definition
from .errors import RuleError
from .expr import Expr
from .master import with_master
from .printers.function_text import to_text
from .printers.latex import to_latex
from .printers.mathml import to_mathml
from .printers.pytorch import to_pytorch
from .read import read
from .signs import non_negative_states
from .stages import Stage, cut_at_matrices, cut_at_reductions, options, uses_matrices
from .trace import trace


class _Formula:
    """_Formula has what Rule and Program share: all that can be made of a rule, whichever form it has."""

    __slots__ = ()

    @abstractmethod
    def _definition(self) -> Definition:
        """Returns what the printers read."""

    def to_text(self) -> str:
        """Writes the rule as the source of a function that compiles to the same program.

        Of bytecode that `nos_ext.compile_rule` did not make it writes a source with the same results: dead code goes,
        and random draws are numbered in order.
        """
        return to_text(self._definition())

    def to_latex(self) -> str:
        """Writes the rule as aligned LaTeX equations."""
        return to_latex(self._definition())

    def to_mathml(self, *, block: bool = False) -> str:
        """Writes the rule's equations as MathML for a web page, in a line of text or as a `block` of lines."""
        return to_mathml(self._definition(), block=block)

    def to_pytorch(self, lr: float | None = None) -> str:
        """Writes the rule as a source file with one torch.optim.Optimizer, which imports math and torch only. `lr` is
        the default of its learning rate; without it there is none."""
        return to_pytorch(self._definition(), lr)

    def reference(
        self, params: Sequence[Any], grads: Sequence[Any], state: Any = (), **arguments: Any
    ) -> tuple[list[Any], dict[str, list[Any]]]:
        """Computes one step in NumPy float64 or torch and returns it; nos_ext.rule.reference.reference says more."""
        from .reference import reference  # imported here, as it needs NumPy and `import nos_ext` does not

        return reference(self._definition(), params, grads, state, **arguments)

    def _repr_latex_(self) -> str:
        return f"${self.to_latex()}$"


class Rule(_Formula, Definition):
    """A Rule is an update rule as an expression graph. It never changes.

    ``nos_ext.rule`` makes one from a function, and ``nos_ext.compile_rule`` compiles it.

    Args:
        name: the name of the rule, an identifier.
        state_names: the names of the state tensors, in slot order; at most 8.
        hyperparameters: maps every scalar argument to its default. ``lr`` must be there, with None, and comes first.
        outputs: the new parameter, then the new value of each state, as expressions or numbers.
        doc: a description, which is kept beside the rule and is not part of the compiled program.
        sites: the site number of each draw, for graphs that were read back from a program and are taken as they are.
        per_tensor: the states that are one number per tensor, for such graphs; otherwise the new states tell.

    Raises:
        RuleError: names clash or are not declared, or the number of outputs is wrong.
    """

    __slots__ = ()

    @classmethod
    def of(cls, definition: Definition) -> Rule:
        """Makes a rule of a definition, which has been checked already."""
        if isinstance(definition, Rule):
            return definition
        rule = cls.__new__(cls)
        for field in Definition.__slots__:
            setattr(rule, field, getattr(definition, field))
        return rule

    def _definition(self) -> Definition:
        return self

    def compile(self, *, contract: bool = False) -> Program:
        """Compiles the rule; nos_ext.compile_rule says more."""
        return compile_rule(self, contract=contract)

    def __reduce__(self) -> tuple[Any, ...]:
        if uses_matrices(self):
            return _read_again, (self.to_text(), self.doc)
        return _unpickle, (self.compile().bytecode, self.doc)

    def __repr__(self) -> str:
        arguments = ", ".join(["p", "g", *self.state_names, "*", *self.hyperparameters])
        return f"<nos_ext.Rule {self.name}({arguments})>"


def _unpickle(bytecode: bytes, doc: str) -> Rule:
    return Rule.of(decompile(_C.Program(bytecode), doc=doc))


def _read_again(text: str, doc: str) -> Rule:
    return as_rule(text).replaced(doc=doc)


class Program(_Formula, _C.Program):
    """A Program is an update rule compiled to verified bytecode. It is small, never changes, and can be pickled.

    ``nos_ext.compile_rule`` makes one from a rule, and `from_bytes` reads one back. Two programs are equal when their
    bytecode is.
    """

    __slots__ = ()

    @classmethod
    def from_bytes(cls, bytecode: bytes | bytearray | memoryview) -> Program:
        """Reads `bytecode`. ValueError says why bytes are no program, TypeError that something else was given."""
        if not isinstance(bytecode, bytes | bytearray | memoryview):
            raise TypeError(f"bytecode is a {type(bytecode).__name__}; pass the bytes of Program.bytecode")
        return cls(bytes(bytecode))

    @property
    def fingerprint(self) -> str:
        """This is 32 hex digits, the same for programs that differ in the rule's name at most."""
        return hashlib.blake2b(self.identity(), digest_size=16).hexdigest()

    @property
    def per_tensor_states(self) -> tuple[str, ...]:
        """These are the states that are kept as one number per parameter tensor, in slot order."""
        return per_tensor_states(self)

    @property
    def non_negative_states(self) -> frozenset[str]:
        """These are the states that can be shown never to be negative, such as averages of squares, as long as each
        hyperparameter stays where its default is: between 0 and 1, or on its side of 0."""
        return non_negative_states(self.rule)

    @property
    def rule(self) -> Rule:
        """This is the rule with its expression graph, read back from the bytecode."""
        return Rule.of(decompile(self))

    def _definition(self) -> Definition:
        return decompile(self)

    def __repr__(self) -> str:
        states = f", states {', '.join(self.state_names)}" if self.state_names else ""
        return f"<nos_ext.Program {self.name}: {len(self)} instructions{states}, {self.fingerprint[:8]}>"

    def __eq__(self, other: object) -> bool:
        return self.bytecode == other.bytecode if isinstance(other, _C.Program) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.bytecode)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.bytecode,)


class MatrixProgram(_Formula):
    """A MatrixProgram is a compiled update rule with orthogonalize. It is small, never changes, and can be pickled.

    It is several programs, its stages, with matrix products between them. `nos_ext.apply_rule`, `nos_ext.init_state`
    and `nos_ext.optim.RuleOptimizer` take it. What takes bytecode, as populations and captured steps, does not.
    """

    __slots__ = ("_contract", "_rule", "fingerprint", "results", "stages")

    has_tensor_scalars = True  # a matrix product is of a whole tensor, too
    uses_random = False

    def __init__(self, rule: Rule, *, contract: bool = False) -> None:
        parts = cut_at_matrices(rule)
        self._rule = rule
        self._contract = contract
        self.stages = _compiled(parts, contract)
        self.results = tuple([tuple([(name, options(node)) for name, node in part.results]) for part in parts])
        text = f"{contract}\n{to_text(rule.replaced(name='rule'))}"
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def name(self) -> str:
        return self._rule.name

    @property
    def rule(self) -> Rule:
        """This is the rule with its expression graph."""
        return self._rule

    @property
    def state_names(self) -> tuple[str, ...]:
        return self._rule.state_names

    @property
    def per_tensor_states(self) -> tuple[str, ...]:
        """These are the states that are kept as one number per parameter tensor, in slot order."""
        return self._rule.per_tensor_states

    @property
    def non_negative_states(self) -> frozenset[str]:
        """These are the states that can be shown never to be negative; see `Program.non_negative_states`."""
        return non_negative_states(self._rule)

    @property
    def hyperparameters(self) -> dict[str, float | None]:
        return dict(self._rule.hyperparameters)

    @property
    def uses_total_steps(self) -> bool:
        return any(stage.uses_total_steps for stage in self.stages)

    @property
    def bytecode(self) -> NoReturn:
        raise RuleError(
            f"rule '{self.name}' has orthogonalize, so it is several programs and has no bytecode; keep its text, "
            "which to_text() writes, and run it by nos_ext.apply_rule or nos_ext.optim.RuleOptimizer"
        )

    def disassemble(self) -> str:
        """Lists the bytecode of the stages, with what is orthogonalized after each of them."""
        parts = []
        for stage, results in zip(self.stages, self.results, strict=True):
            parts.append(stage.disassemble())
            parts += [f"orthogonalize({name}{how.arguments()})\n" for name, how in results]
        return "".join(parts)

    def _definition(self) -> Definition:
        return self._rule

    def __repr__(self) -> str:
        states = f", states {', '.join(self.state_names)}" if self.state_names else ""
        return f"<nos_ext.MatrixProgram {self.name}: {len(self.stages)} stages{states}, {self.fingerprint[:8]}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MatrixProgram):
            return NotImplemented
        return (self.name, self.fingerprint) == (other.name, other.fingerprint)

    def __hash__(self) -> int:
        return hash((self.name, self.fingerprint))

    def __reduce__(self) -> tuple[Any, ...]:
        return _compile_again, (self.to_text(), self._contract)


def _compile_again(text: str, contract: bool) -> MatrixProgram:
    return MatrixProgram(as_rule(text), contract=contract)


class SplitProgram:
    """A SplitProgram is a rule with reductions for tensors of which every process holds a part. It never changes.

    Its stages are programs: all but the last compute what the part that is here adds to the reductions, which has to
    be joined with what the other parts add before the next stage. `results` has, for each stage, the states that it
    writes for that, and the reductions that they have to become. A Program is split by `split`.
    """

    __slots__ = ("program", "results", "stages")

    def __init__(self, program: Program) -> None:
        parts = cut_at_reductions(program.rule)
        self.program = program
        self.stages = _compiled(parts, contract=False)  # in `program` it was decided already
        self.results = tuple([part.results for part in parts])

    @property
    def state_names(self) -> tuple[str, ...]:
        """These are the states of the rule. The last stage has them, and then those of all `results`."""
        return self.program.state_names

    @property
    def hyperparameters(self) -> dict[str, float | None]:
        return self.program.hyperparameters


@functools.lru_cache(maxsize=64)
def split(program: Program) -> SplitProgram:
    """Cuts a program at its reductions. RuleError says what in it cannot be cut."""
    return SplitProgram(program)


@functools.lru_cache(maxsize=64)
def master_form(program: Program | MatrixProgram) -> Program | MatrixProgram:
    """Returns the rule with the parameter in a state, as `with_master` makes it. RuleError says why there is none."""
    definition = with_master(program.rule)
    if isinstance(program, MatrixProgram):
        return MatrixProgram(Rule.of(definition), contract=program._contract)
    return Program(encode(definition))  # in `program` it was decided whether to contract


def _compiled(parts: Iterable[Stage], contract: bool) -> tuple[Program, ...]:
    return tuple([Program(encode(part.definition, contract=contract)) for part in parts])


def compile_rule(
    source: str | Callable[..., Any] | Rule | Expr, *, name: str | None = None, contract: bool = False
) -> Program:
    """Compiles an update rule.

    Args:
        source: the text of a rule (a function, or one expression: the update u of ``p - lr*u`` over the paper's
            operands), a function, a `Rule`, or an `Expr` with the meaning of such an expression.
        name: the name of the program. By default it is that of the function, and "rule" for an expression.
        contract: whether products that are added to something become fused multiply-adds. This is faster, but the
            bits of the results change, as there is one rounding instead of two.

    Returns:
        The verified program. Of a rule with orthogonalize it is a `MatrixProgram`.

    Raises:
        RuleError: the source is not a rule. For text the error has line, column and caret. Text is never evaluated.
    """
    with _C.FloatEnvironment():  # constants are read and folded in here
        definition = read(source, name)
        if uses_matrices(definition):
            # For type checkers every rule gives a Program, as nearly all do; else callers had to tell the two apart.
            return MatrixProgram(Rule.of(definition), contract=contract)  # type: ignore[return-value]
        return Program(encode(definition, contract=contract))


def as_rule(source: str | Callable[..., Any] | Rule | Expr, name: str | None = None) -> Rule:
    """Returns the Rule that a source means, of any kind that compile_rule takes."""
    return Rule.of(read(source, name))


def rule(function: Callable[..., Any]) -> Rule:
    """Makes an update rule from a function; use it as a decorator.

    The function takes ``p`` (the parameter), ``g`` (the gradient), then any number of state tensors (at most 8, zeros
    at the start); keyword-only, ``lr`` and the hyperparameters with numbers as defaults. It returns the new p, then
    the new states in order. A state whose new value is one number per tensor, such as ``norm(g)``, is kept as one
    number for each parameter. The names of `nos_ext.ops` are there without an import and win over globals of the same
    name. It is called once, with expressions; Python's ``if`` and built-in functions cannot look at them.

    Raises:
        RuleError: the signature or the returned values are not those of a rule, or the function fails.
    """
    return Rule.of(trace(function))
