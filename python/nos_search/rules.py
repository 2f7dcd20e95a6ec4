"""Owns what the search asks of the engine: compile rule text, name its canonical form, see whether it can learn at all.

Everything here goes through the public names of nos_ext.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

import nos_ext
from nos_ext.optim import library
from nos_ext.rule.canonical import canonical_key

from .errors import UsageError

_PROBE = 16  # elements of a probe tensor
_PROBE_STEPS = 2


@dataclass(frozen=True)
class Rule:
    """A compiled rule. text: as the user or the space wrote it. key: equal for rules that are equal by algebra."""

    text: str
    program: nos_ext.Program
    key: str

    @property
    def label(self) -> str:
        """One line for tables: the text, or the name of a rule that was given as a function."""
        return self.program.name if "\n" in self.text.strip() else self.text.strip()

    @property
    def is_update(self) -> bool:
        """Whether the text is the update u of `p - lr * u`, not a function or the name of a library rule."""
        return self.text not in library.names() and self.label == self.text.strip()


def compile_rule(text: str) -> Rule:
    """Compiles rule text, or the name of a rule of nos_ext.optim.library.

    Raises nos_ext.RuleError (a ValueError whose message shows the place) for text that is not a rule.
    """
    program = nos_ext.compile_rule(library.get(text) if text in library.names() else text)
    return Rule(text, program, canonical_key(program))


def parse_rule_argument(text: str) -> Rule:
    """compile_rule for command-line arguments: UsageError instead of RuleError, the message with line and caret kept.
    compile_rule for command-line arguments: UsageError instead of RuleError, the message with line and caret kept."""
    try:
        return compile_rule(text)
    except nos_ext.RuleError as error:
        raise UsageError(f"rule {text!r} is not valid: {error}") from None


def probe_fault(rule: Rule, *, seed: int) -> str | None:
    """Why the rule cannot train anything, or None. Two runs of two steps on 16 numbers tell.

    "gradient has no effect": two different runs of gradients, with equal draws of noise, give equal parameters, as with
    `g - g` or `sign(exp(g))`. "not finite": no element of either run is a finite number.
    """
    results = []
    for side in range(2):
        gradients = torch.Generator().manual_seed(seed + side)
        # Zeros show updates of any size; the others show rules that scale with the parameter.
        params = [torch.cat([torch.zeros(_PROBE // 2), torch.linspace(-1, 1, _PROBE // 2)])]
        state = nos_ext.init_state(rule.program, params)
        for step in range(1, _PROBE_STEPS + 1):
            grads = [torch.randn(_PROBE, generator=gradients)]
            nos_ext.apply_rule(rule.program, params, grads, state, lr=1.0, step=step, total_steps=10, seed=seed)
        results.append(params[0])
    if not any(bool(result.isfinite().any()) for result in results):
        return "not finite"
    equal = torch.equal(results[0].nan_to_num(), results[1].nan_to_num())
    return "gradient has no effect" if equal else None
