"""Owns the configuration of a run, which the store keeps so that a run can be resumed and repeated."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import nos_ext

from ..bounds import check_count
from ..errors import UsageError, choose
from ..escape import line, shell
from ..executor import EXECUTORS, several
from ..gate import Gates
from ..gate.families import THRESHOLD, check_distance
from ..space import SearchSpace, Space, TextSpace, make_space
from ..strategy import STRATEGIES, ExternalStrategy, Strategy, completed, create
from ..task import SCORES, TASKS, Task, contents, is_code, load
from ..task.score import ACCURACY, OBJECTIVE
from ..train.child import ScoringProtocol, Sweep
from ..train.decay import DECAYS, Decay
from ..train.default_ladder import DEFAULT, ETA, NONE, default_ladder
from ..train.device import check_name
from ..train.engine import Engine, check_trains, engine_of
from ..train.promotion import Promotion, Rung
from ..train.protocols import Protocol, check_protocol, paper
from ..train.seeds import check_seed, derive_seed
from ..train.side import side_by_side

# what releases did that did not write it down
_OLDER = {"engine": "torch", "score": ACCURACY, "rung_score": ACCURACY, "promote_decay": "none"}
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {  # by the annotation of a field
    "str": ((str,), "text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "dict[str, Any]": ((dict,), "a dict"),
}
_LONGEST = 1e9  # seconds that a worker may be waited for; a thread cannot wait ten times as long


@dataclass(frozen=True)
class RunConfig:
    """A configuration has everything that decides the outcome of a run. to_json() gives it as JSON.

    `trials`, `children` and `seconds` limit the proposals, the trained children and the time; None is no limit. The run
    also stops at the reward `target`. `seconds` counts from the start of the command, so a resumed run has them again.
    `command` is what the strategy "external" starts. A run folder may be anyone's, so a run that is resumed is given
    its command again (`going_on`).
    `batch` rules are asked for at a time, and go through the gates together: one rule alone costs as much there as
    thirty.
    `alike` is the distance up to which rules are one family (gate/families.py).
    `executor` None is "inprocess" with one worker, and with more "fork", or "loky" where that cannot be. With several
    workers answers come in the order of the clock, so such a run does not repeat exactly, though each reward does.
    `threads` are torch's while a child trains, None for one; results of torch are equal bit for bit only for equal
    numbers of threads. Own kernels train so many children side by side, None for as many as leave each worker its share
    of the cores; that changes no bit.
    After `trial_timeout` seconds a worker is taken for hung; trainings in this process are never.
    `gpus_per_trial` and `ray_address` are for the executor "ray".
    `device` is where children train, "cpu" or "cuda"; None is "cuda" with gpus_per_trial and "cpu" without. The gates
    stay on the CPU.
    `promote` has the rungs above the search's own task (train/promotion.py), or is "default" for those of the task, or
    "none" or None for no others; a stored run has the rungs themselves, or None. One rule in `promote_eta` goes up, and
    the learning rate of the longer trainings up there falls by `promote_decay`; in a run of an older version it stays.
    `engine` trains the children: the kernels of nos_ext ("native"), torch, or the kernels where they can ("auto"); they
    differ in rounding. A run of an older version has torch. `protocol` is "default" or "paper" (train/protocols.py).
    `data` is a checksum of the examples of a task of the user's own, which are the same in every part of a run.
    `score` says what rewards are (task/score.py), and `rung_score` the same of the rungs above the search's own task,
    where None is each task's own; those of a run of an older version are accuracies.
    `given` says what a Python program gave in the place of the name of a task: "task", a task of its own, or
    "objective", a function that scores rules; a run folder does not hold it, so `task` is only what it is called.
    `score`, `net`, `width`, `sweep_steps` and `train_steps` are the task's own where they are None. A stored run has
    what was in force.
    """

    task: str = "charmlp"
    given: Literal["task", "objective"] | None = None
    strategy: str = "controller"
    strategy_options: dict[str, Any] = field(default_factory=dict)
    command: str | None = None
    space: dict[str, Any] = field(default_factory=lambda: Space().config())
    gates: dict[str, Any] = field(default_factory=lambda: Gates().to_json())
    alike: float = THRESHOLD
    sweep: Sweep = "fine"
    engine: Engine = "auto"
    protocol: Protocol = "default"
    score: str | None = None
    rung_score: str | None = None
    net: str | None = None
    width: int | None = None
    sweep_steps: int | None = None
    train_steps: int | None = None
    data_dir: str | None = None
    data: str | None = None
    seed: int = 1
    batch: int = 32
    executor: str | None = None
    workers: int = 1
    threads: int | None = None
    trial_timeout: float = 3600.0
    ray_address: str | None = None
    gpus_per_trial: float = 0.0
    device: str | None = None
    promote: str | None = None
    promote_eta: int = ETA
    promote_decay: Decay = "linear_cosine"
    trials: int | None = None
    children: int | None = None
    seconds: float | None = None
    target: float | None = None

    def __post_init__(self) -> None:
        self._check_types()
        scores = (OBJECTIVE,) if self.given == "objective" else tuple(SCORES)
        for name in (self.score, self.rung_score):
            if name is not None and name not in scores:
                raise choose("--score", name, scores)
        if self.promote_decay not in DECAYS:
            raise choose("--promote-decay", self.promote_decay, DECAYS)
        if self.given == "objective" and self.promote not in (None, DEFAULT, NONE):
            raise UsageError(f"--promote {self.promote!r} needs a task, and this run scores rules by a function")
        if self.strategy not in STRATEGIES:
            raise choose("--strategy", self.strategy, tuple(STRATEGIES))
        self._check_command()
        if self.executor is not None and self.executor not in EXECUTORS:
            raise choose("--executor", self.executor, tuple(EXECUTORS))
        check_count("--workers", self.workers, "say how many processes train")
        entry = EXECUTORS[self.executor_name]
        if self.workers > 1 and not entry.processes:
            raise UsageError(
                f"--workers {self.workers} with --executor {self.executor}: it has one; use fork, loky or ray"
            )
        if not entry.cluster and (self.ray_address is not None or self.gpus_per_trial):
            raise UsageError("--ray-address and --gpus-per-trial need --executor ray")
        if not 0 <= self.gpus_per_trial < math.inf:
            raise UsageError(f"--gpus-per-trial {self.gpus_per_trial:g} is below 0")
        if check_name(self.device_name) == "cpu" and self.gpus_per_trial:
            raise UsageError(f"--gpus-per-trial {self.gpus_per_trial:g} with --device cpu: name one of them")
        if entry.cluster and self.device == "cuda" and not self.gpus_per_trial:
            raise UsageError(
                "--device cuda with --executor ray needs --gpus-per-trial F: how much of a GPU a worker gets"
            )
        if self.executor == "fork" and self.device_name != "cpu":
            raise UsageError(f"--executor fork with --device {self.device}: a GPU does not survive a fork; use loky")
        if not self.trial_timeout > 0:
            raise UsageError(f"--trial-timeout {self.trial_timeout:g} is not above 0; say how many seconds")
        if self.trial_timeout > _LONGEST:
            raise UsageError(f"--trial-timeout {self.trial_timeout:g} is above {_LONGEST:g} seconds; choose less")
        check_distance("the distance of families (alike)", self.alike)
        check_count("--batch", self.batch, "say how many rules to ask for at a time")
        if self.threads is not None:
            check_count("--threads", self.threads)
        check_protocol(self.protocol, self.task, "--task", {})
        check_seed(self.seed)
        if self.trials is not None:
            check_count("--trials", self.trials, "say how many rules to propose")
        if self.children is not None:
            check_count("--children", self.children, "say how many rules to train")
        if self.seconds is not None and not self.seconds > 0:
            raise UsageError(f"--seconds {self.seconds:g} is not above 0; say how long to search")
        if self.seconds == math.inf:
            raise UsageError("--seconds inf is no limit; leave it out")
        if self.target is not None and not 0 < self.target <= 1:
            raise UsageError(f"--target {self.target:g} is outside (0, 1], as rewards are")
        check_count("--promote-eta", self.promote_eta, "one rule in so many is promoted", least=2)
        self.make_protocol()
        self.make_gates()

    def _check_types(self) -> None:
        """Raises UsageError for a value of another type than its field has, which a Python program may give."""
        for entry in fields(self):
            kind, _, none = str(entry.type).partition(" | ")
            value = getattr(self, entry.name)
            types, wanted = _TYPES.get(kind, _TYPES["str"])  # what is one of several words is text, too
            if (value is None and none) or (isinstance(value, types) and not isinstance(value, bool)):
                continue
            raise UsageError(f"{entry.name} is {ascii(value)[:60]}, a {type(value).__name__}; it must be {wanted}")

    def _check_command(self) -> None:
        external = self.strategy == ExternalStrategy.name
        kind = self.space.get("kind", Space.kind)
        if external and self.command is None:
            raise UsageError(
                "--strategy external needs --command, the program that proposes rules, such as 'python my_proposer.py'"
            )
        if self.command is not None and not external:
            raise UsageError(
                f"--command with --strategy {self.strategy}: it proposes rules itself; leave --command out"
            )
        if external != (kind == TextSpace.kind):
            raise UsageError(f"--space {kind} with --strategy {self.strategy}: external, and no other, goes with text")

    def make_space(self) -> SearchSpace:
        return make_space(self.space)

    def make_gates(self) -> Gates:
        return Gates.from_json(self.gates)

    def make_strategy(self) -> Strategy:
        strategy = create(self.strategy, self.make_space(), seed=self.seed, options=self.strategy_options)
        if isinstance(strategy, ExternalStrategy):
            names = ("task", "score", "net", "width", "sweep_steps", "train_steps", "promote", "gates")
            strategy.attach(self.command or "", {name: getattr(self, name) for name in names})
        return strategy

    def make_task(self) -> Task:
        """Loads the task by its name. Raises UsageError where there is none of that name, or none with a name."""
        if self.given is not None:
            raise UsageError(
                f"this run's {self.given} {self.task!r} was given by a Python program and is not in the run folder; go "
                f"on from Python: nos_search.load(FOLDER).resume({self.given}=...)"
            )
        task = load(self.task, data_dir=Path(self.data_dir) if self.data_dir else None)
        if self.protocol == "paper":
            task = paper(task)
        return self.adapted(task)

    def adapted(self, task: Task) -> Task:
        """Returns a task with the network, the budget and the score of this configuration."""
        return task.with_options(
            net=self.net,
            width=self.width,
            sweep_steps=self.sweep_steps,
            train_steps=self.train_steps,
            score=self.score,
        )

    def make_protocol(self) -> ScoringProtocol:
        together = side_by_side(self.threads, self.workers)
        return ScoringProtocol(sweep=self.sweep, engine=self.engine, threads=together)

    def going_on(self, folder: Path, **settings: Any) -> RunConfig:
        """Returns the configuration with which the run in `folder` is resumed under new settings. Of `strategy_options`
        those may be new that decide no proposal. Raises UsageError for others, and for a run that would start a command
        that only its folder names."""
        if self.command is not None and settings.get("command") is None:
            raise UsageError(
                f"run folder {line(folder)} names the command {self.command[:100]!r}, and may be anyone's; if you know "
                f"it, give it again: nos-search resume {shell(folder)} --command {shell(self.command)}"
            )
        options = self._options_with(settings.pop("strategy_options", None) or {})
        return replace(self, strategy_options=options, **settings)

    def _options_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the options of the strategy with some new ones."""
        if not isinstance(given, Mapping):
            raise UsageError(f"strategy_options is a {type(given).__name__}; give a dict")
        free = STRATEGIES[self.strategy].free_options
        for name in given:
            if name not in free:
                may = f"change {', '.join(free)} alone" if free else "leave it out"
                raise UsageError(
                    f"--strategy-option {name}: it decides what {self.strategy} proposes in this run; {may}"
                )
        options = {**self.strategy_options, **given}
        create(self.strategy, self.make_space(), seed=self.seed, options=options)  # which checks the values
        return options

    def check_same(self, task: Task) -> None:
        """Raises UsageError where `task`, with which a run goes on, has other examples than the task that it began
        with: its rewards would be no longer comparable."""
        if self.data is not None and self.data != contents(task):
            raise UsageError(
                f"task {task.name!r} has not the examples with which this run began: their number, shapes or classes "
                "differ; give the same ones, or start a new run"
            )

    def in_force(self, task: Task | None) -> RunConfig:
        """Returns the configuration with the values of `task`, where there is one, and of this machine in the place of
        defaults, so that the run is the same after another release has changed a default, or on another machine.
        Raises UsageError for an engine that cannot train its children."""
        chosen = replace(self, promote=self._rungs(), strategy_options=self.make_strategy().options())
        if task is None:
            return chosen
        ladder = chosen.make_ladder(task)
        default = chosen.promote == self._default_ladder
        trained = [task] if ladder is None or default else [each for rung in ladder.rungs for each in rung.tasks]
        check_trains(self.engine, trained)
        engine = engine_of(self.engine, trained)
        if default and engine == "torch":
            engine = self.engine  # there may be kernels for the other tasks of the ladder
        return replace(
            chosen,
            engine=engine,
            data=contents(task) if self.given == "task" or is_code(self.task) else None,
            net=str(task.spec),
            width=task.width,
            sweep_steps=task.budget.sweep_steps,
            train_steps=task.budget.train_steps,
            score=task.score,
        )

    def _rungs(self) -> str | None:
        """Returns the rungs that --promote comes to."""
        if self.promote != DEFAULT:
            return None if self.promote == NONE else self.promote
        return None if self.given == "objective" or self.protocol == "paper" else self._default_ladder

    @property
    def _default_ladder(self) -> str:
        """These are the rungs for a user who names none. Who brings a task wants a rule for that, and for no other."""
        return default_ladder(self.task, transfer=self.given is None and self.task in TASKS)

    def make_ladder(self, task: Task) -> Promotion | None:
        """Returns the ladder of a configuration that is in force: rung 0, which is `task`, and those of --promote.
        Without any it is None. Data are loaded, so that what cannot be had is an error now; the default ladder has what
        comes with the package, and loads a task when the first rule comes to it."""
        if self.promote is None:
            return None
        default = self.promote == self._default_ladder
        above = Promotion.parse(
            self.promote,
            own=task,
            data_dir=Path(self.data_dir) if self.data_dir and not default else None,
            eta=self.promote_eta,
            protocol=replace(self.make_protocol(), decay=self.promote_decay),
            score=self.rung_score,
            at_once=not default,
        )
        return replace(above, rungs=(Rung.of(task.name, task), *above.rungs))

    @property
    def executor_name(self) -> str:
        return self.executor or ("inprocess" if self.workers == 1 else several(self.device_name))

    @property
    def torch_threads(self) -> int:
        return self.threads or 1

    @property
    def device_name(self) -> str:
        return self.device or ("cuda" if self.gpus_per_trial else "cpu")

    @property
    def child_seed(self) -> int:
        """Returns the one seed of all children of a run. Rules are compared on equal weights and equal batches, and the
        reward is a function of the rule alone, so that a rule never needs to be trained twice."""
        return derive_seed(self.seed, "child")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunConfig:
        known = {entry.name for entry in fields(cls)}
        config = cls(**{name: value for name, value in {**_OLDER, **data}.items() if name in known})
        return replace(config, strategy_options=completed(config.strategy, config.strategy_options))


def default_space(strategy: str) -> str:
    """Returns the kind of space in which a strategy searches when nothing is said of it."""
    return TextSpace.kind if strategy == ExternalStrategy.name else Space.kind


def versions() -> dict[str, str]:
    """Returns what a result depends on besides its configuration."""
    info = nos_ext.build_info()
    return {
        "nos_ext": nos_ext.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "isa": str(info.get("cpu", {}).get("isa", "")),
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
    }
