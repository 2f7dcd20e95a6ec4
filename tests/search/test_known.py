"""The table of known optimizers: each name is the library's, each form is the rule that it says."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import nos_ext
from nos_ext.optim import library
from nos_search.gate import engine
from nos_search.gate.probe import effect_stimulus
from nos_search.known import EVALUATED, OF_ELEMENTWISE, OF_GROUPS, OF_PROGRAMS, REPORTED, RULES
from nos_search.space import LionSpace, ProgramSpace, Space

from .conftest import environment


def test_every_use_takes_rules_that_it_can_use() -> None:
    assert set(EVALUATED) | set(REPORTED) <= set(RULES) & set(library.names())
    assert set(OF_GROUPS) == {name for name, rule in RULES.items() if rule.update}
    assert set(OF_PROGRAMS) == {name for name, rule in RULES.items() if rule.lines}
    assert set(EVALUATED) | set(REPORTED) | set(OF_GROUPS) | set(OF_PROGRAMS) == set(RULES)
    for names in (EVALUATED, REPORTED, OF_GROUPS, OF_PROGRAMS):
        assert len(set(names)) == len(names)


def test_spaces_begin_with_them() -> None:
    longest = max(len(rule.lines) for rule in RULES.values())
    assert tuple(Space(groups=3).known()) == OF_GROUPS
    for space in (ProgramSpace(lines=longest), LionSpace(lines=longest)):
        assert tuple(space.known()) == OF_PROGRAMS
    assert tuple(ProgramSpace(lines=longest, vocabulary="elementwise").known()) == OF_ELEMENTWISE


@pytest.mark.parametrize("name", sorted(set(OF_GROUPS) & set(OF_PROGRAMS)))
def test_both_forms_are_one_rule(name: str) -> None:
    """Up to a factor at each step, which is how an average with and one without bias correction differ."""
    groups, program = Space(groups=3), ProgramSpace(lines=5)
    rules = [nos_ext.compile_rule(space.text(space.known()[name])).rule for space in (groups, program)]
    stimulus = effect_stimulus()
    one, two = engine.updates(rules, stimulus, seed=1).astype(np.float64).reshape(2, stimulus.shown, -1)
    for a, b in zip(one, two, strict=True):
        used = np.abs(a) > 1e-20
        assert used.mean() > 0.6
        ratio = b[used] / a[used]
        assert 0 < ratio.max() < 1.001 * ratio.min()
        assert not b[~used].any()


def test_the_table_costs_no_import() -> None:
    code = "import sys, nos_search.known; assert not {'numpy', 'torch', 'nos_ext'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment()).returncode == 0
