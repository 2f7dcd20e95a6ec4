"""Owns RuleOptimizer: any update rule as a torch.optim.Optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, overload

import torch
from torch.optim.optimizer import ParamsT

from .._state_dtypes import checked_state_dtype
from ..matrix import check_matrices, refusal
from ..rule import MatrixProgram, Program
from ._averaged import change_weights, check_training, followed_weights
from ._betas import KEY, LinkedGroup, linked, spread
from ._captured import CapturedLists
from ._checkpoint import check_form, read
from ._clipping import KEY as CLIP
from ._clipping import common_clip_norm, running
from ._entry import Averaged
from ._grad_scaler import check_writable, unscale
from ._hollow import is_hollow, take_steps
from ._lists import StepLists
from ._masters import KEY as MASTERS
from ._rules import Rules
from ._saved_groups import make_plain
from ._states_only import asks_for_states
from ._torch import active_modes, hooked, in_fake_mode
from ._torch_checkpoint import from_torch, to_torch
from ._values import (
    FLAG_DEFAULTS,
    Group,
    RuleSource,
    check_names,
    is_capturable,
    to_number,
)

_SHARED: Final = ("lr", *FLAG_DEFAULTS)  # what a group with a rule of its own takes from the optimizer's defaults


class RuleOptimizer(torch.optim.Optimizer):
    """A RuleOptimizer applies an update rule to all parameters of all groups, in one fused in-place pass.

        >>> optimizer = RuleOptimizer(model.parameters(), "g * exp(sign(g) * sign(m))", lr=0.1)
        >>> optimizer = RuleOptimizer(model.parameters(), library.adamw, lr=1e-3, weight_decay=0.1)

    Args:
        params: parameters, named parameters, or dicts that define param groups.
        rule: what `nos_ext.compile_rule` takes, or a `Program`. A dict that defines a param group may have a `rule` of
            its own; its hyperparameters are then those of that rule.
        lr: learning rate: a number, or a tensor of one element, which is read at every step.
        maximize: go up the gradient.
        capturable: make steps that a CUDA graph can hold, with parameters and step numbers on one CUDA device and no
            function among the hyperparameters; see docs/howto/cuda.md.
        seed: key of the rule's random draws.
        total_steps: length of the training in steps, for rules that read ``T``.
        stochastic_rounding: round bfloat16 and float16 parameters (and states) up or down at random, keyed by `seed`,
            so that updates below half a spacing are not lost; see `nos_ext.apply_rule`.
        fused: the update is always fused. True, as in torch's fused optimizers, makes GradScaler leave it to step() to
            unscale the gradients: the update takes the scale into account, and a pass over the gradients follows that
            leaves them unscaled. Trainers that clip gradients between the two, like Lightning, cannot do so then.
        master_weights: keep a float32 copy of bfloat16 and float16 parameters in the state, `master`. The rule updates
            that, and each parameter is what its copy is when rounded; see docs/howto/host_optimizer.md.
        state_dtype: "bfloat16" or "int8" for states of that dtype, which take a half or a quarter of the memory; None
            for float32. They are always rounded stochastically; see docs/howto/small_states.md.
        clip_norm: clip the gradients inside the step so that their norm, over all parameters of all groups, is at most
            this, as torch.nn.utils.clip_grad_norm_ before the step would; `grad_norm` is the norm before. The gradients
            themselves stay as they are.
        foreach, differentiable: must keep these values; for the trainers that pass them.
        **hyper: the rule's hyperparameters. Each is a key of the param groups, like lr, and may be a number, a tensor
            of one element, or a function of the step counted from 0. Those named beta, or beta1, beta2, ... can also be
            given, read and written together as ``betas``, as in torch's optimizers.

    The text of the rule is the param groups' ``rule``: a checkpoint says which rule made it, and loading one that
    another rule made is an error. The rule of a group stays what it was made with. State is float32 beside
    half-precision parameters and float64 beside float64 ones. Functions are not saved. A rule of the library has ranges
    for its hyperparameters, in which they have to start; a scheduler may leave them.
    """

    _rules: Rules
    _lists: StepLists | None = None
    _kept: Sequence[CapturedLists] = ()
    _grad_norm: float | None = None
    _step_is_wrapped = False  # whether torch wraps step(), as in classes that have their own

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls._step_is_wrapped = cls.step is not RuleOptimizer.step

    def __init__(
        self,
        params: ParamsT,
        rule: RuleSource,
        lr: float | torch.Tensor,
        *,
        maximize: bool = False,
        capturable: bool = False,
        seed: int = 0,
        total_steps: float | None = None,
        stochastic_rounding: bool = False,
        master_weights: bool = False,
        state_dtype: str | torch.dtype | None = None,
        clip_norm: float | None = None,
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
        **hyper: Any,
    ) -> None:
        self._rules = Rules(rule)
        own = self._rules.default
        hyper = spread(hyper, own.values.betas)
        check_names(own.program, hyper)
        flags = {
            "maximize": maximize, "capturable": capturable, "differentiable": differentiable, "foreach": foreach,
            "fused": fused, "seed": seed, "total_steps": total_steps, "stochastic_rounding": stochastic_rounding,
            MASTERS: master_weights, "state_dtype": state_dtype, CLIP: clip_norm,
        }  # fmt: skip
        defaults = own.values.checked({**own.defaults({"lr": lr, **flags}), **hyper})
        own.values.check_ranges(defaults)
        super().__init__(params, linked(defaults, own.values.betas))

    @property
    def program(self) -> Program | MatrixProgram:
        """This is the compiled rule that the optimizer was made with."""
        return self._rules.default.program

    @property
    def grad_norm(self) -> float | None:
        """This is the norm of all gradients in the last step, before they were clipped by `clip_norm`. It is None
        before the first step, and after one whose `clip_norm` was None. It may be NaN for parameters on a CUDA device,
        where the norm stays."""
        return self._grad_norm

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Answers torch's GradScaler: whether step() takes grad_scale and found_inf into account."""
        return self.defaults.get("fused") is True

    def __repr__(self) -> str:
        """Shows what torch's optimizers show, and the name of the rule. ``program.to_text()`` has its text."""
        text = f"{type(self).__name__} ("
        for i, group in enumerate(self.param_groups):
            shown = {**group, "rule": self._rules.of(group).program.name}
            lines = [f"    {key}: {shown[key]}\n" for key in sorted(shown) if key != "params"]
            text += f"\nParameter Group {i}\n{''.join(lines)}"
        return f"{text})"

    # -- one step -----------------------------------------------------------------------------------------------------

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @hooked
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates all parameters that have a gradient. `closure`, if given, first computes and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            _update_outside_graph(self)
        else:
            self._update()
        return loss

    def _update(self) -> None:
        if self._rules.averages:
            check_training(group for group, _ in self._averaged())
        scale = None
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None:
            if isinstance(self._lists, CapturedLists) and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(
                    "a GradScaler's step cannot be captured: whether it is skipped is the host's decision; capture "
                    "forward and backward, and call scaler.step(optimizer) after each replay"
                )
            if float(found_inf):
                return  # a skipped step does not count
            scale = getattr(self, "grad_scale", None)
        if (active_modes() and in_fake_mode()) or (self._lists is None and all(map(is_hollow, self._params()))):
            self._take_hollow_steps()
            return
        if not self.state and asks_for_states(self.param_groups):
            self._lists = self._new_lists()
            self._lists.make_states()
            return
        if scale is not None:
            check_writable(type(self).__name__, self._params())
        if self._rules.averages:
            with followed_weights(self._averaged(), self.state):
                lists = self._stepped(scale)
        else:
            lists = self._stepped(scale)
        self._grad_norm = lists.grad_norm if lists.clips else None
        if scale is not None:
            unscale(self._params(), to_number("grad_scale", scale))

    def _stepped(self, scale: Any) -> StepLists:
        """Takes the step, with the lists as they are or with new ones, and returns those."""
        try:
            if self._lists is None or not self._lists.step(self.param_groups, self.state, self._rules.resolve, scale):
                self._lists = self._new_lists()
                if not self._lists.step(self.param_groups, self.state, self._rules.resolve, scale):
                    raise RuntimeError("param_groups or state changed while the step was under way")
        except Exception:
            if self._lists is not None:
                self._lists.forget_new()
            raise
        return self._lists

    def _new_lists(self) -> StepLists:
        for i, group in enumerate(self.param_groups):
            self._rules.of(group).values.check_keys(i, group)
        self._settle()
        self._link_groups()
        if is_capturable(self.param_groups):
            for program in self._rules.programs(self.param_groups):
                if isinstance(program, MatrixProgram):
                    raise refusal(program, "a captured step")
        lists = self._make_lists(self._rules, self.param_groups, self.state, type(self).__name__)
        if isinstance(lists, CapturedLists):  # graphs read the memory of the lists with which they were captured
            self._kept = [*(kept for kept in self._kept if kept.in_graphs), lists]
        return lists

    def _make_lists(self, *arguments: Any) -> StepLists:
        return CapturedLists(*arguments) if is_capturable(self.param_groups) else StepLists(*arguments)

    def _home(self, param: Any) -> torch.device:
        """Returns the device of the states of a parameter."""
        return param.device  # type: ignore[no-any-return]

    def _settle(self) -> None:
        """Makes the `step` of every state say how many steps have been counted, before somebody reads it."""
        if self._lists is not None and self._lists.settle():
            self._lists = None

    def _params(self) -> Iterator[Any]:
        return chain.from_iterable(group["params"] for group in self.param_groups)

    def _take_hollow_steps(self) -> None:
        capturable = is_capturable(self.param_groups)
        forms = self._rules.forms(self.param_groups)
        programs = [form for form, group in zip(forms, self.param_groups, strict=True) for _ in group["params"]]
        chosen = [checked_state_dtype(group["state_dtype"]) for group in self.param_groups for _ in group["params"]]
        params = [
            (i, param, program, dtype, capturable)
            for i, (param, program, dtype) in enumerate(zip(self._params(), programs, chosen, strict=True))
        ]
        take_steps(type(self).__name__, self.state, params)

    # -- weights for training and for evaluation ----------------------------------------------------------------------

    def eval(self) -> None:
        """Puts the weights that are to be evaluated or saved into the parameters. Most rules have no others than those
        that are trained, and then nothing happens. For schedule-free ones call it before ``model.eval()``."""
        self._change_weights(training=False)

    def train(self) -> None:
        """Puts the weights for training back into the parameters, after `eval`. A new optimizer is in this mode."""
        self._change_weights(training=True)

    def _change_weights(self, *, training: bool) -> None:
        change_weights(self._averaged(), self.state, training)

    def _averaged(self) -> list[tuple[Group, Averaged]]:
        """Returns the groups that have two sets of weights."""
        kinds = [(group, self._rules.of(group).values.averaged) for group in self.param_groups]
        return [(group, kind) for group, kind in kinds if kind]

    # -- groups -------------------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Adds a group of parameters, a copy of the dict. It may have its own value of everything. With a `rule` of its
        own its hyperparameters are those of that rule, and of the optimizer's it takes lr and the flags."""
        rule = self._rules.default
        if isinstance(param_group, dict):
            if "rule" in param_group:
                rule = self._rules.add(param_group["rule"])
            given = spread({**param_group, "rule": rule.text}, rule.values.betas)
            shared = {name: self.defaults[name] for name in _SHARED}
            defaults = self.defaults if rule is self._rules.default else rule.defaults(shared)
            checked = rule.values.checked({**defaults, **given})
            rule.values.check_ranges(checked)
            param_group = {**given, **checked}  # in torch's order
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if rule is not self._rules.default:  # torch has filled in what the default rule has
            for name in set(self.defaults).difference(checked):
                del group[name]
        if rule.values.betas and not isinstance(group, LinkedGroup):
            group.pop(KEY, None)  # the default, whatever beta1 is
        self.param_groups[-1] = linked(group, rule.values.betas)
        try:
            if common_clip_norm(self.param_groups) is not None:
                running(rule.program, True)  # a rule that cannot be clipped is refused here
            is_capturable(self.param_groups)
            rule.values.check_there(self.param_groups[-1], self.param_groups[-1]["params"])
            rule.form(self.param_groups[-1])  # and one that has no room for master weights here
            self._check_matrices(rule.program)
        except Exception:
            self.param_groups.pop()
            raise
        self._settle()
        self._lists = None

    def _check_matrices(self, program: Program | MatrixProgram) -> None:
        """Raises ValueError or TypeError where the last group has a rule with orthogonalize that cannot run there."""
        if not isinstance(program, MatrixProgram):
            return
        group = self.param_groups[-1]
        if group["capturable"]:
            raise refusal(program, "a captured step")
        before = sum(len(other["params"]) for other in self.param_groups[:-1])
        check_matrices(
            program.name, [None] * before + group["params"], [False] * before + [True] * len(group["params"])
        )

    def _link_groups(self) -> None:
        """Makes the param groups keep `betas` and the hyperparameters in agreement, also those that are new."""
        for i, group in enumerate(self.param_groups):
            self.param_groups[i] = linked(group, self._rules.of(group).values.betas)

    # -- checkpoints and copies ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as torch does: live tensors and plain types. A hyperparameter that is a function is left
        out."""
        self._settle()
        names = [program.hyperparameters for program in self._rules.programs(self.param_groups)]
        packed = super().state_dict()
        make_plain(packed["param_groups"], names)
        return packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the state as torch does, but every tensor keeps its dtype, and every value is checked before anything
        is changed.

        Raises:
            ValueError, TypeError: the checkpoint is of another rule or does not fit the parameters, or a value in it,
                which is named, has no meaning. The optimizer is what it was before.
        """
        if not isinstance(state_dict, Mapping):  # a hook of the user's may still change what is in it
            check_form(state_dict)
        state: dict[Any, Any] = {}

        def before(_: torch.optim.Optimizer, given: dict[str, Any]) -> dict[str, Any]:
            groups, found = read(given, self._rules, self.param_groups, self.defaults, self._home)
            state.update(found)
            return {**given, "param_groups": groups, "state": {}}

        def after(_: torch.optim.Optimizer) -> None:
            self.state = defaultdict(dict, state)
            self._lists = None

        # Ours come last of the hooks before and first of those after, so users' hooks see what they would see in torch.
        hooks = (
            self.register_load_state_dict_pre_hook(before),
            self.register_load_state_dict_post_hook(after, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def load_torch_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a checkpoint of the optimizer in torch.optim that computes the same numbers, and goes on from there.

            >>> optimizer = nos_ext.optim.create("adamw", model.parameters(), lr=1e-3)
            >>> optimizer.load_torch_state_dict(torch.load("adamw.pt"))

        Raises:
            ValueError: torch has no such optimizer, or the checkpoint is of another one, or of options that are another
                rule here, such as amsgrad=True. The optimizer is what it was before.
        """
        self._check_one_rule()
        self.load_state_dict(from_torch(state_dict, self.param_groups, self.program))

    def torch_state_dict(self) -> dict[str, Any]:
        """Returns the state as the optimizer in torch.optim that computes the same numbers would save it."""
        self._check_one_rule()
        return to_torch(self.state_dict(), self.program)

    def _check_one_rule(self) -> None:
        if any(program is not self.program for program in self._rules.programs(self.param_groups)):
            raise ValueError(
                f"the param groups have different rules:\n{self._rules.texts()}\ntorch has no optimizer of several "
                "rules; make an optimizer for each of them"
            )

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lists = None
        if "_rules" not in self.__dict__:  # it was unpickled or copied
            self._rules = Rules(self.defaults["rule"])
            for group in self.param_groups:
                self._rules.add(group.get("rule", self._rules.default.text))
        own = self._rules.default
        for name, default in {**own.program.hyperparameters, **FLAG_DEFAULTS}.items():
            self.defaults.setdefault(name, default)
        self.defaults = linked(self.defaults, own.values.betas)
        for group in self.param_groups:  # older pickles lack keys that came later
            rule = self._rules.of(group)
            defaults = self.defaults if rule is own else rule.defaults({name: self.defaults[name] for name in _SHARED})
            for name, default in defaults.items():
                if name != KEY or not rule.values.betas:
                    group.setdefault(name, default)
        self._link_groups()


# Here torch.compile breaks its graph, once, and calls the engine.
_update_outside_graph = torch.compiler.disable(RuleOptimizer._update)  # type: ignore[no-untyped-call]
