"""Owns how a policy learns from strings and what they earned.

The action is the whole string: its log-probability is the sum over its positions. REINFORCE, PPO (clipped ratio) and
TRPO maximise the same thing, the expected advantage, and differ in how far one batch of strings may move the policy.
The risk-seeking gradient is PPO's with advantages above a quantile of the batch only, so it maximises the best and not
the mean. Priority queue training is PPO with the mean log-probability of the best strings so far added. All have
`entropy` times the entropy of the live choices added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .policy import Batch, Policy

ALGORITHMS = ("ppo", "trpo", "reinforce", "risk", "pqt")
_Floats = NDArray[np.float32]


def reinforce_slope(advantage: _Floats) -> _Floats:
    """Returns the gradient by log p, (n,), of the mean of log p * A, which is the policy gradient (Williams 1992)."""
    return np.asarray(advantage / np.float32(len(advantage)))


def ppo_slope(log_prob: _Floats, old: _Floats, advantage: _Floats, clip: float) -> _Floats:
    """Returns the gradient by log p, (n,), of the mean of min(r A, clip(r, 1 - c, 1 + c) A) with r = p / p_old
    (Schulman et al. 2017, eq. 7)."""
    ratio = np.exp(log_prob - old)
    gain = ratio * advantage
    held = np.clip(ratio, 1 - clip, 1 + clip) * advantage < gain  # the clip is the lower one, and does not move
    return np.asarray(np.where(held, np.float32(0), gain / np.float32(len(gain))))


def risk_advantage(rewards: _Floats, share: float) -> _Floats:
    """Returns (n,): how far each reward is above the quantile that leaves `share` of the batch above it, over `share`;
    0 for the others (Petersen et al. 2021, arXiv 1912.04871, eq. 2)."""
    over = rewards - np.quantile(rewards, 1 - share).astype(np.float32)
    return np.asarray(np.maximum(over, 0) / np.float32(share))


def mean_kl(old: Tensor, new: Tensor) -> Tensor:
    """Returns KL(old || new) of strings in nats, from (n, L, V) log-probabilities: the mean over the batch of the sum
    over positions."""
    return (old.exp() * (old - new)).sum((1, 2)).mean()


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, *, iterations: int, tolerance: float) -> Tensor:
    """Solves A x = b for a positive definite A that is given as a product. It stops at |A x - b| <= tolerance |b|."""
    x = torch.zeros_like(b)
    residual = b.clone()
    direction = b.clone()
    square = residual.dot(residual)
    stop = float(square) * tolerance**2
    for _ in range(iterations):
        if float(square) <= stop or float(square) == 0:
            break
        image = product(direction)
        curvature = direction.dot(image)
        if not float(curvature) > 0:
            break  # rounding has used up what there was to gain
        step = square / curvature
        x = x + step * direction
        residual = residual - step * image
        new = residual.dot(residual)
        direction = residual + (new / square) * direction
        square = new
    return x


def fisher_product(policy: Policy, batch: Batch, *, damping: float) -> Callable[[Tensor], Tensor]:
    """Returns v -> (F + damping) v, where F is the Hessian of the mean KL at the present policy (its Fisher matrix)."""
    parameters = list(policy.parameters())
    log_p = policy.distributions(batch)
    kl = mean_kl(log_p.detach(), log_p)
    slope = _flat(torch.autograd.grad(kl, parameters, create_graph=True))

    def product(v: Tensor) -> Tensor:
        return _flat(torch.autograd.grad(slope.dot(v), parameters, retain_graph=True)) + damping * v

    return product


def trpo_step(
    policy: Policy,
    batch: Batch,
    old: Tensor,
    advantage: Tensor,
    *,
    entropy: float,
    limit: float,
    damping: float = 0.1,
    iterations: int = 10,
) -> float:
    """Makes one natural-gradient step with KL(before || after) <= limit (Schulman et al. 2015), and returns that KL.

    The full step is halved until it keeps the limit and does not lower the objective. When none of ten does, the policy
    is as before and 0.0 is returned.
    """
    parameters = list(policy.parameters())
    with torch.no_grad():
        before = policy.distributions(batch)

    def objective(log_p: Tensor) -> Tensor:
        ratio = torch.exp(policy.log_prob(log_p, batch) - old)
        return (ratio * advantage).mean() + entropy * policy.entropy(log_p, batch).mean()

    start = objective(policy.distributions(batch))
    slope = _flat(torch.autograd.grad(start, parameters)).detach()
    product = fisher_product(policy, batch, damping=damping)
    direction = conjugate_gradient(product, slope, iterations=iterations, tolerance=1e-4)
    curvature = float(direction.dot(product(direction)))
    if not curvature > 0:
        return 0.0
    step = (2 * limit / curvature) ** 0.5 * direction
    here = nn.utils.parameters_to_vector(parameters).detach().clone()
    with torch.no_grad():
        for halvings in range(10):
            _write(here + step * 0.5**halvings, parameters)
            log_p = policy.distributions(batch)
            kl = float(mean_kl(before, log_p))
            if kl <= limit and float(objective(log_p)) >= float(start):
                return kl
        _write(here, parameters)
    return 0.0


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _write(vector: Tensor, parameters: Sequence[Tensor]) -> None:
    """Copies the vector into the memory that the parameters have."""
    for parameter, part in zip(parameters, torch.split(vector, [p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))
