"""Owns the conformance suite of torch optimizers: what torch.optim promises, as tests to inherit.

    import pytest
    from nos_ext.testing.optimizer import OptimizerCase, OptimizerConformance

    class TestMine(OptimizerConformance):
        @pytest.fixture
        def case(self):
            return OptimizerCase("mine", MyOptimizer, hyper="beta", values=(0.9, 0.5))

torch.optim.AdamW passes it. The tests are grouped by theme in mixins, one file each.
"""

from __future__ import annotations

from ._case import OptimizerCase
from ._checkpoint import Checkpoints
from ._contract import Contract
from ._groups import Groups
from ._numerics import Numerics
from ._training import Training

__all__ = ["Checkpoints", "Contract", "Groups", "Numerics", "OptimizerCase", "OptimizerConformance", "Training"]


class OptimizerConformance(Contract, Groups, Checkpoints, Numerics, Training):
    """OptimizerConformance is the whole suite. Define the fixture `case`."""
