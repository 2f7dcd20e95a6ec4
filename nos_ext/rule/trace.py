"""Owns trace, which finds out what rule a Python function means by calling it once with expressions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final

from .definition import RESERVED, Definition, positional_problem
from .errors import RuleError
from .expr import GRAD, PARAM, Expr, hyper, postorder, state
from .levels import LevelError
from .printers.text import shortened_text
from .vocabulary import VOCABULARY

_ARGUMENTS: Final = "(p, g, state, ..., *, lr, hyper=0.9, ...)"


def trace(function: Callable[..., Any], *, name: str | None = None) -> Definition:
    """Finds the definition that a function means. `program.rule` says what the function may be.

    Raises:
        RuleError: the signature or the returned values are not those of a rule, or the function fails.
    """
    if not isinstance(function, FunctionType):
        raise RuleError(f"a rule is made from a function written with def; this is a {type(function).__name__}")
    code = function.__code__
    if code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        raise RuleError(f"{code.co_name}: * and ** arguments are not part of the rule language; write {_ARGUMENTS}")
    if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        raise RuleError(f"{code.co_name}: a rule is a plain function, without yield and async")
    if function.__defaults__:
        raise RuleError(f"{code.co_name}: p, g and the states have no defaults; put hyperparameters after a *")
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    positional, keyword_only = arguments[: code.co_argcount], arguments[code.co_argcount :]
    problem = positional_problem(positional)
    if problem is not None:
        raise RuleError(f"{code.co_name}: {problem[0]}")
    for local in code.co_varnames[2:]:
        if local in RESERVED and local not in ("p", "g"):
            raise RuleError(f"{code.co_name}: '{local}' belongs to the rule language; choose another name")
    _check_closure(function)

    defaults = function.__kwdefaults__ or {}
    hypers = {key: defaults.get(key) for key in keyword_only}
    traced = FunctionType(
        code, {**function.__globals__, **VOCABULARY}, code.co_name, function.__defaults__, function.__closure__
    )
    states = positional[2:]
    outputs = _call(traced, [PARAM, GRAD, *map(state, states)], {key: hyper(key) for key in keyword_only})
    name = name or _identifier(code.co_name)
    try:
        return Definition(name, states, hypers, outputs, doc=inspect.getdoc(function) or "")
    except LevelError as error:
        raise RuleError(f"{code.co_name}: {error.message} (in {shortened_text(postorder([error.node]))})") from None


def _identifier(name: str) -> str:
    return "rule" if name == "<lambda>" else name


def _check_closure(function: FunctionType) -> None:
    """Refuses variables of enclosing functions that would hide the vocabulary: text and function would differ."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name in VOCABULARY:
            try:
                value = cell.cell_contents
            except ValueError:  # the variable is not assigned yet
                value = None
            if value is not VOCABULARY[name]:
                raise RuleError(
                    f"{function.__name__}: the enclosing function has a variable '{name}', which belongs to the rule "
                    "language; rename the variable"
                )


def _call(function: FunctionType, positional: list[Expr], keywords: dict[str, Expr]) -> list[Any]:
    try:
        result = function(*positional, **keywords)
    except MemoryError:
        raise
    except RuleError as error:
        raise RuleError(f"{function.__name__}: {error.message}{_place(error, function)}") from error
    except Exception as error:
        raise RuleError(
            f"{function.__name__}: the function failed with {type(error).__name__}: {error}{_place(error, function)}; "
            "inside a rule use the ops of nos_ext.ops on its arguments"
        ) from error
    return list(result) if isinstance(result, tuple | list) else [result]


def _place(error: Exception, function: FunctionType) -> str:
    """Says where in the function an exception came from."""
    line = None
    trace_back = error.__traceback__
    while trace_back is not None:
        if trace_back.tb_frame.f_code is function.__code__:
            line = trace_back.tb_lineno
        trace_back = trace_back.tb_next
    return f" (in {function.__code__.co_filename}, line {line})" if line is not None else ""
