"""Every check on tensors: the message names list and index, and a refused call has changed no byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

import nos_ext

RULE = nos_ext.compile_rule(
    "def r(p, g, m, *, lr, beta=0.9):\n    m = beta * m + (1 - beta) * g\n    return p - lr * m, m\n"
)


def tensors() -> dict[str, Any]:
    """Three good parameters of different shapes with gradients and states."""
    make = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), (2, 3, 2)]
    return {
        "params": [torch.randn(s, generator=make) for s in shapes],
        "grads": [torch.randn(s, generator=make) for s in shapes],
        "state": {"m": [torch.randn(s, generator=make) for s in shapes]},
    }


def put(where: str, index: int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(t: dict[str, Any]) -> None:
        (t["state"]["m"] if where == "m" else t[where])[index] = value(t) if callable(value) else value

    return change


def set_key(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda t: t.__setitem__(key, value)


BAD: dict[str, tuple[Callable[[dict[str, Any]], None], type[Exception], str]] = {
    "grad shape": (put("grads", 1, torch.zeros(4)), ValueError, r"grads\[1\] has shape \(4,\) but params\[1\] has \(5,\)"),
    "state shape": (put("m", 2, torch.zeros(12)), ValueError, r"state\['m'\]\[2\] has shape \(12,\) but params\[2\]"),
    "integer param": (put("params", 0, torch.zeros(3, 4, dtype=torch.int32)), ValueError, r"params\[0\] is int32; supported are"),
    "bool grad": (put("grads", 0, torch.zeros(3, 4, dtype=torch.bool)), ValueError, r"grads\[0\] is bool; supported are"),
    "complex grad": (put("grads", 1, torch.zeros(5, dtype=torch.complex64)), ValueError, r"grads\[1\] is complex64.*view_as_real"),
    "float64 grad": (put("grads", 1, torch.zeros(5, dtype=torch.float64)), ValueError, r"grads\[1\] is float64 but params\[1\] is float32"),
    "float64 state": (put("m", 1, torch.zeros(5, dtype=torch.float64)), ValueError, r"state\['m'\]\[1\] is float64"),
    "too few grads": (lambda t: t["grads"].pop(), ValueError, r"grads has 2 tensors but params has 3"),
    "too many states": (lambda t: t["state"]["m"].append(torch.zeros(1)), ValueError, r"state\['m'\] has 4 tensors but params has 3"),
    "strided view": (put("params", 1, lambda t: torch.zeros(10)[::2]), ValueError, r"params\[1\] has gaps.*strides \(2,\)"),
    "expanded grad": (put("grads", 1, torch.zeros(1).expand(5)), ValueError, r"grads\[1\] has gaps or repeats"),
    "transposed grad": (put("grads", 0, torch.zeros(4, 3).T), ValueError, r"grads\[0\] has strides \(1, 3\) but params\[0\] has \(4, 1\)"),
    "same param twice": (put("params", 2, lambda t: t["params"][0].view(2, 3, 2)), ValueError, r"params\[[02]\] and params\[[02]\] share memory"),
    "grad is param": (put("grads", 1, lambda t: t["params"][1]), ValueError, r"(params|grads)\[1\] and (params|grads)\[1\] share memory"),
    "state is grad": (put("m", 1, lambda t: t["grads"][1]), ValueError, r"share memory, and one of them is written"),
    "overlapping by one": (
        lambda t: (lambda base: (put("params", 1, base[:5])(t), put("m", 1, base[4:9])(t)))(torch.zeros(9)),
        ValueError, r"params\[1\] and state\['m'\]\[1\] share memory"),
    "negated view": (put("grads", 1, torch._neg_view(torch.ones(5))), ValueError, r"grads\[1\] is a lazily negated view.*resolve_neg"),
    "sparse grad": (put("grads", 0, torch.zeros(3, 4).to_sparse()), ValueError, r"grads\[0\] has no memory.*sparse"),
    "meta param": (put("params", 0, torch.zeros(3, 4, device="meta")), ValueError, r"params\[0\] has no memory"),
    "fake grad": (put("grads", 0, lambda t: fake((3, 4))), ValueError, r"grads\[0\] has no memory.*FakeTensor"),
    "wrapper param": (put("params", 1, lambda t: TwoTensor(torch.zeros(5), torch.zeros(5))), ValueError, r"params\[1\] has no memory.*TwoTensor"),
    "wrapper grad": (put("grads", 1, lambda t: TwoTensor(torch.zeros(5), torch.zeros(5))), ValueError, r"grads\[1\] has no memory.*TwoTensor"),
    "zero tensor": (put("grads", 1, lambda t: torch._efficientzerotensor(5)), ValueError, r"grads\[1\] has no memory"),
    "emptied grad": (put("grads", 1, lambda t: resized(torch.zeros(5), 0)), ValueError, r"grads\[1\] has no memory"),
    "emptied state": (put("m", 1, lambda t: resized(torch.zeros(5), 0)), ValueError, r"state\['m'\]\[1\] has no memory"),
    "view of an emptied grad": (put("grads", 1, lambda t: resized(torch.zeros(1 << 20)[9000:9005], 0)), ValueError, r"grads\[1\] has no memory"),
    "shrunk grad": (put("grads", 1, lambda t: resized(torch.zeros(5), 16)), ValueError, r"grads\[1\] has 5 elements.*storage of 16 bytes"),
    "shrunk param": (put("params", 0, lambda t: resized(torch.zeros(4, 4)[1:], 32)), ValueError, r"params\[0\] has 12 elements.*storage of 32 bytes"),
    "list as tensor": (put("grads", 0, [1.0]), TypeError, r"grads\[0\] is a list; pass a torch.Tensor"),
    "None param": (put("params", 0, None), TypeError, r"params\[0\] is a NoneType"),
    "None state": (put("m", 0, None), TypeError, r"state\['m'\]\[0\] is a NoneType"),
    "tensor as list": (set_key("params", torch.zeros(3, 4)), TypeError, r"params is a Tensor; pass a list of tensors"),
    "array as list": (set_key("grads", np.zeros(3)), TypeError, r"grads is a ndarray; pass a list of tensors"),
    "array of integers": (put("grads", 1, np.zeros(5, int)), ValueError, r"grads\[1\] is int64; supported"),
    "read-only array": (
        lambda t: t.update(params=[read_only()], grads=[np.zeros(3, np.float32)], state={"m": [np.zeros(3, np.float32)]}),
        ValueError, r"params\[0\] is a read-only array"),
    "big-endian array": (put("grads", 1, np.zeros(5, ">f4")), ValueError, r"grads\[1\] is >f4; supported"),
    "missing state": (set_key("state", {}), ValueError, r"state has the keys \[\].*states \['m'\].*init_state"),
    "unknown state": (lambda t: t["state"].update(x=[]), ValueError, r"keys \['m', 'x'\]"),
    "too many lists": (set_key("state", [[], []]), ValueError, r"state has 2 lists"),
    "state is None": (set_key("state", None), TypeError, r"state is a NoneType"),
    "state is a 0-d array": (set_key("state", np.array(1.0)), TypeError, r"state is a ndarray; pass {name: \[tensors\]}"),
}  # fmt: skip


def fake(shape: tuple[int, ...]) -> torch.Tensor:
    with FakeTensorMode():
        return torch.zeros(shape)


def resized(tensor: torch.Tensor, nbytes: int) -> torch.Tensor:
    tensor.untyped_storage().resize_(nbytes)
    return tensor


def read_only() -> np.ndarray:
    a = np.zeros(3, np.float32)
    a.flags.writeable = False
    return a


def has_memory(t: torch.Tensor) -> bool:
    if type(t) is not torch.Tensor or t.device.type != "cpu" or t.layout != torch.strided or t._is_zerotensor():
        return False
    return t.untyped_storage().nbytes() >= t.numel() * t.element_size()


def memory(t: dict[str, Any]) -> list[bytes]:
    out = []
    for tensor in [*t["params"], *t["grads"], *(x for s in t["state"].values() for x in s)]:
        if isinstance(tensor, torch.Tensor) and has_memory(tensor):
            out.append(tensor.resolve_neg().detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(tensor, np.ndarray):
            out.append(tensor.tobytes())
    return out


@pytest.mark.parametrize("name", BAD)
def test_refused_and_nothing_written(name: str) -> None:
    change, error, message = BAD[name]
    t = tensors()
    change(t)
    before = memory(t) if isinstance(t["state"], dict) else None
    with pytest.raises(error, match=re.compile(message, re.DOTALL)):
        nos_ext.apply_rule(RULE, t["params"], t["grads"], t["state"], lr=0.1)
    if before is not None:
        assert memory(t) == before


def resized_number() -> torch.Tensor:
    return resized(torch.tensor(1.0), 0)


BAD_SCALARS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "lr text": ({"lr": "fast"}, TypeError, r"lr is 'fast'; pass a number"),
    "lr tensor of two": ({"lr": torch.zeros(2)}, TypeError, r"lr is a float32 Tensor of shape \(2,\)"),
    "step 0": ({"step": 0}, ValueError, r"step is 0; pass an integer from 1"),
    "step 1.5": ({"step": 1.5}, ValueError, r"step is 1.5"),
    "negative seed": ({"seed": -1}, ValueError, r"seed is -1"),
    "huge seed": ({"seed": 2**64}, ValueError, r"seed is 18446744073709551616"),
    "grad_scale 0": ({"grad_scale": 0.0}, ValueError, r"grad_scale is 0.0; pass a number that is not 0"),
    "total_steps 0": ({"total_steps": 0}, ValueError, r"total_steps is 0; pass a positive number"),
    "unknown hyperparameter": ({"betta": 0.9}, TypeError, r"has no hyperparameter 'betta'; it has lr, beta"),
    "maximize text": ({"maximize": "False"}, TypeError, r"maximize is 'False'; pass True or False"),
    "maximize 2": ({"maximize": 2}, TypeError, r"maximize is 2; pass True or False"),
    "maximize None": ({"maximize": None}, TypeError, r"maximize is None; pass True or False"),
    "maximize list": ({"maximize": [False]}, TypeError, r"maximize is \[False\]; pass True or False"),
    "rounding text": ({"stochastic_rounding": "no"}, TypeError, r"stochastic_rounding is 'no'; pass True or False"),
    "lr without memory": (
        {"lr": resized_number()},
        TypeError,
        r"lr is a float32 Tensor of shape \(\).*; pass a number",
    ),
    "seed without memory": ({"seed": resized_number()}, TypeError, r"seed is a float32 Tensor of shape \(\)"),
    "many numbers": (
        {"lr": torch.ones(20, 20)},
        TypeError,
        r"lr is a float32 Tensor of shape \(20, 20\).*; pass a number",
    ),
    "too large": ({"beta": 10**400}, ValueError, r"beta is 1000.* which is too large for a float"),
    "too large to print": (
        {"beta": 10**5000},
        ValueError,
        r"beta is an integer of 16610 bits, which is too large for a float",
    ),
    "hyperparameter None": ({"beta": None}, TypeError, r"beta is None; pass a number"),
}


@pytest.mark.parametrize("name", BAD_SCALARS)
def test_bad_scalars(name: str) -> None:
    arguments, error, message = BAD_SCALARS[name]
    t = tensors()
    before = memory(t)
    with pytest.raises(error, match=message) as caught:
        nos_ext.apply_rule(RULE, t["params"], t["grads"], t["state"], **{"lr": 0.1, **arguments})
    assert "\n" not in str(caught.value)
    assert memory(t) == before


def test_total_steps_is_asked_for() -> None:
    program = nos_ext.compile_rule("g * ld")
    with pytest.raises(ValueError, match=r"total_steps is None; rule '.*' reads T"):
        nos_ext.apply_rule(program, [torch.zeros(1)], [torch.zeros(1)], {}, lr=0.1)


@pytest.mark.parametrize("source", [None, "g", 3])
def test_not_a_program(source: Any) -> None:
    with pytest.raises(TypeError, match="bytecode_or_program is a"):
        nos_ext.apply_rule(source, [], [], {}, lr=0.1)


def test_read_only_lists_may_share() -> None:
    """Two parameters may have the same gradient tensor: it is only read."""
    program = nos_ext.compile_rule("g")
    shared = torch.ones(4)
    params = [torch.zeros(4), torch.zeros(4)]
    nos_ext.apply_rule(program, params, [shared, shared], {}, lr=0.5)
    assert all(torch.equal(p, torch.full((4,), -0.5)) for p in params)


MESSAGE_LINES: dict[str, Callable[[], torch.Tensor]] = {
    "meta": lambda: torch.zeros(4, device="meta"),
    "sparse": lambda: torch.ones(4).to_sparse(),
    "mkldnn": lambda: torch.ones(4).to_mkldnn(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(2)], layout=torch.jagged),
}


@pytest.mark.parametrize("name", MESSAGE_LINES)
@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_one_line_without_the_frames_of_cpp(name: str) -> None:
    tensor = MESSAGE_LINES[name]()
    with pytest.raises(ValueError, match=r"params\[0\] has no memory") as error:
        nos_ext.apply_rule(nos_ext.compile_rule("g"), [tensor], [tensor], {}, lr=0.1)
    assert "\n" not in str(error.value)
    assert "frame #" not in str(error.value)


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.functionalize])
def test_inside_a_function_transform(transform: Callable[..., Any]) -> None:
    def call(g: torch.Tensor) -> torch.Tensor:
        with pytest.raises(ValueError, match="has no memory"):
            nos_ext.apply_rule(nos_ext.compile_rule("g"), [torch.zeros(3)], [g], {}, lr=0.1)
        return g

    transform(call)(torch.ones(2, 3))


@pytest.mark.filterwarnings("ignore")
def test_an_asynchronous_collective_is_waited_for() -> None:
    import torch.distributed as dist
    from torch.distributed import _functional_collectives as collectives

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        p, g, m = (collectives.all_reduce(torch.full((5,), x), "sum", [0]) for x in (1.0, 2.0, 3.0))
        assert isinstance(g, collectives.AsyncCollectiveTensor)
        nos_ext.apply_rule(RULE, [p], [g], {"m": [m]}, lr=0.5)
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(m + 0, torch.full((5,), 0.9 * 3.0 + 0.1 * 2.0))
    torch.testing.assert_close(p + 0, torch.full((5,), 1.0 - 0.5 * (0.9 * 3.0 + 0.1 * 2.0)))


@pytest.mark.parametrize("value", [True, 1, np.bool_(True), np.True_])
def test_flags(value: Any) -> None:
    for given, sign in ((value, 1), (type(value)(0), -1)):
        p = torch.zeros(3)
        nos_ext.apply_rule(nos_ext.compile_rule("g"), [p], [torch.ones(3)], {}, lr=1.0, maximize=given)
        assert torch.equal(p, torch.full((3,), float(sign)))


class Failing:
    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("it fails")


@pytest.mark.parametrize(
    "value", [None, 1.0, object(), np.float32(1), lambda: [], Failing()], ids=lambda x: type(x).__name__
)
def test_what_is_no_list(value: Any) -> None:
    fails = isinstance(value, Failing)
    error, message = (RuntimeError, "it fails") if fails else (TypeError, f"is a {type(value).__name__}; pass a list")
    for wrong in ({"params": value}, {"grads": value}, {"state": {"m": value}}, {"state": [value]}):
        t = tensors()
        arguments = {**t, **wrong}
        before = memory(t)
        with pytest.raises(error, match=message):
            nos_ext.apply_rule(RULE, arguments["params"], arguments["grads"], arguments["state"], lr=0.1)
        assert memory(t) == before


PARAMS: list[Any] = [torch.zeros(3, 4), np.zeros(5)]
NO_LISTS: list[tuple[Any, Any, str]] = [
    ("g", PARAMS, r"^program is a str; pass a nos_ext.Program or its .bytecode"),
    (RULE.rule, PARAMS, r"^program is a Rule; pass a nos_ext.Program"),
    (None, PARAMS, r"^program is a NoneType; pass a nos_ext.Program"),
    (RULE, None, r"^params is a NoneType; pass a list of tensors"),
    (RULE, torch.zeros(3, 4), r"^params is a Tensor; pass a list of tensors"),
    (RULE, np.zeros((3, 4)), r"^params is a ndarray; pass a list of tensors"),
    (RULE, {"w": torch.zeros(3)}, r"^params is a dict; pass a list of tensors"),
]


@pytest.mark.parametrize(("program", "params", "message"), NO_LISTS, ids=[message for *_, message in NO_LISTS])
def test_states_of_what_is_no_list(program: Any, params: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        nos_ext.init_state(program, params)
    with pytest.raises(TypeError, match=message.replace("program is", r"programs\[0\] is")):
        nos_ext.init_population_state([program], params)
    with pytest.raises(TypeError, match=r"^programs is a Program; pass a list of programs"):
        nos_ext.init_population_state(RULE, PARAMS)  # type: ignore[arg-type]


def test_parameters_may_come_from_a_generator() -> None:
    rule = nos_ext.compile_rule("m / v")
    state = nos_ext.init_state(rule, iter(PARAMS))  # type: ignore[arg-type]
    assert [[tuple(x.shape) for x in state[name]] for name in ("m", "v")] == [[(3, 4), (5,)]] * 2
    slots = nos_ext.init_population_state([rule], iter(PARAMS))  # type: ignore[arg-type]
    assert [[tuple(x.shape) for x in slot] for slot in slots] == [[(3, 4), (5,)]] * 2
