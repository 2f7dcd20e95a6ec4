"""The command simplify: what can be left out of a rule, when that shows no loss, and the chain of it all."""

from __future__ import annotations

import errno
import json
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from nos_ext.rule.shorthand import OPERANDS
from nos_ext.rule.table import OPS
from nos_search.cli import main
from nos_search.cli.kept import KeptResult
from nos_search.errors import SearchError, UsageError
from nos_search.gate.rules import faults
from nos_search.rules import CompiledRule, compile_rule
from nos_search.run import trainings
from nos_search.simplify import loss, reduce, reductions, simplify
from nos_search.store import files
from nos_search.task import Task
from nos_search.train.child import Outcome
from nos_search.train.evaluate import half_width

# --- what can be left out --------------------------------------------------------------------------------------------


def keys(*texts: str) -> set[str]:
    return {compile_rule(text).key for text in texts}


def reduced(text: str) -> dict[str, str]:
    """What is left of the rule, by canonical key, with what was removed."""
    return {each.rule.key: each.removed for each in reductions(compile_rule(text))}


def test_every_op_and_operand_has_its_row() -> None:
    assert set(reduce.KEPT) == set(OPS)
    assert set(reduce.PLAINER) == set(OPERANDS)
    for op, kept in reduce.KEPT.items():
        assert all(0 <= k < OPS[op].arity for k in kept)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("rmsprop + drop(m_hat, 0.1)", ["(rmsprop)", "drop(m_hat, 0.1)", "rmsprop + m_hat", "rmsprop + drop(g, 0.1)"]),
        ("g * sqrt(abs(adam))", ["g", "g * sqrt(abs(m_hat))", "g * sqrt(abs(rmsprop))", "g * abs(adam)"]),
        ("clip(sign(m), 0.5)", ["sign(m)", "clip(m, 0.5)", "clip(sign(g), 0.5)"]),
        ("m_hat * exp(ld * sign(g) * sign(m))", ["m_hat", "m_hat * exp(sign(g) * sign(m))", "m_hat * exp(ld * sign(g))"]),
        ("g * 1.0375 / (0.123 + sqrt(v_hat))", ["g / (0.123 + sqrt(v_hat))", "1.0375 * g / (0.1 + sqrt(v_hat))"]),
        ("where(g > m, g, sign(g))", ["g", "sign(g)", "where(g > m, g, g)", "where(g > g, g, sign(g))"]),
        ("max(g, m) - min(0.1 * g, v)", ["max(g, m)", "g - min(0.1 * g, v)", "m - min(0.1 * g, v)", "max(g, m) - v"]),
        ("rmsprop + 0 * w", ["(rmsprop)", "g + 0 * w"]),
    ],
)  # fmt: skip
def test_one_thing_is_left_out(text: str, left: list[str]) -> None:
    """By hand, in rule text: each of these is among the reductions, as far as algebra can tell."""
    missing = keys(*left) - reduced(text).keys()
    assert not missing, [each for each in left if compile_rule(each).key in missing]


@pytest.mark.parametrize("text", ["rmsprop * sqrt(abs(sqrt(abs(adam))))", "drop(adam, 0.3) - clip(g, 1e-5)", "adamw"])
def test_what_is_left_is_simpler_and_each_one_stands_once(text: str) -> None:
    rule = compile_rule(text)
    found = reductions(rule)
    sizes = [reduce.size(each.rule) for each in found]
    assert sizes == sorted(sizes)
    assert all(size < reduce.size(rule) for size in sizes)
    assert len({each.key for each in found}) == len(found)
    assert not any(faults([each.rule for each in found]))
    assert all(compile_rule(each.rule.text).key == each.rule.key for each in found)


def test_a_rule_of_one_operand_is_no_library_rule() -> None:
    found = {each.rule.text: each.rule.key for each in reductions(compile_rule("adam * sign(m_hat)"))}
    assert found["(adam)"] == compile_rule("m_hat / (sqrt(v_hat) + eps)").key != compile_rule("adam").key


def test_gates_say_what_is_no_rule() -> None:
    texts = ["g", "w", "-g", "g / (g - g)", "sqrt(g)"]
    assert faults([compile_rule(text) for text in texts]) == [
        "", "gradient has no effect", "does not descend", "not finite", "not finite",
    ]  # fmt: skip
    assert faults([]) == []


def test_rules_with_all_the_states_that_there_can_be() -> None:
    """Each of its averages gives way to what it averages, and what is left passes the gates on its own merits."""
    names = [f"s{k}" for k in range(8)]
    averages = ", ".join(f"0.{k + 1} * {name} + 0.{9 - k} * g" for k, name in enumerate(names))

    def rule(update: str) -> CompiledRule:
        return compile_rule(f"def wide(p, g, {', '.join(names)}, *, lr): return p - lr * ({update}), {averages}")

    total = " + ".join(names)
    assert faults([rule(total), compile_rule("w"), rule(f"0 * g - ({total})"), rule(f"p + 0 * ({total})")]) == [
        "", "gradient has no effect", "does not descend", "gradient has no effect",
    ]  # fmt: skip
    found = reductions(rule(f"tanh({total})"))
    assert max(len(each.rule.program.state_names) for each in found) == 8
    assert rule(total).key in {each.rule.key for each in found}


def test_a_rule_that_is_too_long_for_the_gates() -> None:
    body = "\n".join(["    u = min(g, lr)", *["    u = tanh(u)"] * 4093])
    rule = compile_rule(f"def long(p, g, *, lr):\n{body}\n    return tanh(p + u)")
    assert len(rule.program) == 4096
    (fault, none) = faults([rule, compile_rule("g")])
    assert "too long to try: the rule has 4097 instructions" in fault
    assert none == ""


def test_library_rules_lose_states_and_hyperparameters() -> None:
    found = {each.removed: each for each in reductions(compile_rule("lion"))}
    plain = found["1 - lr * weight_decay -> 1"]
    assert plain.key == reduce.key_of(compile_rule("lion"))  # the default is 0
    assert plain.rule.program.hyperparameters.keys() == {"lr", "beta1", "beta2"}
    alone = found["beta1 * m + (1 - beta1) * g -> (1 - beta1) * g"]
    assert alone.rule.program.state_names == ()
    assert "weight_decay" in alone.rule.program.hyperparameters
    averages = {each.removed for each in reductions(compile_rule("adam")) if len(each.rule.program.state_names) == 1}
    assert {
        "beta1 * m + (1 - beta1) * (g + weight_decay * p) -> g + weight_decay * p",
        "beta2 * v + (1 - beta2) * (g + weight_decay * p) ** 2 -> (g + weight_decay * p) ** 2",
    } <= averages
    # no rule of them has lost its learning rate, or p itself
    for name in ("adam", "adamw", "lion", "powersign", "momentum"):
        for each in reductions(compile_rule(name)):
            text = each.rule.program.to_text()
            assert "lr *" in text or "lr /" in text, text
            assert "return p" in text, text


# --- when is there a loss? -------------------------------------------------------------------------------------------


def test_intervals_of_other_confidence() -> None:
    """Student's t from the printed tables: 1.886, 1.638 and 1.383 for 80 % and 2, 3 and 9 degrees."""
    for count, quantile in ((3, 1.886), (4, 1.638), (10, 1.383)):
        values = [math.sin(k) for k in range(count)]
        want = quantile * statistics.stdev(values) / math.sqrt(count)
        assert half_width(values, 0.8) == pytest.approx(want, rel=1e-3)


def test_non_inferiority() -> None:
    gaps = [0.01, -0.02, 0.0, 0.01, -0.01]
    half = 2.776 * statistics.stdev(gaps) / math.sqrt(5)
    found = loss.difference(gaps)
    assert (found.mean, found.half, found.seeds) == (pytest.approx(-0.002), pytest.approx(half, rel=1e-3), 5)
    assert loss.shows_no_loss(gaps, half + 0.0021)
    assert not loss.shows_no_loss(gaps, half + 0.0019)
    assert loss.shows_no_loss([0.0, 0.0, 0.0], 0.0)  # equal rules, a margin of nothing
    assert not loss.hopeless(gaps, 0.001)
    assert loss.hopeless([gap - 0.1 for gap in gaps], 0.01)
    assert loss.margin_of([0.3, 0.4, 0.5]) == pytest.approx(0.05)
    assert loss.stages(3) == [3]
    assert loss.stages(20) == [3, 6, 12, 20]


# --- the chain -------------------------------------------------------------------------------------------------------


class Trainer:
    """This stands for trainings: a rule's score is `worth(text, seed)`, with noise that seeds share and a little of its
    own. `trained` has what was asked for, in order."""

    def __init__(self, worth: Callable[[str, int, str], float], tasks: Sequence[str] = ("t",)) -> None:
        self._worth, self._tasks = worth, tasks
        self.trained: list[tuple[str, int]] = []

    def __call__(self, rule: CompiledRule, seeds: Sequence[int]) -> Mapping[str, Sequence[Outcome]]:
        self.trained += [(rule.text, seed) for seed in seeds]
        return {task: [self._outcome(rule.text, seed, task) for seed in seeds] for task in self._tasks}

    def _outcome(self, text: str, seed: int, task: str) -> Outcome:
        luck = np.random.RandomState(seed).normal() * 0.01
        own = np.random.RandomState(seed * 7919 + len(text)).normal() * 0.001
        score = self._worth(text, seed, task) + luck + own
        return Outcome("done", score, 0.1, {}, score - 0.02)


SEEDS, FRESH = list(range(1, 11)), list(range(101, 111))


def test_ornaments_go_and_what_matters_stays() -> None:
    """Of rmsprop the root mean square matters, and nothing else of the rule."""
    trainer = Trainer(lambda text, seed, task: 0.5 if "rmsprop" in text else 0.4)
    chain = simplify(compile_rule("drop(rmsprop, 0.1) + clip(m, 1e-5) * m_hat"), trainer, seeds=SEEDS, fresh=FRESH)
    assert chain.result.text == "(rmsprop)"
    assert [step.rule.text for step in chain.steps][-1] == "(rmsprop)"
    assert chain.steps[0].removed == ""
    assert [step.removed for step in chain.steps[1:]] == [
        "drop(rmsprop, 0.1) + clip(m, 1e-05) * m_hat -> drop(rmsprop, 0.1)",
        "drop(rmsprop, 0.1) -> rmsprop",
    ]
    assert [step.rule.text for step in chain.confirmed] == ["(rmsprop)"]
    assert chain.steps[0].scores["t"] == pytest.approx(0.5, abs=0.01)
    assert chain.margins["t"] == pytest.approx(0.005, rel=0.5)  # half of the seeds' deviation
    # what was refused: after three seeds, as it is ten deviations worse
    assert {"rmsprop -> g"} <= {step.removed for step in chain.refused}
    assert all(step.differences["t"].seeds == 3 for step in chain.refused)
    assert len(trainer.trained) == len(set(trainer.trained))  # nothing was trained twice
    assert {seed for _, seed in trainer.trained} == {*SEEDS, *FRESH}


def test_small_losses_do_not_add_up() -> None:
    """Each of four clips is worth 0.4 of the margin: the third is not taken, though the step alone loses less."""
    margin = 0.01
    trainer = Trainer(lambda text, seed, task: 0.5 + 0.4 * margin * text.count("tanh") if "m" in text else 0.0)
    rule = compile_rule("tanh(m * tanh(m * tanh(m * tanh(m))))")
    chain = simplify(rule, trainer, seeds=SEEDS, fresh=FRESH, margin=margin)
    assert chain.result.text.count("tanh") == 2
    assert chain.margins == {"t": margin}


def test_nothing_to_leave_out() -> None:
    trainer = Trainer(lambda text, seed, task: 0.5 if text == "g + 0.5 * m" else 0.1)
    chain = simplify(compile_rule("g + 0.5 * m"), trainer, seeds=SEEDS, fresh=FRESH)
    assert [step.rule.text for step in chain.steps] == ["g + 0.5 * m"]
    assert chain.confirmed == []
    assert chain.result is chain.steps[0].rule
    assert not {seed for _, seed in trainer.trained} & set(FRESH)


def test_what_is_equal_by_algebra_is_not_trained() -> None:
    trainer = Trainer(lambda text, seed, task: 0.5 if "m_hat" in text else 0.1)
    chain = simplify(compile_rule("m_hat + 0 * w"), trainer, seeds=SEEDS, fresh=FRESH)
    assert [step.rule.text for step in chain.steps] == ["m_hat + 0 * w", "m_hat"]
    assert ("m_hat", SEEDS[0]) not in trainer.trained
    assert ("m_hat", FRESH[0]) in trainer.trained


def test_luck_does_not_last() -> None:
    """What was good on the seeds of the walk alone is not the result, but the step before it is, or the given rule."""
    rule = compile_rule("drop(m, 0.2)")
    lucky = Trainer(lambda text, seed, task: 0.4 if text == "g" and seed > 100 else 0.5)
    chain = simplify(rule, lucky, seeds=SEEDS, fresh=FRESH)
    assert [step.rule.text for step in chain.steps] == ["drop(m, 0.2)", "drop(g, 0.2)", "g"]
    assert [step.rule.text for step in chain.confirmed] == ["g", "drop(g, 0.2)"]
    assert chain.result.text == "drop(g, 0.2)"
    luckier = Trainer(lambda text, seed, task: 0.4 if "m" not in text and seed > 100 else 0.5)
    chain = simplify(rule, luckier, seeds=SEEDS, fresh=FRESH)
    assert [step.rule.text for step in chain.confirmed] == ["g", "drop(g, 0.2)"]
    assert chain.result is chain.steps[0].rule is rule


def test_a_step_that_is_better_is_told_of() -> None:
    """The margin forgives what the last step loses. Which step is better is said by paired differences on fresh seeds."""
    worth = {"tanh(drop(m, 0.2))": 0.5, "drop(m, 0.2)": 0.52, "drop(g, 0.2)": 0.5, "g": 0.5}

    def fresh_only(text: str, seed: int, task: str) -> float:
        return worth.get(text, 0.1) if seed > 100 else 0.5 * (text in worth)

    trainer = Trainer(fresh_only)
    chain = simplify(compile_rule("tanh(drop(m, 0.2))"), trainer, seeds=SEEDS, fresh=FRESH)
    assert [step.rule.text for step in chain.steps] == list(worth)
    assert chain.result.text == "g"
    assert [step.rule.text for step in chain.confirmed] == ["g"]
    (better,) = (each for each in chain.better if each.differences["t"].mean > 0.01)
    assert (better.number, better.rule.text) == (1, "drop(m, 0.2)")
    tests = {
        text: [out.test or 0.0 for out in trainer(compile_rule(text), FRESH)["t"]] for text in ("drop(m, 0.2)", "g")
    }
    gaps = np.subtract(tests["drop(m, 0.2)"], tests["g"])
    assert better.differences["t"].mean == pytest.approx(gaps.mean())
    assert better.differences["t"].half == pytest.approx(2.262 * gaps.std(ddof=1) / math.sqrt(10), rel=1e-3)
    assert better.scores["t"] == pytest.approx(np.mean(tests["drop(m, 0.2)"]))


def test_what_is_better() -> None:
    up, down, none = (loss.Difference(mean, 0.1, 5) for mean in (0.2, -0.2, 0.05))
    assert loss.beats([up])
    assert loss.beats([up, none])
    assert not loss.beats([none])
    assert not loss.beats([down])
    assert not loss.beats([up, down])


def test_a_loss_on_one_of_two_tasks_is_a_loss() -> None:
    worth = {("a", "m"): 0.5, ("a", "g"): 0.5, ("b", "m"): 0.5, ("b", "g"): 0.3}
    trainer = Trainer(lambda text, seed, task: worth[task, "m" if "m" in text else "g"], tasks=("a", "b"))
    chain = simplify(compile_rule("drop(m, 0.2)"), trainer, seeds=SEEDS, fresh=FRESH)
    assert chain.result.text == "m"
    refused = {step.rule.text: step for step in chain.refused}["g"]
    assert refused.differences["b"].mean == pytest.approx(-0.2, abs=0.01)


def test_a_rule_that_never_trains_has_nothing_to_keep() -> None:
    def nothing(rule: CompiledRule, seeds: Sequence[int]) -> Mapping[str, Sequence[Outcome]]:
        return {"t": [Outcome("diverged", 0.0, None) for _ in seeds]}

    with pytest.raises(SearchError, match=r"g \* m scores 0 on t with every seed; there is nothing to keep"):
        simplify(compile_rule("g * m"), nothing, seeds=SEEDS, fresh=FRESH)


# --- the command -----------------------------------------------------------------------------------------------------

TINY = ["--tasks", "digits", "--net", "mlp-1-8", "--seeds", "3", "--sweep-steps", "4", "--train-steps", "8"]


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    try:
        status = main([str(arg) for arg in args])
    except SystemExit as leave:
        status = int(leave.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_the_chain_as_it_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a margin that forgives everything the chain ends at the simplest rule; a second call trains nothing."""
    place = tmp_path / "made" / "here"
    line = ["simplify", "adam + 0 * w", "--margin", 2, "--out", place, *TINY]
    status, out, err = call(capsys, *line)
    assert status == 0
    rows = out.splitlines()
    assert rows[0] == "digits: a loss above 2.0000 counts; 3 seeds, validation data"
    assert rows[1].split() == ["step", "size", "digits", "difference", "removed", "rule"]
    assert rows[2].lstrip().startswith("0 ")
    assert "as given" in rows[2]
    assert rows[2].endswith("adam + 0 * w")
    assert "adam + 0 * w -> adam" in rows[3]
    assert rows[-1] == "simplest rule that shows no loss: g"
    assert "step 1: (adam)" in err
    assert (place / "rule.txt").read_text() == "g\n"

    def refuse(*args: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(trainings, "score", refuse)
    status, again, err = call(capsys, *line, "--json")
    assert status == 0, err
    assert "finished training(s); those of this command are not repeated" in err
    data = json.loads(again)
    assert data == json.loads((place / "chain.json").read_text())
    assert (data["rule"], data["result"], data["seeds"]) == ("adam + 0 * w", "g", 3)
    assert [row["rule"] for row in data["chain"]][:2] == ["adam + 0 * w", "(adam)"]
    assert data["chain"][0]["differences"] == {}
    assert data["confirmed"][0]["rule"] == "g"
    for row in data["confirmed"]:
        mean, half = row["differences"]["digits"]
        assert abs(mean) <= 1
        assert half >= 0


def test_an_interrupted_walk_says_what_it_keeps(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trainings.score, []

    def interrupted(*args: object, **kwargs: object) -> Outcome:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(args)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(trainings, "score", interrupted)
    words = ["simplify", "g * m", "--threads", 1, *TINY]
    status, out, err = call(capsys, *words)
    assert (status, out) == (130, "")
    assert "4 trainings were finished by this call, and are not kept: see --out" in err
    calls.clear()
    status, _, err = call(capsys, *words, "--out", tmp_path / "out")
    assert status == 130
    assert f"4 trainings were finished by this call, and are kept in {tmp_path / 'out'}: the same command goes" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["trainings.json"]
    calls.clear()
    monkeypatch.setattr(trainings, "score", real)
    status, out, err = call(capsys, *words, "--out", tmp_path / "out")
    assert status == 0
    assert "trainings.json has 4 finished training(s)" in err


def test_a_folder_is_for_one_rule(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is found for another rule, or by another command, takes the place of nothing."""
    words = ["--margin", 2, "--out", tmp_path, *TINY]
    assert call(capsys, "simplify", "g * m", *words)[0] == 0
    there = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    others = ["--population", "6", "--generations", "2", "--out", tmp_path, *TINY]
    for command, rest, said in (
        (
            "simplify",
            words,
            "has what simplify found for the rule 'g * m', not for 'adam + 0.3'; choose another folder",
        ),
        ("constants", others, "has a file rule.txt that constants has not left there, or that was changed; choose"),
    ):
        status, out, err = call(capsys, command, "adam + 0.3", *rest)
        assert (status, out) == (2, "")
        assert f"--out {tmp_path} {said}" in err
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == there
    status, _, err = call(capsys, "simplify", "g * m", *words, "--seeds", "4")  # the same rule goes on
    assert status == 0
    assert f"{tmp_path / 'chain.json'} had the result of other rules or settings, which this one replaces" in err
    status, _, err = call(capsys, "simplify", "g * m", *words, "--seeds", "4")
    assert "which this one replaces" not in err


@pytest.mark.parametrize("name", ["rule.txt", "chain.json"])
def test_a_file_of_the_user_is_not_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    """Such as the rule itself, which is read from the folder that then takes the result."""
    (tmp_path / name).write_text("g * m\n")
    status, out, err = call(capsys, "simplify", f"@{tmp_path / name}", "--out", tmp_path, *TINY)
    assert (status, out) == (2, "")
    assert name in err
    assert "move it away" in err
    assert (tmp_path / name).read_text() == "g * m\n"
    assert len(list(tmp_path.iterdir())) == 1


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_folder_is_taken_up_wherever_its_writing_was_stopped(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another result takes the place of the first. A rule that the user changed is refused all the same."""
    given, folder = compile_rule("adam + 0 * w"), str(tmp_path)

    def kept() -> KeptResult:
        kept = KeptResult(folder, "simplify", "chain.json", given)
        kept.check()
        return kept

    def finish(kept: KeptResult, text: str) -> None:
        document = json.dumps({"format": 1, "rule": given.text, "result": text})
        kept.finish(document, compile_rule(text), "")

    def shortly(real: Callable[..., None]) -> Callable[..., None]:
        def one(*args: object) -> None:
            done.append(args)
            if len(done) > steps:
                raise Killed
            real(*args)

        return one

    for text in ("(adam)", "g", "g", "m"):
        done: list[object] = []
        with monkeypatch.context() as patched:
            patched.setattr(files, "write", shortly(files.write))
            patched.setattr(Path, "unlink", shortly(Path.unlink))
            with suppress(Killed):
                finish(kept(), text)
        finish(kept(), text)
        assert (tmp_path / "rule.txt").read_text() == f"{text}\n"
        assert json.loads((tmp_path / "chain.json").read_text())["result"] == text
    (tmp_path / "rule.txt").write_text("g * m\n")
    with pytest.raises(UsageError, match=r"has a file rule.txt that simplify has not left there, or that was changed"):
        kept()


def test_a_rule_is_not_written_beside_the_document_of_another(tmp_path: Path) -> None:
    """Where the document cannot be written, its rule is not, and the result is printed; and the same goes on."""
    given, folder = compile_rule("adam + 0 * w"), str(tmp_path)
    for text, fails in (("(adam)", False), ("g", True), ("g", False)):
        kept = KeptResult(folder, "simplify", "chain.json", given)
        kept.check()
        document = json.dumps({"format": 1, "rule": given.text, "result": text})
        with pytest.MonkeyPatch.context() as patched:
            if fails:
                patched.setattr(files, "_replace", no_room)
                with pytest.raises(SearchError, match=r"chain.json cannot be written: No space left"):
                    kept.finish(document, compile_rule(text), "shown")
                continue
            kept.finish(document, compile_rule(text), "shown")
        assert (tmp_path / "rule.txt").read_text() == f"{text}\n"


def no_room(path: str, data: bytes) -> None:
    if path.endswith(".json"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    Path(path).write_bytes(data)


def test_workers_give_the_same_chain(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["simplify", "g * m", "--tasks", "digits", "--net", "mlp-1-8", "--seeds", 3, "--train-steps", 8, "--json"]
    one, two = (call(capsys, *line, "--workers", workers) for workers in (1, 2))
    assert one[:2] == two[:2]
    assert one[0] == 0


def test_the_sweep_is_as_long_as_the_training(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def remember(rule: CompiledRule, task: Task, *args: object, **kwargs: object) -> Outcome:
        seen.append((task.budget.sweep_steps, task.budget.train_steps))
        return Outcome("done", 0.5, 0.1, {}, 0.5)

    monkeypatch.setattr(trainings, "score", remember)
    for args in ([], ["--train-steps", 7], ["--sweep-steps", 5]):
        assert call(capsys, "simplify", "g * m", "--tasks", "digits", "--seeds", 3, *args)[0] == 0
    assert set(seen) == {(33, 33), (7, 7), (5, 33)}


def test_a_better_step_as_it_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def made_up(rule: CompiledRule, task: Task, *args: object, seed: int, **kwargs: object) -> Outcome:
        score = 0.5 + 1e-4 * (seed % 7) + 0.1 * (rule.text == "(adam)")
        return Outcome("done", 0.5 + 1e-4 * (seed % 5), 0.1, {"val_loss": [1.0]}, score)

    monkeypatch.setattr(trainings, "score", made_up)
    words = ["simplify", "adam + 0 * w", "--margin", 2, "--tasks", "digits", "--seeds", 3]
    status, out, _ = call(capsys, *words)
    assert status == 0
    said = "step 1 is better: digits +0.1000 ± 0.0000 to g, on the same seeds and data: (adam)"
    assert out.splitlines()[-2:] == [said, "simplest rule that shows no loss: g"]
    status, out, _ = call(capsys, *words, "--json")
    (row,) = json.loads(out)["better"]
    assert (row["step"], row["rule"], row["scores"].keys()) == (1, "(adam)", {"digits"})
    assert row["differences"]["digits"] == pytest.approx([0.1, 0.0])


def test_a_library_rule_and_no_loss_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    """What does nothing at the defaults goes, and nothing that trains otherwise."""
    status, out, err = call(capsys, "simplify", "sgd", "--margin", 0, *TINY)
    assert status == 0, err
    assert "  g + weight_decay * p -> g  def sgd(p, g, *, lr): return p - lr * g\n" in out
    assert out.endswith("simplest rule that shows no loss: sgd\ndef sgd(p, g, *, lr):\n    return p - lr * g\n")


def test_wrong_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for args, message in (
        (["g", "--seeds", 2], "--seeds 2 is below 3; an interval needs a spread"),
        (["g", "--margin", -0.1], "--margin -0.1 is not a loss of score; say 0 or more, such as 0.002"),
        (["g", "--margin", "nan"], "--margin nan is not a loss of score"),
        (["g +", "--seeds", 3], "rule 'g +' is not valid"),
        (["muon"], "rule 'muon' has orthogonalize, which a search cannot score"),
        (["g", "--tasks", "charm"], "--tasks 'charm' is not known"),
        (
            ["g", "--out", tmp_path / "file"],
            f"--out {tmp_path / 'file'} cannot be made: File exists; choose another folder",
        ),
        (["g", "--workers", 0], "--workers 0 is below 1"),
        (["g", "--threads", 0], "--threads 0 is below 1"),
    ):
        status, out, err = call(capsys, "simplify", *args)
        assert (status, out) == (2, ""), args
        assert message in err
