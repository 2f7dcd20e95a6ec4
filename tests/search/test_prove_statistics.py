"""The statistics of prove against scipy and worked examples, and its verdicts against simulated truth."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from nos_search.bench.prove import Design, judge_one, rates, simulated
from nos_search.cli import main
from nos_search.prove.statistics import (
    LARGEST,
    SMALLEST,
    Paired,
    agreed,
    freedom_of,
    holm,
    interquartile_mean,
    paired,
    pooled_deviation,
    standardised,
    steps_to,
)
from nos_search.prove.verdict import BETTER, NOTHING, WORSE, Scores, judge


def test_paired_is_scipy_s_t_test() -> None:
    stream = np.random.default_rng(3)
    for count in (2, 3, 5, 30):
        values = stream.normal(0.3, size=count)
        found = paired(values)
        want = stats.ttest_1samp(values, 0)
        low, high = want.confidence_interval(0.95)
        assert found.p == pytest.approx(want.pvalue)
        assert found.half is not None
        assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_paired_without_noise() -> None:
    """The same rule twice, one seed, and a difference that is the same for every seed: no NaN anywhere, and no test of
    what says nothing of its noise."""
    assert paired([0.0, 0.0, 0.0]).p == 1.0
    assert paired([0.0, 0.0, 0.0]).half == 0.0
    assert paired([0.1, 0.1, 0.1]) == Paired(0.1, None, None)
    steps = [0.52 - 0.5, 0.12 - 0.1]
    assert steps[0] != steps[1]  # the same step from other scores, which differ by a rounding
    assert paired(steps) == Paired(steps[0], None, None)
    assert (paired([0.5]).mean, paired([0.5]).half, paired([0.5]).p) == (0.5, None, None)
    assert paired([0.5], freedom=3).p is None


def test_equal_differences_have_the_noise_of_their_unit() -> None:
    """Two scores with a deviation of 1 each: by scipy, and a cut off difference is still told from 0."""
    for count, freedom, mean in ((2, 1, 3.0), (3, 4, -LARGEST), (5, 20, 0.7)):
        found = paired([mean] * count, freedom)
        error = math.sqrt(2 / count)
        assert found.mean == mean
        assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / error, freedom))
        assert found.half == pytest.approx(stats.t.ppf(0.975, freedom) * error)
    assert (paired([-LARGEST] * 3, 10).p or 1) < 1e-5
    assert (paired([1.0] * 3, 10).p or 0) > 0.2
    assert paired([0.0] * 3, 10) == Paired(0.0, 0.0, 1.0)
    values = [0.3, 0.5, 0.1]
    assert paired(values, 10) == paired(values)  # these say themselves how noisy they are


def test_degrees_of_freedom() -> None:
    assert freedom_of([[0.1, 0.2, 0.4], [0.3, 0.5, 0.4], []]) == 4
    assert freedom_of([[0.5, 0.5, 0.5], [0.6, 0.6, 0.6]]) == 2  # nothing varies, perhaps by chance
    assert freedom_of([[0.5], []]) == 1


def test_holm() -> None:
    """Holm's own example, by hand: 0.01 * 4, 0.02 * 3, 0.03 * 2 is less than what came before, 0.04 * 1 too."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, None, 0.8]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_interquartile_mean() -> None:
    assert interquartile_mean([5, 1, 2, 100]) == pytest.approx(3.5)  # the middle two
    assert interquartile_mean(range(8)) == pytest.approx(3.5)
    assert interquartile_mean([-1000, 2, 3]) == pytest.approx(
        (0.25 * -1000 + 2 + 0.25 * 3) / 1.5
    )  # shares of a quarter
    assert interquartile_mean([7]) == 7


def test_steps_to() -> None:
    assert steps_to(0.5, [10, 20, 30], [0.1, 0.4, 0.6]) == pytest.approx(25)
    assert steps_to(0.05, [10, 20], [0.1, 0.4]) == 10
    assert steps_to(0.7, [10, 20], [0.1, 0.4]) is None
    assert steps_to(0.4, [10, 20, 30], [0.1, 0.4, 0.3]) == 20
    assert steps_to(0.4, [], []) is None


def test_pooled_deviation() -> None:
    stream = np.random.default_rng(1)
    groups = [stream.normal(k, 0.2, 2000) for k in range(3)]  # their means do not count
    assert pooled_deviation(groups) == pytest.approx(0.2, rel=0.05)
    assert pooled_deviation([[0.1, 0.3], [5.0], []]) == pytest.approx(math.sqrt(0.02))
    assert pooled_deviation([[0.5, 0.5], [0.6, 0.6]]) == SMALLEST
    assert pooled_deviation([[0.5]]) == SMALLEST
    assert standardised(np.array([1.0, -1.0, 0.001]), 0.01).tolist() == [LARGEST, -LARGEST, pytest.approx(0.1)]


def test_cells_agree_by_a_one_sided_t_test() -> None:
    stream = np.random.default_rng(5)
    seen = []
    for _ in range(50):
        values = stream.normal(0.3, size=8)
        above = stats.ttest_1samp(values, 0, alternative="greater").pvalue <= 0.05
        below = stats.ttest_1samp(values, 0, alternative="less").pvalue <= 0.05
        assert agreed(values) == int(above) - int(below)
        assert agreed(-values) == int(below) - int(above)
        seen.append(above)
    assert 0 < sum(seen) < 50
    assert agreed([1.8, 3.1, 10, -0.4, 7.1]) == 1
    assert agreed([10, -0.4, 0.1, -0.1, 0.2]) == 0  # one cell is not the rest
    assert [agreed([value] * 6) for value in (0.0, 0.5, -0.5)] == [0, 1, -1]
    assert [agreed([0.1]), agreed([-0.1]), agreed([0.0]), agreed([0.1, -0.1])] == [1, -1, 0, 0]


def scores(values: object, families: tuple[str, ...], died: object = None) -> Scores:
    array = np.array(values, dtype=float)
    gone = np.zeros(array.shape, bool) if died is None else np.array(died)
    return Scores(array, gone, tuple(f"task {k}" for k in range(array.shape[1])), families)


def test_a_rule_against_itself() -> None:
    array = np.random.default_rng(0).normal(0.5, 0.1, (2, 3, 4))
    (found,) = judge(scores(array, ("a", "a", "b")), [0], [0])
    assert found.verdict == NOTHING
    assert {each.verdict for each in (*found.tasks.values(), *found.families.values())} == {NOTHING}
    assert (found.against[0].test.mean, found.against[0].test.half, found.against[0].corrected) == (0, 0, 1)
    (found,) = judge(scores(np.full((2, 3, 4), 0.5), ("a", "a", "b")), [0], [1])  # and without any spread
    assert found.verdict == NOTHING
    (found,) = judge(scores(np.full((2, 1, 1), 0.5), ("a",)), [0], [1])  # one seed is no test
    assert (found.verdict, found.against[0].test.p) == (NOTHING, None)


def drawn(shift: list[list[float]], seeds: int = 6) -> np.ndarray:
    """Scores of contenders around 0.5 with a deviation of 0.01, moved by `shift` (contenders, cells) of it."""
    moved = np.array(shift)[:, :, None]
    return 0.5 + 0.01 * (moved + np.random.default_rng(2).normal(size=(*moved.shape[:2], seeds)))


def test_better_than_all_and_worse_in_no_family() -> None:
    families = ("a", "a", "b", "b", "c", "c")
    up, flat, down = [5.0] * 6, [0.0] * 6, [-5.0] * 6
    (found,) = judge(scores(drawn([up, flat, down]), families), [0], [1, 2])
    assert found.verdict == BETTER
    assert {family.verdict for family in found.families.values()} == {BETTER}
    (found,) = judge(scores(drawn([up, flat, [9.0] * 6]), families), [0], [1, 2])  # one baseline is better than it
    assert found.verdict == WORSE
    (found,) = judge(scores(drawn([up, flat, up]), families), [0], [1, 2])  # and as good as it
    assert found.verdict == NOTHING
    (found,) = judge(scores(drawn([[8, 8, 8, 8, -6, -2], flat]), families), [0], [1])  # fails in one family
    assert found.against[0].test.mean > 0
    assert found.families["c"].verdict == WORSE
    assert found.verdict == NOTHING
    (found,) = judge(scores(drawn([[9, 0, 0, 0, 0, 0], flat]), families), [0], [1])  # one cell is not the rest
    assert found.tasks["task 0"].verdict == BETTER
    assert found.against[0].agreed == 0
    assert found.verdict == NOTHING
    both = judge(scores(drawn([up, flat, down]), families), [0, 2], [1])
    assert [each.verdict for each in both] == [BETTER, WORSE]


def test_divergence_counts_and_does_not_drown() -> None:
    array = drawn([[0.0] * 6, [0.0] * 6])
    died = np.zeros(array.shape, bool)
    array[0, 0], died[0, 0] = 0.0, True  # diverges in one cell with every seed
    (found,) = judge(scores(array, tuple("aabbcc"), died), [0], [1])
    assert found.tasks["task 0"].against[0].test.mean == -LARGEST
    assert found.tasks["task 0"].verdict == WORSE
    assert abs(found.tasks["task 1"].against[0].test.mean) < 2  # that of other cells is measured as ever
    assert found.against[0].agreed == 0  # that of other cells is noise
    assert (found.verdict, found.against[0].verdict) == (WORSE, WORSE)  # but a whole task is no luck in tuning


@pytest.mark.parametrize("kind", ["heavy", "correlated", "tuning"])
def test_verdicts_on_noise_are_rarely_false(kind: str) -> None:
    """A thousand cases each, of the hardest kind: the rule equals one baseline and beats the other. 0.05 is the bound;
    0.07 of a thousand is beyond it by three deviations of a count."""
    stream = np.random.default_rng(11)
    design = Design(families=3, cells=2, baselines=2, seeds=4)
    found = rates([judge_one(simulated(design, kind, 0.0, 0, stream, far=True)) for _ in range(1000)])
    assert found["better"] <= 0.05
    if kind != "tuning":  # what tuning did to a rule it did: only "better" is guarded against luck of that kind
        assert found["worse"] <= 0.05
        assert found["family_better"] <= 0.05
        assert found["family_worse"] <= 0.07


def test_a_tie_of_two_seeds_is_no_verdict() -> None:
    """Scores in steps of a hundredth: the same step up with both seeds is what chance does often."""
    one, two = [[[0.52, 0.54]], [[0.51, 0.53]]], [[[0.52, 0.52]], [[0.51, 0.51]]]
    for values in (one, two):
        (found,) = judge(scores(values, ("a",)), [0], [1])
        assert (found.verdict, found.tasks["task 0"].verdict) == (NOTHING, NOTHING)
        assert found.against[0].corrected is not None
        assert found.against[0].corrected > 0.05


def test_a_failure_everywhere_is_worse_even_with_three_seeds() -> None:
    """Differences that are cut off are all equal, in one family of four and against five baselines."""
    array = drawn([[0.0] * 4] * 6, seeds=3)
    died = np.zeros(array.shape, bool)
    array[0, 1], died[0, 1] = 0.0, True
    (found,) = judge(scores(array, tuple("abcd"), died), [0], range(1, 6))
    assert {each.test.mean for each in found.families["b"].against} == {-LARGEST}
    assert found.families["b"].verdict == WORSE
    array[0], died[0] = 0.0, True
    (found,) = judge(scores(array, tuple("abcd"), died), [0], range(1, 6))
    assert found.verdict == WORSE
    assert {family.verdict for family in found.families.values()} == {WORSE}


@pytest.mark.parametrize(("contenders", "seeds"), [(2, 2), (2, 3), (6, 2)])
def test_scores_of_few_examples_are_rarely_told_apart(contenders: int, seeds: int) -> None:
    """Equal rules whose scores are rounded to steps, of which a seed's deviation is a part or a few: 0.05 is the bound;
    0.075 of 600 is beyond it by three deviations of a count."""
    stream = np.random.default_rng(13)
    found = []
    for _ in range(600):
        place, deviation = stream.uniform(50, 51), stream.choice([0.3, 0.5, 1.0])
        values = np.round(place + deviation * stream.normal(size=(contenders, 1, seeds))) / 100
        found += judge(scores(values, ("a",)), [0], range(1, contenders))
    assert np.mean([each.verdict != NOTHING for each in found]) <= 0.075


def test_power_grows_with_the_effect() -> None:
    stream = np.random.default_rng(12)
    design = Design(families=3, cells=2, baselines=2, seeds=5)
    power = [
        rates([judge_one(simulated(design, "normal", effect, 3, stream)) for _ in range(60)])["better"]
        for effect in (0.5, 1.0, 2.0)
    ]
    assert power[0] < power[1] < power[2]
    assert power[2] > 0.9


def test_the_bench(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["bench", "prove", "--cases", "5", "--families", "2", "--cells", "1", "--baselines", "1", "--json"]) == 0
    )
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert set(figures["equal to all, heavy"]) == {"better", "worse", "family_better", "family_worse"}
    assert main(["bench", "prove", "--cases", "0"]) == 2
    assert "--cases 0 is below 1" in capsys.readouterr().err
