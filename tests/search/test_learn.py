"""The mathematics of PPO and TRPO: gradients by hand, conjugate gradients against a dense solve, the limit on the KL."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nos_search.space import ProgramSpace, SearchSpace, Space
from nos_search.strategy import ControllerStrategy, Result
from nos_search.strategy.learn import (
    conjugate_gradient,
    fisher_product,
    mean_kl,
    ppo_slope,
    reinforce_slope,
    risk_advantage,
    trpo_step,
)
from nos_search.strategy.policy import Policy
from nos_search.strategy.unrolled import Unrolled

from .conftest import evaluated

# log p - log p_old, advantage -> gradient of the clipped objective by log p, by hand: A r, or 0 where the clip holds.
CLIPPED = [
    (0.0, 2.0, 2.0),
    (0.1, 2.0, 2.0 * math.exp(0.1)),  # r = 1.105, within 1.2
    (0.5, 2.0, 0.0),  # r = 1.65 > 1.2 and A > 0: nothing to gain
    (0.5, -2.0, -2.0 * math.exp(0.5)),  # r = 1.65 and A < 0: the way back is open
    (-0.5, 2.0, 2.0 * math.exp(-0.5)),  # r = 0.61 < 0.8 and A > 0
    (-0.5, -2.0, 0.0),
    (0.0, 0.0, 0.0),
]


def clipped(log_prob: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """PPO's objective as Schulman et al. 2017 write it, eq. 7."""
    ratio = torch.exp(log_prob - old)
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


@pytest.mark.parametrize(("difference", "advantage", "gradient"), CLIPPED)
def test_ppo_gradient(difference: float, advantage: float, gradient: float) -> None:
    log_prob, old, advantages = (np.array([x], np.float64) for x in (difference - 7.0, -7.0, advantage))
    slope = ppo_slope(log_prob, old, advantages, 0.2)
    assert slope[0] == pytest.approx(gradient, abs=1e-12)
    leaf = torch.from_numpy(log_prob).requires_grad_()
    value = clipped(leaf, torch.from_numpy(old), torch.from_numpy(advantages), 0.2)
    assert slope[0] == pytest.approx(float(torch.autograd.grad(value, leaf)[0]), abs=1e-12)


def test_ppo_starts_as_the_policy_gradient() -> None:
    log_prob, advantage = np.array([-3.0, -4.0], np.float32), np.array([1.0, -0.5], np.float32)
    plain = reinforce_slope(advantage)
    assert np.allclose(ppo_slope(log_prob, log_prob, advantage, 0.2), plain)
    assert np.allclose(plain, advantage / 2)


@pytest.mark.parametrize("space", [Space(groups=2), ProgramSpace(lines=3)], ids=["nos", "program"])
def test_the_gradient_by_hand_is_that_of_autograd(space: SearchSpace) -> None:
    """Of PPO's objective and the entropy bonus, for every weight of the policy, away from the old policy."""
    generator = torch.Generator().manual_seed(3)
    policy = Policy(space, hidden=5, embedding=4, generator=generator)
    with torch.no_grad():
        policy.flat.mul_(12)
    network = Unrolled(policy, 9)
    strings, drawn = network.sample(generator)
    with torch.no_grad():
        policy.flat.mul_(1.1)
    advantage, old = torch.randn(9, generator=generator), torch.tensor(drawn)
    network.strings(strings)
    network.forward()
    slope = ppo_slope(network.log_prob(), old.numpy(), advantage.numpy(), 0.2)
    gradient = network.backward(network.slope(slope, 0.05))

    policy.double()
    batch = policy.batch(strings)
    log_p = policy.distributions(batch)
    log_prob = policy.log_prob(log_p, batch)
    value = clipped(log_prob, old.double(), advantage.double(), 0.2) + 0.05 * policy.entropy(log_p, batch).mean()
    wanted = torch.autograd.grad(value, list(policy.parameters()))
    assert np.allclose(network.log_prob(), log_prob.detach().numpy(), rtol=1e-5)
    entropies = (network.entropies() * network.live).sum(axis=0)
    assert np.allclose(entropies, policy.entropy(log_p, batch).detach().numpy(), rtol=1e-4, atol=1e-5)
    for mine, other in zip(policy.views(gradient), wanted, strict=True):
        assert (mine - other).abs().max() < 2e-5 * other.abs().max()


def test_a_step_is_that_of_torch_s_adam() -> None:
    strategy = ControllerStrategy(Space(groups=1), seed=1, hidden=8, embedding=4, lr=0.03)
    twin = strategy.policy.flat.clone().requires_grad_()
    adam = torch.optim.Adam([twin], lr=0.03, maximize=True)
    for k in range(4):
        twin.grad = torch.randn(twin.shape, generator=torch.Generator().manual_seed(k)) * 0.1**k
        strategy._ascend(twin.grad.clone())
        adam.step()
    assert torch.allclose(strategy.policy.flat, twin, rtol=1e-5, atol=1e-6)
    moments = strategy.state_dict()["adam"]
    assert torch.allclose(torch.cat([entry["exp_avg"].flatten() for entry in moments]), adam.state[twin]["exp_avg"])
    assert {float(entry["step"]) for entry in moments} == {4.0}


def test_conjugate_gradient_is_the_dense_solve() -> None:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(30, 30, dtype=torch.float64, generator=generator)
    matrix = root @ root.T + 0.5 * torch.eye(30, dtype=torch.float64)
    b = torch.randn(30, dtype=torch.float64, generator=generator)
    x = conjugate_gradient(lambda v: matrix @ v, b, iterations=60, tolerance=1e-12)
    assert torch.allclose(x, torch.linalg.solve(matrix, b), rtol=1e-6, atol=1e-8)
    few = conjugate_gradient(lambda v: matrix @ v, b, iterations=3, tolerance=1e-12)
    assert float(few @ b) > 0
    assert float((matrix @ few - b).norm()) > 1e-6
    assert not conjugate_gradient(lambda v: matrix @ v, torch.zeros_like(b), iterations=5, tolerance=0.0).any()


def policy_and_batch(n: int = 12, seed: int = 1) -> tuple[Policy, list[tuple[int, ...]], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    policy = Policy(Space(groups=1), hidden=4, embedding=3, generator=generator)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(10)  # away from uniform
    strings, log_prob = Unrolled(policy, n).sample(generator)
    return policy, strings, torch.tensor(log_prob)


def test_sampling_and_evaluation_agree() -> None:
    policy, strings, sampled = policy_and_batch(40)
    log_prob, entropy = evaluated(policy, strings)
    assert torch.allclose(log_prob, sampled, atol=1e-4)
    assert (entropy > 0).all()
    # one position, by hand: the frequencies of first tokens follow the softmax
    many, _ = Unrolled(policy, 4000).sample(torch.Generator().manual_seed(5))
    first = policy.distributions(policy.batch(strings[:1]))[0, 0].exp()[:17]
    counted = torch.bincount(torch.tensor([string[0] for string in many]), minlength=17) / 4000
    assert (counted - first).abs().max() < 0.03


def test_fisher_product_is_the_dense_fisher_matrix() -> None:
    """The Hessian of the KL at the policy itself is J' M J with M the Fisher matrix of the categorical distributions."""
    policy, strings, _ = policy_and_batch(6)
    policy.double()
    batch = policy.batch(strings)
    parameters = list(policy.parameters())
    log_p = policy.distributions(batch)
    rows = [
        torch.cat([x.reshape(-1) for x in torch.autograd.grad(value, parameters, retain_graph=True)])
        for value in log_p[batch.masks]
    ]
    jacobian = torch.stack(rows)
    weights = log_p.exp()[batch.masks].detach() / len(strings)
    fisher = jacobian.T @ (weights[:, None] * jacobian)
    v = torch.randn(fisher.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    product = fisher_product(policy, batch, damping=0.1)
    assert torch.allclose(product(v), fisher @ v + 0.1 * v, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("limit", [1e-4, 1e-2, 0.3])
def test_trpo_keeps_its_limit_and_gains(limit: float) -> None:
    policy, strings, old = policy_and_batch()
    batch = policy.batch(strings)
    advantage = torch.tensor([1.0 if string[4] % 2 else -1.0 for string in strings])
    advantage -= advantage.mean()
    with torch.no_grad():
        before = policy.distributions(batch)
    kl = trpo_step(policy, batch, old, advantage, entropy=0.0, limit=limit)
    with torch.no_grad():
        after = policy.distributions(batch)
    measured = float(mean_kl(before, after))
    assert 0 < kl <= limit
    assert measured == pytest.approx(kl, rel=1e-3, abs=1e-7)
    assert kl > limit / 300  # not merely by standing still
    gain = (torch.exp(policy.log_prob(after, batch) - old) * advantage).mean()
    start = (torch.exp(policy.log_prob(before, batch) - old) * advantage).mean()
    assert float(gain) > float(start)


def test_trpo_without_advantage_stays() -> None:
    policy, strings, old = policy_and_batch()
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    assert trpo_step(policy, policy.batch(strings), old, torch.zeros(len(strings)), entropy=0.0, limit=0.1) == 0.0
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


def test_kl_of_equal_and_of_masked() -> None:
    policy, strings, _ = policy_and_batch()
    with torch.no_grad():
        log_p = policy.distributions(policy.batch(strings))
    assert float(mean_kl(log_p, log_p)) == 0.0
    a, b = torch.tensor([[[0.25, 0.75]]]).log(), torch.tensor([[[0.5, 0.5]]]).log()
    assert float(mean_kl(a, b)) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_first_ppo_epoch_moves_as_reinforce() -> None:
    """At the old policy the ratio is 1: with one epoch both algorithms take the same step."""
    states = []
    for algorithm in ("ppo", "reinforce"):
        strategy = ControllerStrategy(
            Space(groups=1),
            seed=1,
            algorithm=algorithm,
            epochs=1,
            batch=4,
            hidden=8,
            embedding=4,
            mutants=0,
            warm_start=0,
        )
        for candidate in strategy.ask(4):
            strategy.tell([Result(candidate.tokens, candidate.tokens[0] / 17, candidate.id)])
        assert strategy.updates == 1
        states.append([parameter.detach() for parameter in strategy.policy.parameters()])
    for a, b in zip(*states, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_risk_counts_the_top_share_alone() -> None:
    rewards = np.array([0.1, 0.9, 0.5, 0.3, 0.2], np.float32)
    # Two of five are above the quantile, which is the third of five in order, 0.3.
    assert risk_advantage(rewards, 0.5) == pytest.approx([0, 2 * 0.6, 2 * 0.2, 0, 0], abs=1e-6)
    assert (risk_advantage(np.full(4, 0.5, np.float32), 0.25) == 0).all()


def test_a_queue_adds_the_gradient_of_its_log_probability() -> None:
    """One step of pqt against autograd: of PPO's objective at the old policy plus `pull` times the mean log p of the
    queue; without an entropy bonus, as that one has a test of its own."""
    options = {"epochs": 1, "batch": 4, "hidden": 8, "embedding": 4, "entropy": 0.0, "mutants": 0, "warm_start": 0}
    strategy = ControllerStrategy(Space(groups=1), seed=1, algorithm="pqt", pull=0.7, queue=2, **options)
    steps: list[torch.Tensor] = []
    strategy._ascend = lambda gradient: steps.append(gradient.clone())  # type: ignore[method-assign]
    candidates, rewards = strategy.ask(4), [0.1, 0.4, 0.3, 0.2]
    for candidate, reward in zip(candidates, rewards, strict=True):
        strategy.tell([Result(candidate.tokens, reward, candidate.id)])
    advantage = torch.tensor(rewards) - 0.25
    advantage = advantage / advantage.square().mean().sqrt()
    log_p, _ = evaluated(strategy.policy, [candidate.tokens for candidate in candidates])
    value = (log_p * advantage).mean() + 0.7 * (log_p[1] + log_p[2]) / 2
    wanted = torch.cat([each.flatten() for each in torch.autograd.grad(value, list(strategy.policy.parameters()))])
    assert torch.allclose(steps[0], wanted, rtol=1e-3, atol=1e-5)


def test_duplicates_do_not_move_the_baseline() -> None:
    strategy = ControllerStrategy(Space(groups=1), seed=1, batch=4, hidden=8, embedding=4, mutants=0, warm_start=0)
    for candidate in strategy.ask(4):
        strategy.tell([Result(candidate.tokens, 0.8, candidate.id)])
    for candidate in strategy.ask(4):
        strategy.tell([Result(candidate.tokens, 0.1, candidate.id, duplicate=True)])
    assert strategy.metrics()["baseline"] == pytest.approx(0.8)
    assert strategy.updates == 2
