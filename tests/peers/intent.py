"""Owns the list of what we do otherwise than torch on purpose. A test that meets one of these asserts the difference."""

from __future__ import annotations

DIFFERENCES = {
    "complex parameters": "rules are about real numbers: sign, comparisons and clip have no complex meaning. Refused by name",
    "sparse gradients": "a rule updates its states everywhere at every step. Refused by name",
    "differentiable": "the engine works in place and records no graph; update() of an exported rule is differentiable",
    "foreach": "there is no second implementation to choose: True is refused, False and None are taken",
    "random draws": "are numbered by an element's place in memory, so another layout draws other numbers",
    "a loaded state dict": "its tensors are copied, so that it may be loaded twice; torch's optimizers go on in them",
    "unknown names": "an argument that is no hyperparameter of the rule is a TypeError with the nearest name",
}
