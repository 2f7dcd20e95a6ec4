"""A torch that lacks a name which it never promised: a warning with the versions, and everything else works."""

from __future__ import annotations

import tokenize
from pathlib import Path

import pytest

import nos_ext
from tests.fresh import Done, run_each

PROGRAM = """
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("always", message=".*nos_ext.*")
import torch, torch.optim.optimizer, torch._subclasses.fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
{remove}
from nos_ext.optim import PowerSign
params = [torch.ones(3, requires_grad=True)]
optimizer = PowerSign(params, fused=True)
seen = []
optimizer.register_step_post_hook(lambda o, args, keywords: seen.append(1))
for _ in range(3):
    params[0].grad = torch.full((3,), 2.0)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(0.0)
    optimizer.step()
    assert params[0].grad.tolist() == [1.0] * 3
assert optimizer.state[params[0]]["step"].item() == 3 and len(seen) == 3, seen
print(round(params[0][0].item(), 4))
"""
NAMES = {
    "torch.optim.Optimizer.profile_hook_step": "kept = torch.optim.Optimizer.profile_hook_step\n"
    "del torch.optim.Optimizer.profile_hook_step\n"
    "torch.optim.Optimizer._patch_step_function = lambda self: setattr(type(self), 'step', kept(type(self).step))"
    " if not hasattr(type(self), 'patched') and setattr(type(self), 'patched', 1) is None else None",
    "_is_profiler_enabled": "del torch.autograd.profiler._is_profiler_enabled",
    "torch._foreach_div_": "import torch._dynamo\ndel torch._foreach_div_",
    "torch._C._len_torch_dispatch_stack": "import torch.utils._python_dispatch\ndel torch._C._len_torch_dispatch_stack",
}


@pytest.fixture(scope="module")
def without() -> dict[str, Done]:
    """What the program does without each of the names."""
    codes = {name: PROGRAM.format(remove=remove) for name, remove in NAMES.items()}
    return run_each("import torch._dynamo, torch._subclasses.fake_tensor", codes)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_gone(name: str, without: dict[str, Done]) -> None:
    done = without[name]
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0.1845\n"
    assert done.stderr.count("RuntimeWarning: torch ") == 1
    assert name in done.stderr
    assert "2.10 to 2.13" in done.stderr


def test_private_names_of_torch_are_in_one_place() -> None:
    """Attributes with a leading underscore, of anything but self and the package's own compiled module."""
    folder = Path(nos_ext.__file__).parent
    found = set()
    for path in folder.rglob("*.py"):
        with path.open("rb") as file:
            tokens = list(tokenize.tokenize(file.readline))
        if not any(t.string == "torch" and t.type == tokenize.NAME for t in tokens):
            continue
        for owner, dot, name in zip(tokens, tokens[1:], tokens[2:], strict=False):
            private = name.type == tokenize.NAME and name.string.startswith("_") and not name.string.startswith("__")
            if dot.string == "." and private and owner.string in ("torch", "optimizer", "profiler", "torch_optimizer"):
                found.add((path.relative_to(folder).as_posix(), name.string))
    found.discard(("testing/_training.py", "_step_supports_amp_scaling"))  # what GradScaler asks for
    assert {path for path, _ in found} == {"optim/_torch.py"}, found
