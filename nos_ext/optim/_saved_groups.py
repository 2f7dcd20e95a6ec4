"""Owns the param groups of a state_dict: they are saved as plain types, and come back as checked values of the
optimizer's own rules. Names that a rule of the library once gave its hyperparameters are read as today's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import torch

from .._numbers import plain
from . import library
from ._betas import KEY, beta_names, spread
from ._entry import MADE_WITH, MODE, SCHEDULED
from ._masters import KEY as MASTERS
from ._rules import GroupRule, Rules
from ._values import FLAG_DEFAULTS, FUNCTION, Group, same_rule

# Rules of the library whose hyperparameters have been renamed. A name is mapped to the old text of the rule, today's
# names of its hyperparameters, and values for those that are new.
_RENAMED: Final[Mapping[str, tuple[str, Mapping[str, str], Mapping[str, float]]]] = {
    "powersign": (
        """
def powersign(p, g, m, *, lr, beta=0.9, base=e, decay=1.0):
    m = beta * m + (1 - beta) * g
    return p - lr * exp(log(base) * decay * sign(g) * sign(m)) * g, m
""",
        {"decay": "sign_decay"},
        {"weight_decay": 0.0},
    ),
    "addsign": (
        """
def addsign(p, g, m, *, lr, beta=0.9, alpha=1.0, decay=1.0):
    m = beta * m + (1 - beta) * g
    return p - lr * (alpha + decay * sign(g) * sign(m)) * g, m
""",
        {"decay": "sign_decay"},
        {"weight_decay": 0.0},
    ),
}


def make_plain(groups: Iterable[Group], hypers: Iterable[Collection[str]]) -> None:
    """Replaces NumPy's numbers in packed groups by Python's, and functions by a text, as a checkpoint has plain types
    only. `hypers` has the names of each group's hyperparameters."""
    for group, names in zip(groups, hypers, strict=True):
        group.update({name: plain(value) for name, value in group.items()})
        for name in names:
            value = group.get(name)
            if callable(value) and not isinstance(value, torch.Tensor):
                group[name] = FUNCTION
        if isinstance(group.get(KEY), tuple):
            group[KEY] = tuple([group[name] for name in beta_names(names)])


def checked_groups(
    saved: Sequence[Mapping[str, Any]], rules: Rules, groups: Sequence[Group], defaults: Group
) -> list[Group]:
    """Returns the param groups of a checkpoint, checked, with today's names and with the optimizer's own functions.
    Flags that are newer than the checkpoint get the optimizer's values.

    Args:
        saved: of the checkpoint. There may be more or fewer than of the optimizer, which torch refuses afterwards.
        rules: of the optimizer.
        groups: of the optimizer.
        defaults: of the optimizer.
    """
    known = [rules.of(group) for group in groups]
    own = [known[i] if i < len(known) else rules.default for i, _ in enumerate(saved)]
    out = [_renamed(group, rule.text) for group, rule in zip(saved, own, strict=True)]
    _check_rules(out, [rule.text for rule in own])
    out = _with_functions(out, groups, [rule.program.hyperparameters for rule in own])
    return [_checked(i, group, own[i], groups[i] if i < len(groups) else None, defaults) for i, group in enumerate(out)]


def _checked(i: int, group: Group, rule: GroupRule, mine: Group | None, defaults: Group) -> Group:
    """Returns param group i of a checkpoint, checked. `mine` is the optimizer's, if it has so many."""
    where = f"param_groups[{i}] of the checkpoint"
    missing = [name for name in rule.program.hyperparameters if name not in group]
    if missing:
        raise ValueError(
            f"{where} has no {missing[0]!r}, a hyperparameter of rule '{rule.program.name}'; it has the keys "
            f"{sorted(map(str, group))}; load a checkpoint that was made with this rule, or one of torch.optim "
            "with load_torch_state_dict"
        )
    flags = {name: defaults[name] for name in FLAG_DEFAULTS}
    if rule.values.averaged:
        flags |= {MODE: True, MADE_WITH: None}
    try:
        if mine is not None:
            rule.values.check_there(group, mine["params"])
        checked = rule.values.checked({**flags, **group})
        own = defaults if mine is None else mine
        checked[MASTERS] |= own[MASTERS]  # a checkpoint of wide parameters does not take them away
        rule.values.check_ranges(checked, but=SCHEDULED)
        return {**spread(checked, rule.values.betas), "rule": rule.text}
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None


def _renamed(group: Mapping[str, Any], mine: str) -> Group:
    """Returns a saved group with today's names, if `mine` is a rule of the library that had others when the group was
    saved."""
    out = dict(group)
    if "rule" not in out or same_rule(out["rule"], mine):
        return out
    for name, (text, names, new) in _RENAMED.items():
        today = library.get(name).to_text()
        if same_rule(mine, today) and same_rule(out["rule"], text.strip()):
            return {**{names.get(key, key): value for key, value in out.items()}, **new, "rule": today}
    return out


def _check_rules(saved: Iterable[Group], texts: Sequence[str]) -> None:
    """Raises ValueError if a checkpoint was made with other rules than those of the groups, which `texts` has."""
    for i, (group, text) in enumerate(zip(saved, texts, strict=True)):
        if "rule" in group and not same_rule(group["rule"], text):
            which, owner = ("", "optimizer") if len(set(texts)) == 1 else (f"param_groups[{i}] of ", "group")
            raise ValueError(
                f"{which}the checkpoint was made with another rule:\n{group['rule']}\nthis {owner} has\n{text}\n"
                "make the optimizer with the rule of the checkpoint: RuleOptimizer(params, "
                f'state_dict["param_groups"][{i}]["rule"], lr)'
            )


def _with_functions(saved: Iterable[Group], groups: Iterable[Group], hypers: Iterable[Collection[str]]) -> list[Group]:
    """Returns saved groups in which the optimizer's own functions stand where the checkpoint had some. `hypers` has the
    names of each group's hyperparameters."""
    out = [dict(group) for group in saved]
    for group, own, names in zip(out, groups, hypers, strict=False):  # torch compares their lengths next
        for name in names:
            if isinstance(group.get(name), str) and group[name] == FUNCTION:
                if not callable(own[name]):
                    raise ValueError(
                        f"{name} was a function of the step when the checkpoint was made, and functions are not "
                        f"saved; make the optimizer with the same {name}=function and load again"
                    )
                group[name] = own[name]
                group.pop(KEY, None)  # it has the text, too; the group gets a new one
    return out
