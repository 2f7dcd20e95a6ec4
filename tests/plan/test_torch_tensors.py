"""Tensors that have not changed are not exported again: whatever torch can do to a tensor between two calls is seen.

The engine compares torch's tensors where torch keeps their facts (csrc/bind/torch_tensor.h). Every change here leaves the
Python object, or the address, or both as they were.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import nos_ext
import nos_ext.optim
from tests.fresh import Done, python, run_each

SOURCE = "def rule(p, g, m, *, lr):\n    m = m + g\n    return p - lr * m, m\n"


@pytest.fixture
def program() -> nos_ext.Program:
    return nos_ext.compile_rule(SOURCE)  # its own, so that no other test has called it


def step(program: nos_ext.Program, p: torch.Tensor, g: torch.Tensor | None, m: torch.Tensor) -> None:
    """One step, and what it must have done."""
    before = [x.detach().clone() for x in (p, m)]
    nos_ext.apply_rule(program, [p], [g], [[m]], lr=0.5)
    if g is not None:
        before[1] += g
        before[0] -= 0.5 * before[1]
    assert torch.equal(p, before[0])
    assert torch.equal(m, before[1])


def tensors(*shape: int, **kwargs: Any) -> list[torch.Tensor]:
    return [torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape).to(**kwargs) * k for k in (1, 2, 4)]


def test_the_installed_torch_is_understood(program):
    step(program, *tensors(3))
    assert nos_ext.build_info()["torch_tensors"] == "compared in place"


def set_data(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], None]:
    def change(x: torch.Tensor) -> None:
        x.data = make(x)

    return change


def swap(x: torch.Tensor) -> None:
    torch.utils.swap_tensors(x, torch.full((4, 4), 7.0))


def emptied(x: torch.Tensor) -> None:
    x.untyped_storage().resize_(0)
    x.untyped_storage().resize_(x.numel() * x.element_size())
    x.fill_(3.0)


CHANGES = {
    "transposed in place": lambda x: x.t_(),
    "transposed data": set_data(lambda x: x.data.t()),
    "other memory": set_data(lambda x: x.data.clone()),
    "reshaped in place": lambda x: x.resize_(2, 8),
    "one more dimension": lambda x: x.unsqueeze_(0),
    "six dimensions": lambda x: x.resize_(1, 2, 2, 1, 2, 2),
    "fewer elements": lambda x: x.resize_(3),
    "as_strided_": lambda x: x.as_strided_((2, 8), (8, 1)),
    "set_": lambda x: x.set_(torch.full((4, 4), 5.0)),
    "swapped": swap,
    "half the precision": set_data(lambda x: x.data.bfloat16()),
    "storage made again": emptied,
}


def outcome(program: nos_ext.Program, p: torch.Tensor, g: torch.Tensor, m: torch.Tensor) -> str:
    """What a step has to say: nothing, or why it was refused."""
    try:
        nos_ext.apply_rule(program, [p], [g], [[m]], lr=0.5)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("which", [(0, 1, 2), (0,), (1,), (2,)], ids=["all", "p", "g", "m"])
def test_a_change_between_two_calls(program, change, which):
    """What fits is stepped with, and what does not is refused and left as it was, as if the call were the first."""
    changed = tensors(4, 4)
    for _ in range(2):
        step(program, *changed)
    for i in which:
        change(changed[i])
    twins = [torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(x) for x in changed]
    wanted = outcome(nos_ext.compile_rule(SOURCE), *twins)
    assert outcome(program, *changed) == wanted
    assert all(map(torch.equal, changed, twins))


@pytest.mark.parametrize("dtype", [torch.float16, torch.int16])
def test_other_dtype_of_the_same_memory(program, dtype):
    """`view` of another dtype of equal size: same address, shape and strides."""
    p, g, m = tensors(8, dtype=torch.bfloat16)
    step(program, p, g, m)
    g.data = torch.full((8,), 2.0, dtype=torch.bfloat16)
    step(program, p, g, m)
    address = g.data_ptr()
    g.data = g.data.view(torch.int16).view(dtype)
    assert g.data_ptr() == address
    if dtype is torch.int16:
        with pytest.raises(ValueError, match=r"grads\[0\] is int16"):
            nos_ext.apply_rule(program, [p], [g], [[m]], lr=0.5)
    else:
        want = m.float() + g.float()
        nos_ext.apply_rule(program, [p], [g], [[m]], lr=0.5)
        torch.testing.assert_close(m.float(), want, rtol=2**-8, atol=0)


def test_a_lazy_copy_is_not_written(program):
    """A copy on write shares the address until one of the two is written."""
    p, g, m = tensors(16)
    step(program, p, g, m)
    for _ in range(2):
        copy = torch._lazy_clone(p)
        kept = copy.clone()
        step(program, p, g, m)
        assert torch.equal(copy, kept)


def test_a_negated_gradient_in_the_place_of_another(program):
    """Gradients come and go: an object, and torch's part of it, may lie where a negated view lies next."""
    p, _, m = tensors(8)
    places = set()
    for k in range(500):
        source = torch.full((8,), float(k))  # made first, so that it does not take the place itself
        g = torch.full((8,), float(k))
        places.add(id(g))
        step(program, p, g, m)
        del g
        negated = torch._neg_view(source)
        if id(negated) in places:
            places.add("met")
        with pytest.raises(ValueError, match=r"grads\[0\] is a lazily negated view"):
            nos_ext.apply_rule(program, [p], [negated], [[m]], lr=0.5)
        del negated
    assert "met" in places


def test_a_sparse_gradient(program):
    p, _, m = tensors(8)
    step(program, p, torch.ones(8), m)
    with pytest.raises(ValueError, match=r"grads\[0\] has no memory to work on: .*sparse"):
        nos_ext.apply_rule(program, [p], [torch.ones(8).to_sparse()], [[m]], lr=0.5)
    step(program, p, torch.ones(8), m)


def test_an_opaque_gradient_is_refused_as_in_a_first_call(program):
    """A tensor of mkldnn's own layout has an address, and what lies there is its own affair. Now and then it is that of
    the gradient which was freed before."""
    p, _, m = tensors(8)
    for _ in range(50):
        step(program, p, torch.ones(8), m)
        with pytest.raises(ValueError, match=r"grads\[0\] has no memory to work on"):
            nos_ext.apply_rule(program, [p], [torch.ones(8).to_mkldnn()], [[m]], lr=0.5)


def test_a_subclass_is_asked_for_its_sign_at_every_call(program):
    """The same object may be given other memory, and with it the mark of a negated view."""
    p, g, m = (x.as_subclass(Watched) for x in tensors(8))
    nos_ext.apply_rule(program, [p], [g], [[m]], lr=0.5)
    g.data = torch._neg_view(torch.ones(8))
    if not g.is_neg():
        pytest.skip("this torch drops the mark")
    with pytest.raises(ValueError, match=r"grads\[0\] is a lazily negated view"):
        nos_ext.apply_rule(program, [p], [g], [[m]], lr=0.5)


def test_lists_of_no_parameters(program):
    """The list that is too long is named, whatever is in it."""
    for _ in range(2):
        nos_ext.apply_rule(program, [], [], [[]], lr=0.5)
        for bad in (torch.ones(3), torch.ones(3, dtype=torch.int32), torch.ones(3).to_sparse()):
            with pytest.raises(ValueError, match="grads"):
                nos_ext.apply_rule(program, [], [bad], [[]], lr=0.5)


def test_one_parameter_with_ever_new_states(program):
    """More lists with one first parameter than a cache keeps of them."""
    p, g, _ = tensors(4)
    for k in range(40):
        step(program, p, g, torch.full((4,), float(k)))
    states = [torch.full((4,), float(k)) for k in range(20)]
    for _ in range(2):
        for m in states:
            step(program, p, g, m)


def test_a_gradient_that_parameter_defines_itself(monkeypatch):
    """An attribute of the class is what it says, also for optimizers."""
    p = torch.nn.Parameter(torch.zeros(3))
    optimizer = nos_ext.optim.RuleOptimizer([p], "g", lr=1.0)
    p.grad = torch.ones(3)
    optimizer.step()
    monkeypatch.setattr(torch.nn.Parameter, "grad", property(lambda self: torch.full((3,), 5.0)), raising=False)
    optimizer.step()
    assert p.tolist() == [-6.0] * 3


WHERE = (
    "with torch.inference_mode(): call()",
    "torch.func.vmap(lambda x: (call(), x)[1])(torch.ones(2))",
    "torch.func.grad(lambda x: (call(), x)[1])(torch.tensor(1.0))",
    "with torch.overrides.BaseTorchFunctionMode(): call()",
    "with torch.device('meta'): call()",
    "with torch._subclasses.FakeTensorMode(): call()",
)


@pytest.fixture(scope="module")
def first_seen() -> dict[str, Done]:
    """What comes of a first call there."""
    script = (
        "import torch, numpy, nos_ext\n"
        "program = nos_ext.compile_rule('g')\n"
        "p, g = (torch.from_numpy(numpy.full(3, x, numpy.float32)) for x in (0, 1))\n"
        "def call(): nos_ext.apply_rule(program, [p], [g], [], lr=1.0)\n"
        "{}\n"
        "assert p.tolist() == [-1.0] * 3, p\n"
        "print(nos_ext.build_info()['torch_tensors'])\n"
    )
    imports = "import torch, torch.overrides, torch._subclasses, numpy, nos_ext"
    return run_each(imports, {where: script.format(where) for where in WHERE})


@pytest.mark.parametrize("where", WHERE)
def test_first_seen_where_torch_answers_otherwise(where: str, first_seen: dict[str, Done]) -> None:
    """The experiments with a new torch see nothing of the modes and transforms around the first call."""
    done = first_seen[where]
    assert done.stdout.strip() == "compared in place", done.stderr


def test_a_moved_gradient_that_reaches_beyond_its_storage(program):
    """Only where tensors are compared in place: an export says nothing of the storage."""
    p, _, m = tensors(8)
    step(program, p, torch.ones(8), m)
    if nos_ext.build_info()["torch_tensors"] != "compared in place":
        return
    short = torch.ones(16)[8:]
    short.untyped_storage().resize_(4 * 12)
    kept = p.clone()
    with pytest.raises(ValueError, match=r"grads\[0\] has 8 elements, which reach beyond its storage of 48 bytes"):
        nos_ext.apply_rule(program, [p], [short], [[m]], lr=0.5)
    assert torch.equal(p, kept)


def test_inference_tensors_with_other_data_have_no_writes_to_count(program):
    """Torch refuses to count writes to them; the call must not fail after it has written."""
    with torch.inference_mode():
        p = torch.zeros(8)
    p.data = torch.zeros(8)
    other, g, m = tensors(8)
    version, kept = other._version, other.clone()
    for _ in range(2):
        nos_ext.apply_rule(program, [p, other], [g, g], [[m, m.clone()]], lr=0.5)
    assert p.abs().min() > 0
    assert not torch.equal(other, kept)
    assert other._version >= version + 2


def test_an_emptied_gradient_that_moves(program):
    p, _, m = tensors(8)
    step(program, p, torch.ones(8), m)
    gone = torch.ones(16)[8:]
    gone.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"grads\[0\] has no memory to work on"):
        nos_ext.apply_rule(program, [p], [gone], [[m]], lr=0.5)


def test_writes_are_counted(program):
    p, g, m = (x.requires_grad_() for x in tensors(8))
    skipped = torch.zeros(8)
    versions = [x._version for x in (p, g, m, skipped)]
    for _ in range(3):
        nos_ext.apply_rule(program, [p, skipped], [g, None], [[m, torch.zeros(8)]], lr=0.5)
    assert [x._version for x in (p, g, m, skipped)] == [versions[0] + 3, *versions[1:]]


def test_inference_tensors_are_written_inside_inference_mode(program):
    with torch.inference_mode():
        p, g, m = tensors(8)
        step(program, p, g, m)
        step(program, p, g, m)


class Watched(torch.Tensor):
    """Notes when its storage is asked for, which happens where a job is made, and else only in long calls."""

    asked = 0

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.asked += getattr(function, "__name__", "") == "untyped_storage"
        return super().__torch_function__(function, types, args, kwargs or {})


def test_lists_that_take_turns_keep_their_jobs(program):
    lists = [[x.as_subclass(Watched) for x in tensors(k % 7 + 1)] for k in range(300)]
    for p, g, m in lists:
        nos_ext.apply_rule(program, [p], [g], [[m]], lr=0.5)
    made = Watched.asked
    assert made >= 300
    for _ in range(2):
        for p, g, m in lists:
            nos_ext.apply_rule(program, [p], [g], [[m]], lr=0.5)
    assert Watched.asked == made


def test_plans_of_many_tensors_are_forgotten(program):
    """What a cache remembers is bounded: a hundred lists of five thousand tensors, of which it keeps a few."""
    empty = [torch.zeros(1) for _ in range(5000)]
    results = []
    for k in range(100):
        first = torch.tensor([float(k)])
        params = [first, *empty[1:]]
        nos_ext.apply_rule(program, params, [torch.ones(1)] + [None] * 4999, [empty[:1] + empty[1:]], lr=0.0)
        results.append(float(first))
    assert results == [float(k) for k in range(100)]


def test_everything_holds_where_torch_is_not_understood():
    """The same tests with the short way closed: a torch in which the engine finds nothing of what it looks for. Those that
    start a process of their own would have the way open again."""
    script = (
        "import sys, torch, pytest\n"
        "torch._C.__file__ = '/nowhere'\n"
        "code = pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'not understood and not first_seen', __file__, *sys.argv[1:]])\n"
        "import nos_ext\n"
        "print(nos_ext.build_info()['torch_tensors'])\n"
        "sys.exit(code)\n"
    )
    files = [__file__, __file__.replace("test_torch_tensors", "test_plan_reuse")]
    done = python(script.replace("__file__, ", ""), *files)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert done.stdout.splitlines()[-1] == "exported at every call: a function is not there"
