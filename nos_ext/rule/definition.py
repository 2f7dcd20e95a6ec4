"""Owns Definition: what an update rule is, a named graph with its states and hyperparameters, and its checks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

from .. import _C
from .._numbers import shown
from .errors import RuleError
from .expr import Expr, Number, as_expr, draws, postorder
from .levels import check_levels, per_tensor_states
from .simplify import simplify
from .table import REDUCTIONS

SomeDefinition = TypeVar("SomeDefinition", bound="Definition")

# limits of csrc/program/bytecode.h
MAX_STATES: Final = 8
MAX_HYPERS: Final = 64
_SHOWN: Final = 40  # characters of a name in a message

RESERVED: Final = frozenset(_C.name_table()["language"])  # names that mean something in every rule


def check_name(name: str, what: str, taken: Sequence[str] | Mapping[str, object] = ()) -> None:
    """Raises RuleError unless `name` can name `what` ("a state", "a hyperparameter", "a rule" or "a value").

    The compiled module says which names can (csrc/program/names.cc), so that bytecode has to keep to it, too.
    """
    if not isinstance(name, str):
        raise RuleError(f"{shown(name)} cannot name {what}; pass text")
    problem = _C.name_problem(what.removeprefix("a "), name.encode(errors="replace"))
    if problem is not None:
        beginning = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        raise RuleError(f"{beginning!r} {problem}")
    if name in taken:
        raise RuleError(f"the name '{name}' is used twice")


def positional_problem(names: Sequence[str]) -> tuple[str, int] | None:
    """Says what is wrong with the first two arguments of a rule and which of them it is; None means nothing is."""
    for index, wanted in enumerate(("p", "g")):
        if index >= len(names) or names[index] != wanted:
            return "the first two arguments of a rule are p (the parameter) and g (the gradient), by these names", index
    return None


def check_default(name: str, value: Number | None) -> float | None:
    """Returns the default of a hyperparameter as a float, and None for lr. RuleError tells of anything else."""
    if name == "lr":
        if value is not None:
            raise RuleError("lr has a default; leave it out, the learning rate is given at every call")
        return None
    if value is None:
        raise RuleError(f"hyperparameter '{name}' has no default; only lr goes without: write {name}=0.9 or the like")
    default = _named(f"the default of hyperparameter '{name}'", value)
    if default.op != "constant":
        raise RuleError(f"the default of hyperparameter '{name}' is not a number")
    return float(default.value)  # type: ignore[arg-type]


def _named(what: str, value: Expr | Number) -> Expr:
    """Returns `value` as an expression. RuleError says what is none."""
    try:
        return as_expr(value)
    except RuleError as error:
        raise RuleError(f"{what}: {error.message}") from None


def wrong_count(state_names: Sequence[str], found: int) -> str:
    """Says what is wrong with a rule that returns `found` values."""
    wanted = 1 + len(state_names)
    what = "the new p" if not state_names else f"the new p, then the new {', '.join(state_names)}"
    return f"the rule returns {found} value{'s' * (found != 1)}; it must return {wanted}: {what}"


class Definition:
    """A Definition says what an update rule is: an expression graph, with names that have been checked.

    It never changes. The readers of text and of functions make it, the compiler and the printers take it. Users hold
    its subclass `Rule` (program.py), which has methods for all that can be made of a rule.

    The arguments are those of `Rule`. RuleError names what is wrong with them.
    """

    __slots__ = (
        "_doc", "_hyperparameters", "_name", "_outputs", "_per_tensor", "_pinned", "_simplified", "_sites",
        "_state_names",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        state_names: Sequence[str],
        hyperparameters: Mapping[str, Number | None],
        outputs: Sequence[Expr | Number],
        *,
        doc: str = "",
        sites: Mapping[Expr, int] | None = None,
        per_tensor: Collection[str] = (),
    ) -> None:
        check_name(name, "a rule")
        for argument, given, kind, wanted in (
            ("state_names", state_names, list | tuple, "a list of names"),
            ("hyperparameters", hyperparameters, Mapping, "a dict of defaults"),
            ("outputs", outputs, list | tuple, "a list of the new p and the new states"),
        ):
            if not isinstance(given, kind):
                raise RuleError(f"{argument} is a {type(given).__name__}; pass {wanted}")
        if len(state_names) > MAX_STATES:
            raise RuleError(f"the rule has {len(state_names)} states; the limit is {MAX_STATES}")
        if len(hyperparameters) > MAX_HYPERS:
            raise RuleError(f"the rule has {len(hyperparameters)} hyperparameters; the limit is {MAX_HYPERS}")
        if "lr" not in hyperparameters:
            raise RuleError("the rule has no lr; declare lr as its first keyword-only argument, without a default")
        taken: dict[str, object] = {}
        for state_name in state_names:
            check_name(state_name, "a state", taken)
            taken[state_name] = None
        defaults: dict[str, float | None] = {"lr": None}
        for hyper_name, value in hyperparameters.items():
            check_name(hyper_name, "a hyperparameter", taken)
            defaults[hyper_name] = check_default(hyper_name, value)
        if len(outputs) != 1 + len(state_names):
            raise RuleError(wrong_count(state_names, len(outputs)))
        self._name = name
        self._state_names = tuple(state_names)
        self._hyperparameters = MappingProxyType(defaults)
        named = zip(("p", *state_names), outputs, strict=True)
        self._outputs = tuple([_named(f"the new {state_name}", x) for state_name, x in named])
        self._doc = doc
        order = postorder(self._outputs)
        for node in order:
            if (node.op == "state" and node.value not in taken) or (node.op == "hyper" and node.value not in defaults):
                raise RuleError(f"the graph reads the {node.op} '{node.value}', which the rule does not declare")
        self._sites = self._pinned = sites
        if sites is None:
            self._simplified = simplify(self._outputs, order)
            per_tensor = self._decide_levels(order)
        else:
            self._simplified = self._outputs
        self._per_tensor = tuple([x for x in self._state_names if x in per_tensor])

    def _decide_levels(self, order: Sequence[Expr]) -> Collection[str]:
        """Finds the states that are one number per tensor. `order` is the postorder of the outputs as given."""
        if REDUCTIONS.isdisjoint([node.op for node in order]):
            check_levels(self._outputs, order, ())
            return ()
        simple = postorder(self._simplified)
        per_tensor = per_tensor_states(self._simplified, simple, self._state_names)
        check_levels(self._outputs, order, per_tensor)
        if per_tensor:
            self._simplified = simplify(self._outputs, order, per_tensor)
            simple = postorder(self._simplified)
        check_levels(self._simplified, simple, per_tensor)  # norm(where(1, 2, g)) is norm(2)
        return per_tensor

    @property
    def name(self) -> str:
        return self._name

    @property
    def state_names(self) -> tuple[str, ...]:
        return self._state_names

    @property
    def per_tensor_states(self) -> tuple[str, ...]:
        """These are the states that are kept as one number per parameter tensor, in slot order."""
        return self._per_tensor

    @property
    def hyperparameters(self) -> Mapping[str, float | None]:
        """This maps each name to its default. lr comes first, with None."""
        return self._hyperparameters

    @property
    def doc(self) -> str:
        """This describes the rule to people."""
        return self._doc

    @property
    def outputs(self) -> tuple[Expr, ...]:
        """These are the new p and the new states, as they were given."""
        return self._outputs

    @property
    def simplified(self) -> tuple[Expr, ...]:
        """These are `outputs` after the rewrites that keep every bit (simplify.py): what is compiled and evaluated."""
        return self._simplified

    @property
    def sites(self) -> Mapping[Expr, int]:
        """This maps each draw in `simplified` to its site number, which is part of the key of its random numbers."""
        if self._sites is None:
            self._sites = draws(self._simplified)
        return self._sites

    def replaced(self: SomeDefinition, *, name: str | None = None, doc: str | None = None) -> SomeDefinition:
        """Returns the same rule under another name or with another description."""
        return type(self)(
            self._name if name is None else name,
            self._state_names,
            self._hyperparameters,
            self._outputs,
            doc=self._doc if doc is None else doc,
            sites=self._pinned,
            per_tensor=self._per_tensor,
        )
