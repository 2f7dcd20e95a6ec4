"""The command constants: which numbers of a rule are tuned, in which coordinates, and whether that is shown to be better."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

import nos_ext
from nos_search.cli import main
from nos_search.constants import Constant, Constants, confirm, tune
from nos_search.errors import SearchError, UsageError
from nos_search.rules import CompiledRule, compile_rule
from nos_search.run import trainings
from nos_search.train.child import Outcome
from nos_search.train.evaluate import half_width

# --- which numbers, and where they stand -----------------------------------------------------------------------------

TWO_LINES = "def rule(p, g, m, *, lr):\n    m = 0.9 * m + 0.1 * g\n    return p - lr * m / (1 - 0.9 ** t), m"
LION = "def rule(p, g, m1, *, lr): x = 0.9 * m1 + 0.1 * g; return p - lr * sign(x), 0.99 * m1 + 0.01 * g"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("clip(g, 1e-05) + 0.25 * w", ["scale 1e-05", "scale 0.25"]),
        ("g * exp(0.5 * sign(g)) + drop(w, 0.3)", ["scale 0.5", "probability 0.3"]),
        ("sign(g) + w * -0.03", ["signed -0.03"]),
        ("g - 0.03 * w", ["scale 0.03"]),
        ("m_hat", ["decay 0.9"]),  # of the operand
        ("rmsprop * abs(adam)", ["decay 0.9", "decay 0.999"]),  # eps stays
        ("0.3 * adam + 0.7 * m_hat", ["decay 0.9", "decay 0.999", "decay 0.7"]),  # one average of two
        ("g ** 2 * sign(g) + 12 * g", ["scale 12"]),  # exponents and other small whole numbers stay
        (LION, ["decay 0.9", "decay 0.99"]),
        (TWO_LINES, ["decay 0.9"]),  # of the average and of its bias correction
        (TWO_LINES.replace("lr):", "lr, b=0.8, c=-0.5, tiny=1e-9, z=0.0):").replace("g\n", "g * b + c * tiny * z\n"), ["decay 0.8", "signed -0.5", "decay 0.9"]),
        ("def rule(p, g, m, *, lr): return p - lr * m, 0.95 * m + g", ["decay 0.95"]),
        ("def rule(p, g, m, *, lr): return p - lr * m, 0.2 * m + (1 - 0.2) * g", ["decay 0.2"]),
        ("def rule(p, g, m, *, lr): return p - lr * m, 0.999995 * m + 5e-06 * g", ["decay 0.999995"]),  # a weight
        ("adamw", ["decay 0.9", "decay 0.999", "scale 0.01"]),
        ("  def rule(p, g, *, lr):\n    x = 0.03 * p\n    return p - lr * (sign(g) + x)", ["scale 0.03"]),
    ],
)  # fmt: skip
def test_the_constants_of_a_rule(text: str, found: list[str]) -> None:
    constants = Constants.of(compile_rule(text))
    assert [f"{each.kind} {each.value:g}" for each in constants.tuned] == found
    assert constants.factors == ()


@pytest.mark.parametrize("text", ["clip(g, 1e-05) + 0.25 * w", LION, TWO_LINES, "adamw", "drop(adam, 0.3) - 0.03 * w"])
def test_at_the_origin_stands_the_rule_itself(text: str) -> None:
    rule = compile_rule(text)
    constants = Constants.of(rule)
    assert constants.at([0.0] * len(constants.tuned)).program.fingerprint == rule.program.fingerprint


def moved(text: str, x: list[float]) -> str:
    return Constants.of(compile_rule(text)).at(x).text


def test_constants_that_move() -> None:
    """By hand: a step of one doubles a scale, the rest of a decay, and the odds; a sign may change."""
    assert moved("clip(g, 1e-05) + 0.25 * w", [1, -1]) == "clip(g, 2e-05) + 0.125 * w"
    assert moved("sign(g) + w * -0.03", [1.5]) == "sign(g) + w * 0.015"
    assert moved("drop(g, 0.5) + 12 * w", [1, 0]) == "drop(g, 0.6667) + 12.0 * w"
    assert moved(TWO_LINES, [1]) == TWO_LINES.replace("0.9", "0.8").replace("0.1 *", "0.2 *")
    assert moved(LION, [-1, 1]) == LION.replace("0.99 *", "0.98 *").replace("0.01 *", "0.02 *").replace(
        "x = 0.9 * m1 + 0.1 *", "x = 0.95 * m1 + 0.05 *"
    )
    slow = "def rule(p, g, m, *, lr): return p - lr * m, 0.999995 * m + 5e-06 * g"
    assert moved(slow, [1]) == slow.replace("0.999995", "0.99999").replace("5e-06", "1e-05")
    assert "beta1=0.8, beta2=0.9995" in moved("adam * sign(g)", [1, -1])
    assert "beta1=0.9, beta2=0.998, weight_decay=0.02" in moved("adamw", [0, 1, 1]).replace("eps=1e-08, ", "")


def test_every_point_within_the_bounds_is_a_rule() -> None:
    for text in ("drop(adam, 0.3) * -0.5 - 0.03 * w + clip(m, 0.001)", LION, "powersign", TWO_LINES):
        constants = Constants.of(compile_rule(text))
        low, high = np.array([each.bounds for each in constants.tuned]).T
        assert (low <= 0).all()
        assert (high >= 0).all()
        for x in (low, high, *np.random.RandomState(1).uniform(low, high, (20, len(low)))):
            values = constants.values([float(u) for u in x])
            for each, value in zip(constants.tuned, values, strict=True):
                assert math.isfinite(value)
                assert each.kind in ("scale", "signed") or 0 < value < 1
            assert set(nos_ext.compile_rule(constants.at([float(u) for u in x]).text).hyperparameters) >= {"lr"}


def test_coordinates_go_back_and_forth() -> None:
    """The value at a coordinate against the definition, in the units that the module names."""
    decay, odds = Constant("d", "decay", 0.9, ()), Constant("p", "probability", 0.2, ())
    for x in (-3.0, -0.5, 0.0, 0.7, 2.0):
        assert math.log2((1 - decay.at(x)) / 0.1) == pytest.approx(x, abs=1e-3)
        assert math.log2(odds.at(x) / (1 - odds.at(x)) / 0.25) == pytest.approx(x, abs=5e-3)
        assert math.log2(Constant("s", "scale", 3.0, ()).at(x) / 3) == pytest.approx(x, abs=1e-3)
        assert Constant("n", "signed", -3.0, ()).at(x) == pytest.approx(-3 + 3 * x, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g", "g has no constants to tune; whole numbers up to 10 and numbers below 1e-05 are left as they are"),
        ("2 * g + w", "has no constants to tune"),
        ("signsgd", "has no constants to tune"),
        ("sign(g) * 0.5", r"no constants to tune but 0.5 in sign\(g\) \* 0.5, which the learning rate makes up for"),
    ],
)
def test_rules_without_constants(text: str, message: str) -> None:
    if text == "signsgd":
        text = "def signsgd(p, g, *, lr): return p - lr * sign(g)"
    with pytest.raises(UsageError, match=message):
        Constants.of(compile_rule(text))


def test_a_factor_of_the_update_is_a_learning_rate() -> None:
    constants = Constants.of(compile_rule("0.3 * (adam + 0.2 * g)"))
    assert [each.value for each in constants.tuned] == [0.9, 0.999, 0.2]
    assert [each.value for each in constants.factors] == [0.3]
    # of two terms neither is one
    assert not Constants.of(compile_rule("0.3 * adam + 0.2 * g")).factors


# --- the search ------------------------------------------------------------------------------------------------------


class Trainer:
    """This stands for trainings: the score of a rule is `worth(values of its hyperparameters, task)`, with noise that
    seeds share, and less of its own. `asked` has (stage, rules, seeds) of each population."""

    def __init__(self, worth: Callable[[Mapping[str, float], str], float], tasks: Sequence[str] = ("t",)) -> None:
        self._worth, self._tasks = worth, tasks
        self.asked: list[tuple[str, list[str], list[int]]] = []

    def __call__(
        self, stage: str, rules: Sequence[CompiledRule], seeds: Sequence[int]
    ) -> list[dict[str, list[Outcome]]]:
        self.asked.append((stage, [rule.text for rule in rules], list(seeds)))
        return [{task: [self._outcome(rule, seed, task) for seed in seeds] for task in self._tasks} for rule in rules]

    def _outcome(self, rule: CompiledRule, seed: int, task: str) -> Outcome:
        values = {name: value for name, value in rule.program.hyperparameters.items() if value is not None}
        luck = np.random.RandomState(seed).normal() * 0.02
        own = np.random.RandomState((seed * 7919 + crc32(rule.program.fingerprint.encode())) % 2**32).normal() * 0.002
        score = min(1.0, max(0.0, self._worth(values, task) + luck + own))
        return Outcome("done", score, 0.1, {}, score)


RULE = "def rule(p, g, m, *, lr, b=0.9, c=0.5):\n    m = b * m + (1 - b) * g\n    return p - lr * (m + c * g), m"


def bowl(values: Mapping[str, float], task: str = "t") -> float:
    """Best at b = 0.98 and c = 0.05, both some steps of two away from where the rule has them."""
    far = math.hypot(math.log2((1 - values["b"]) / 0.02), math.log2(values["c"] / 0.05))
    return 0.6 - 0.02 * far


def run(trainer: Trainer, rule: str = RULE, generations: int = 8, population: int = 32, seed: int = 1):  # type: ignore[no-untyped-def]
    seeds = [[100 * k + 1, 100 * k + 2] for k in range(1, generations + 1)]
    return tune(
        Constants.of(compile_rule(rule)),
        trainer,
        generations=seeds,
        choice=list(range(10_001, 10_011)),
        population=population,
        seed=seed,
    )


def test_the_best_constants_are_found() -> None:
    trainer = Trainer(bowl)
    found = run(trainer)
    best = found.best.rule.program.hyperparameters
    assert bowl(best) > 0.585  # of 0.6, where the given rule has 0.53
    assert found.best.differences["t"].mean == pytest.approx(bowl(best) - bowl({"b": 0.9, "c": 0.5}), abs=0.003)
    assert found.best.values == pytest.approx([best["b"], best["c"]])
    assert [each.scores["t"] for each in found.finalists] == sorted(
        (each.scores["t"] for each in found.finalists), reverse=True
    )
    assert found.generations[-1].median["t"] > found.generations[0].median["t"]
    # one population in each generation, on seeds of its own, and the given rule beside it
    stages = [stage for stage, _, _ in trainer.asked]
    assert stages == [*(f"generation-{k:02}" for k in range(1, 9)), "choice"]
    assert [len(rules) for _, rules, _ in trainer.asked[:-1]] == [33] * 8
    assert all(rules[0] == RULE for _, rules, _ in trainer.asked)
    every = [seed for _, _, seeds in trainer.asked for seed in seeds]
    assert len(every) == len(set(every))
    last = confirm(compile_rule(RULE), found.best.rule, trainer, list(range(20_001, 20_011)))
    assert last.better


def test_equal_seeds_find_equal_constants() -> None:
    one, two, other = (run(Trainer(bowl), generations=3, population=8, seed=seed) for seed in (1, 1, 2))
    assert [each.values for each in one.generations] == [each.values for each in two.generations]
    assert one.best == two.best
    assert [each.values for each in one.generations] != [each.values for each in other.generations]


def test_one_constant_is_enough() -> None:
    found = run(
        Trainer(lambda values, task: 0.6 - 0.05 * abs(math.log2((1 - values["b"]) / 0.02))),
        RULE.replace("c * g", "g").replace(", c=0.5", ""),
    )
    assert found.best.values[0] == pytest.approx(0.98, abs=0.005)


def test_nothing_is_shown_where_nothing_matters() -> None:
    """All sets are equally good: the choice is luck, and fresh seeds say so."""
    trainer = Trainer(lambda values, task: 0.5)
    found = run(trainer, generations=3, population=8)
    better = sum(
        confirm(compile_rule(RULE), found.best.rule, trainer, list(range(1000 * k, 1000 * k + 10))).better
        for k in range(1, 9)
    )
    assert better <= 1  # one in forty would be expected


def test_the_last_word_is_a_paired_interval() -> None:
    trainer = Trainer(bowl)
    given, tuned = compile_rule(RULE), compile_rule(RULE.replace("0.9", "0.95"))
    seeds = list(range(1, 13))
    last = confirm(given, tuned, trainer, seeds)
    (_, rules, _) = trainer.asked[0]
    assert rules == [given.text, tuned.text]
    theirs, mine = ([o.test for o in found["t"]] for found in trainer("", [given, tuned], seeds))
    gaps = [a - b for a, b in zip(mine, theirs, strict=True)]  # type: ignore[operator]
    assert last.differences["t"].mean == pytest.approx(np.mean(gaps))
    assert last.differences["t"].half == pytest.approx(half_width(gaps))
    assert last.better == (np.mean(gaps) > (half_width(gaps) or 0))


def test_better_on_one_of_two_tasks_is_not_better() -> None:
    def worth(values: Mapping[str, float], task: str) -> float:
        return 0.5 + (0.1 if task == "a" else -0.01) * (values["b"] > 0.9)

    trainer = Trainer(worth, ("a", "b"))
    given, tuned = compile_rule(RULE), compile_rule(RULE.replace("0.9", "0.95"))
    last = confirm(given, tuned, trainer, list(range(1, 21)))
    assert last.differences["a"].low > 0
    assert not last.better


def test_several_tasks_count_alike() -> None:
    """By ranks two tasks outvote a third, on which scores differ a hundred times more: the best b is 0.8 for them."""
    tasks = ("wide", "narrow", "as narrow")

    def worth(values: Mapping[str, float], task: str) -> float:
        far = abs(math.log2((1 - values["b"]) / (0.02 if task == "wide" else 0.2)))
        return 0.9 - (0.1 if task == "wide" else 0.001) * far

    class Quiet(Trainer):
        def _outcome(self, rule: CompiledRule, seed: int, task: str) -> Outcome:
            score = max(0.0, worth({"b": rule.program.hyperparameters["b"] or 0.0}, task))
            return Outcome("done", score, 0.1, {}, score)

    one = RULE.replace("c * g", "g").replace(", c=0.5", "")
    assert run(Quiet(worth, tasks), one).best.values[0] == pytest.approx(0.8, abs=0.01)
    assert run(Quiet(worth, tasks[:1]), one).best.values[0] == pytest.approx(0.98, abs=0.002)


def test_sets_that_never_train() -> None:
    with pytest.raises(SearchError, match="scores 0 with all sets of constants; there is nothing to tune"):
        run(Trainer(lambda values, task: -1.0))


# --- the command -----------------------------------------------------------------------------------------------------

TINY = ["--tasks", "digits", "--net", "mlp-1-8", "--sweep-steps", "4", "--train-steps", "8"]
FEW = ["--population", "6", "--generations", "2", "--generation-seeds", "1", "--seeds", "3"]


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    try:
        status = main([str(arg) for arg in args])
    except SystemExit as leave:
        status = int(leave.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text and as JSON; a second call trains nothing, and workers come to the same."""
    place = tmp_path / "made" / "here"
    line = ["constants", "drop(adam, 0.3) + 0.2 * m", *FEW, *TINY, "--out", place]
    status, out, err = call(capsys, *line)
    assert status == 0, err
    rows = out.splitlines()
    assert rows[0].split() == ["constant", "varies", "as", "given", "tuned", "lowest", "highest"]
    assert [row.split()[0] for row in rows[1:3]] == ["beta1", "beta2"]
    assert "best of 3 sets after 2 generations of 6, with 3 seeds, on validation data:" in rows
    assert "again with 3 other seeds, on test data:" in rows
    assert "generation 2 of 2: digits best 0." in err

    def refuse(*args: object) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(trainings, "score", refuse)
        status, again, err = call(capsys, *line, "--json")
    assert status == 0, err
    data = json.loads(again)
    assert data == json.loads((place / "constants.json").read_text())
    assert (place / "rule.txt").read_text().strip() == data["result"].strip()
    mean, half = data["confirmed"]["differences"]["digits"]
    assert data["better"] == (mean - half > 0)
    assert data["result"] == (data["finalists"][0]["rule"] if data["better"] else data["rule"])
    last = "better constants: " if data["better"] else "no better constants shown: "
    assert any(row.startswith(last) for row in rows)
    assert len(data["generations"]) == 2
    assert len({tuple(each["values"]) for each in data["generations"]}) == 2
    assert all(compile_rule(each["rule"]) for each in data["finalists"])
    status, other, err = call(capsys, *line[:-2], "--json", "--workers", 2)
    assert status == 0, err
    assert json.loads(other) == data


def test_an_interrupted_command_goes_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was finished is trained again, and the result is that of the unbroken command."""
    trained: list[tuple[str, int]] = []
    most = [10**6]

    def remember(rule: CompiledRule, task: object, protocol: object, *, seed: int, **options: object) -> Outcome:
        if len(trained) == most[0]:
            raise KeyboardInterrupt
        trained.append((rule.text, seed))
        score = 0.5 + 0.1 * np.random.RandomState(crc32(f"{seed} {rule.program.fingerprint}".encode())).rand()
        return Outcome("done", score, 0.1, {"val_loss": [1.0]}, score)

    monkeypatch.setattr(trainings, "score", remember)
    line = ["constants", "m + 0.3 * w", *FEW, *TINY, "--threads", 1, "--json"]
    status, whole, err = call(capsys, *line, "--out", tmp_path / "whole")
    assert status == 0, err
    want = list(trained)
    trained.clear()
    for finished, most[0] in ((4, 4), (5, 9), (11, 20)):
        status, out, err = call(capsys, *line, "--out", tmp_path / "parts")
        assert (status, out) == (130, "")
        assert f"{finished} trainings were finished by this call, and are kept in {tmp_path / 'parts'}: the same" in err
    most[0] = 10**6
    status, parts, err = call(capsys, *line, "--out", tmp_path / "parts")
    assert status == 0, err
    assert (trained, parts) == (want, whole)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["sign(g)"], "has no constants to tune"),
        (["nonsense"], "rule 'nonsense' is not valid"),
        (["m", "--population", "3"], "--population 3 is below 4"),
        (["m", "--generations", "0"], "--generations 0 is below 1"),
        (["m", "--seeds", "2"], "--seeds 2 is below 3; an interval needs a spread"),
        (["m", "--tasks", "mnist"], "--tasks 'mnist' is not known"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], args: list[str], message: str) -> None:
    status, out, err = call(capsys, "constants", *args)
    assert (status, out) == (2, "")
    assert message in err


def test_the_last_word_has_more_rates(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarse sweep would be a lottery that constants could win by shifting the best rate."""
    seen = []

    def remember(rule: CompiledRule, task: object, protocol: object, **options: object) -> Outcome:
        seen.append((protocol.sweep, len(protocol.learning_rates)))  # type: ignore[attr-defined]
        return Outcome("done", 0.5, 0.1, {}, 0.5)

    monkeypatch.setattr(trainings, "score", remember)
    assert call(capsys, "constants", "m + 0.3 * w", *FEW, *TINY)[0] == 0
    assert set(seen) == {("fine", 7), ("halving", 43)}
    assert seen[-6:] == [("halving", 43)] * 6
    assert seen.count(("halving", 43)) == 6
