"""Owns the reading of rule text: which signature and which statements it may have, and what they define."""

from __future__ import annotations

import ast
import inspect
from typing import Final, NoReturn

from .definition import Definition, check_default, check_name, positional_problem, wrong_count
from .errors import RuleError
from .expr import GRAD, PARAM, Expr, hyper, state
from .levels import LevelError
from .shorthand import parse_update, update_as_written
from .source import Source
from .syntax import Evaluator, Value
from .vocabulary import CONSTANTS

_SHAPE = "def name(p, g, state, ..., *, lr, hyper=0.9, ...)"
_REFUSED: Final[dict[type[ast.AST], str]] = {
    ast.For: "loops are not part of the rule language; a rule works on every element alike",
    ast.If: "if is not part of the rule language; use where(condition, a, b)",
    ast.Import: "imports are not part of the rule language; its names are there without",
    ast.FunctionDef: "a rule has one function",
    ast.AsyncFunctionDef: "async is not part of the rule language",
    ast.ClassDef: "classes are not part of the rule language",
    ast.AnnAssign: "annotations are not part of the rule language; leave them out",
    ast.Pass: "pass does nothing; leave it out",
    ast.Expr: "this line has no effect; assign its value to a name or leave it out",
}
_NUMBERS: Final[dict[str, Value]] = {k: v for k, v in CONSTANTS.items() if isinstance(v, float)}
for _like, _as in (
    (ast.While, ast.For),
    (ast.AsyncFor, ast.For),
    (ast.ImportFrom, ast.Import),
):
    _REFUSED[_like] = _REFUSED[_as]


def parse(text: str, *, name: str | None = None) -> Definition:
    """Reads rule text: a function, or one expression, which is the update u of ``p - lr*u`` (shorthand.py).

    Args:
        text: the source of the rule, at most 256 KiB. It is parsed and never executed.
        name: the name of the rule. By default it is that of the function, and "rule" for an expression.

    Raises:
        RuleError: the text is not a rule; the error has the line, the column and the line of the text.
    """
    if name is not None:
        check_name(name, "a rule")
    source = Source(text)
    update = _update(source)
    if update is not None:
        return parse_update(source, update, name)
    return _Function(source, _definition(source)).rule(name)


def parse_as_written(text: str) -> Expr | Definition:
    """Reads rule text for a printer: an update keeps the names of its operands, a function is read as by `parse`.

    Raises:
        RuleError: the text is not a rule; the error has the line, the column and the line of the text.
    """
    source = Source(text)
    update = _update(source)
    if update is not None:
        return update_as_written(source, update)
    return _Function(source, _definition(source)).rule(None)


def _update(source: Source) -> ast.expr | None:
    """Finds the expression that the whole text is; returns None for other texts."""
    match source.statements:
        case [ast.Expr(value=update)]:
            return update
    return None


def _definition(source: Source) -> ast.FunctionDef:
    """Finds the one `def` that the whole text must be."""
    if not source.statements:
        raise RuleError(f"the text of the rule is empty; write an expression or {_SHAPE}")
    function = next((s for s in source.statements if isinstance(s, ast.FunctionDef)), None)
    for statement in source.statements:
        if statement is not function:
            if isinstance(statement, ast.Assign | ast.AugAssign | ast.Return | ast.Expr):
                message = f"this stands outside of the rule's function; a rule is one expression or {_SHAPE}"
                raise source.error(message, statement)
            _refuse(source, statement)
    assert function is not None
    return function


def _refuse(source: Source, node: ast.AST) -> NoReturn:
    what = f"this statement ({type(node).__name__}) is not part of the rule language"
    raise source.error(_REFUSED.get(type(node), what), node)


class _Function:
    """A _Function reads one `def`: its signature, then its statements in order."""

    def __init__(self, source: Source, function: ast.FunctionDef) -> None:
        self._source = source
        self._function = function
        self._states: list[str] = []
        self._hypers: dict[str, float | None] = {}
        self._unread: dict[str, ast.AST] = {}  # assigned names whose value nothing has read yet
        self._numbers = Evaluator(source, dict(_NUMBERS))

    def rule(self, name: str | None) -> Definition:
        source, function = self._source, self._function
        self._check_decorators()
        self._read_signature()
        names: dict[str, Value] = {"p": PARAM, "g": GRAD, **CONSTANTS}
        for state_name in self._states:
            names[state_name] = state(state_name)
        for hyper_name in self._hypers:
            names[hyper_name] = hyper(hyper_name)
        evaluator = Evaluator(source, names)
        body = function.body
        doc = ""
        head = body[0].value if isinstance(body[0], ast.Expr) else None
        if isinstance(head, ast.Constant) and isinstance(head.value, str):
            doc = inspect.cleandoc(head.value)
            body = body[1:]
        outputs: list[Value] | None = None
        for statement in body:
            if outputs is not None:
                raise source.error("this comes after the return", statement)
            if isinstance(statement, ast.Return):
                outputs = self._returned(evaluator, statement)
            else:
                self._assign(evaluator, statement)
        if outputs is None:
            message = "the rule returns nothing; end it with a return of the new p and of the new states"
            raise source.error(message, function)
        try:
            rule = Definition(name or function.name, self._states, self._hypers, outputs, doc=doc)
        except LevelError as error:
            raise source.located(error, evaluator.places.get(error.node, body[-1])) from None
        except RuleError as error:  # a wrong count, or the function's name
            at_return = error.message == wrong_count(self._states, len(outputs))
            raise source.located(error, body[-1] if at_return else function) from None
        for unused, node in self._unread.items():
            raise source.error(f"'{unused}' is assigned but not used; leave the line out or use it", node)
        return rule

    def _check_decorators(self) -> None:
        for node in self._function.decorator_list:
            plain = isinstance(node, ast.Name) and node.id == "rule"
            dotted = isinstance(node, ast.Attribute) and node.attr == "rule" and isinstance(node.value, ast.Name)
            if not plain and not (dotted and node.value.id == "nos_ext"):  # type: ignore[attr-defined]
                raise self._source.error("a rule has no decorator but @nos_ext.rule", node)

    def _read_signature(self) -> None:
        source, function = self._source, self._function
        arguments = function.args
        for extra in (arguments.vararg, arguments.kwarg):
            if extra is not None:
                raise source.error("* and ** arguments are not part of the rule language; name every one", extra)
        if arguments.posonlyargs:
            raise source.error(f"/ is not part of the rule language; write {_SHAPE}", arguments.posonlyargs[0])
        if arguments.defaults:
            message = "p, g and the states have no defaults; put hyperparameters after a *"
            raise source.error(message, arguments.defaults[0])
        everything = [*arguments.args, *arguments.kwonlyargs]
        annotations = [x.annotation for x in everything if x.annotation is not None]
        if function.returns is not None or annotations or getattr(function, "type_params", None):
            raise source.error(_REFUSED[ast.AnnAssign], annotations[0] if annotations else function)
        problem = positional_problem([x.arg for x in arguments.args])
        if problem is not None:
            message, index = problem
            raise source.error(message, arguments.args[index] if index < len(arguments.args) else function)
        taken: dict[str, object] = {}
        for argument in arguments.args[2:]:
            self._checked(argument, "a state", taken)
            self._states.append(argument.arg)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            self._checked(argument, "a hyperparameter", taken)
            value = None if default is None else self._numbers.value(default)
            try:
                self._hypers[argument.arg] = check_default(argument.arg, value)  # type: ignore[arg-type]
            except RuleError as error:
                raise source.located(error, default or argument) from None
        if "lr" not in self._hypers:
            raise source.error("the rule has no lr; write lr after a * in the arguments", function)

    def _checked(self, argument: ast.arg, what: str, taken: dict[str, object]) -> None:
        try:
            check_name(argument.arg, what, taken)
        except RuleError as error:
            raise self._source.located(error, argument) from None
        taken[argument.arg] = None

    def _assign(self, evaluator: Evaluator, statement: ast.stmt) -> None:
        source = self._source
        if isinstance(statement, ast.Assign):
            if len(statement.targets) != 1 or not isinstance(statement.targets[0], ast.Name):
                raise source.error("assign to one name per line", statement)
            target = statement.targets[0]
            value = evaluator.value(statement.value)
        elif isinstance(statement, ast.AugAssign):
            if not isinstance(statement.target, ast.Name):
                raise source.error("assign to one name per line", statement)
            target = statement.target
            old = evaluator.value(ast.copy_location(ast.Name(target.id, ast.Load()), target))
            value = evaluator.binary(statement.op, old, evaluator.value(statement.value), statement)
        else:
            _refuse(source, statement)
        self._mark_read(evaluator)
        name = target.id
        if name not in ("p", "g"):
            try:
                check_name(name, "a value")
            except RuleError as error:
                raise source.located(error, target) from None
        if name in self._unread:
            raise source.error(f"'{name}' is assigned again before its value is used", target)
        self._unread[name] = target
        evaluator.names[name] = value

    def _mark_read(self, evaluator: Evaluator) -> None:
        for name in evaluator.used:
            self._unread.pop(name, None)
        evaluator.used.clear()

    def _returned(self, evaluator: Evaluator, statement: ast.Return) -> list[Value]:
        node = statement.value
        if node is None:
            raise self._source.error("return the new p and the new states", statement)
        parts = node.elts if isinstance(node, ast.Tuple) else [node]
        values = [evaluator.value(part) for part in parts]
        self._mark_read(evaluator)
        return values
