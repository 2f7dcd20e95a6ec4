"""Owns what is called from Python to run rules: apply_rule and apply_population, and what they need.

Both are compiled. A rule with orthogonalize is several programs, which apply_rule hands to what is here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from . import _C
from ._numbers import integer, listed, shown
from ._state_dtypes import SCALE, checked_state_dtype, scale_count, stored_as
from .matrix import check_matrices, orthogonalize, refusal
from .rule import MatrixProgram, Program

__all__ = ["apply_population", "apply_rule", "build_info", "init_population_state", "init_state", "set_jit"]


apply_rule = _C.apply_rule
apply_population = _C.apply_population


def _apply_stages(program: MatrixProgram, params: Any, grads: Any, state: Any, /, **arguments: Any) -> None:
    params, grads = listed("params", params, "a list of tensors"), listed("grads", grads, "a list of tensors")
    if not isinstance(state, Mapping):
        lists = listed("state", state, "{name: [tensors]} or the lists in slot order")
        if len(lists) != len(program.state_names):
            raise ValueError(
                f"state has {len(lists)} lists; rule '{program.name}' has the states {[*program.state_names]}"
            )
        state = dict(zip(program.state_names, lists, strict=True))
    scales = {name + SCALE for name in program.state_names}
    if set(state).difference(scales) != set(program.state_names):
        raise ValueError(
            f"state has the lists {[*state]}; rule '{program.name}' has the states {[*program.state_names]} "
            "(nos_ext.init_state makes them)"
        )
    temporaries = run_stages(program, params, grads, state, arguments)
    apply_rule(program.stages[-1], params, grads, {**state, **temporaries}, **arguments)


_C.set_staged(MatrixProgram, _apply_stages)


def run_stages(
    program: MatrixProgram,
    params: Sequence[Any],
    grads: Sequence[Any],
    state: Mapping[str, Sequence[Any]],
    arguments: Mapping[str, Any],
) -> dict[str, list[Any]]:
    """Runs all stages but the last one, which leave the parameters and the states as they are.

    Returns:
        The orthogonalized tensors, which the last stage reads as states.

    Raises:
        ValueError, TypeError: as `apply_rule`, or a parameter that has a gradient is no matrix.
    """
    given = [g is not None for g in grads]
    check_matrices(program.name, params, given)
    temporaries: dict[str, list[Any]] = {}
    for stage, results in zip(program.stages[:-1], program.results, strict=False):
        for name, _ in results:
            # no tensor is looked at where there is no gradient
            lists = zip(params, given, strict=False)
            temporaries[name] = [_zeros_like(i, p, None) if has_grad else p for i, (p, has_grad) in enumerate(lists)]
        lists_of_stage = {name: (temporaries if name in temporaries else state)[name] for name in stage.state_names}
        scales = {name + SCALE: state[name + SCALE] for name in stage.state_names if name + SCALE in state}
        apply_rule(stage, params, grads, {**lists_of_stage, **scales}, **arguments)
        for name, how in results:
            orthogonalize([x for x, has_grad in zip(temporaries[name], given, strict=False) if has_grad], how)
    return temporaries


# The folders in which the wheels that torch's CUDA builds bring, or `pip install nvidia-cuda-nvrtc`, put libnvrtc. They
# are looked into only at the first compilation.
_C.set_nvrtc_folders([f"{p}/nvidia/{part}/lib" for p in sys.path if p for part in ("cu13", "cuda_nvrtc")])


def set_jit(mode: str, *, after: int | None = None) -> str:
    """Chooses how rules run on CUDA, for the whole process; returns the mode before.

    Results are the same bits in every mode, so this is about speed alone, like ``torch.set_num_threads``.

    Args:
        mode: With ``"never"``, the default, every rule runs in the interpreter. With ``"auto"`` it starts there, and a
            rule that has run `after` steps gets a kernel of its own, which NVRTC compiles in the background. With
            ``"always"`` it is compiled at its first step, which waits for that (about 0.1 s, and nothing when the
            kernel is in the disk cache).
        after: The number of steps after which ``"auto"`` compiles a rule; None restores the default, 1000.

    Without libnvrtc (``pip install "nos-ext[cuda]"`` installs it; torch's CUDA builds bring it) ``"auto"`` stays with
    the interpreter and ``"always"`` raises RuntimeError at the step; `build_info` says which libnvrtc there is. Calls
    that run several programs (`apply_population`) and captured steps always run in the interpreter.

    Three environment variables are read: ``NOS_JIT`` is the mode at the start; ``NOS_NVRTC`` is the path of libnvrtc,
    or 0 for none; ``NOS_JIT_CACHE`` is the folder of compiled kernels, or 0 for none (by default they go to
    ``nos_ext/jit`` under ``XDG_CACHE_HOME`` or ``~/.cache``).

    Raises:
        ValueError, TypeError: an unknown mode, or a number of steps out of range.
    """
    if not isinstance(mode, str):
        raise TypeError(f"mode is {shown(mode)}; pass 'auto', 'always' or 'never'")
    return _C.set_jit(mode, after=None if after is None else integer("after", after, 0, 2**32 - 1))


def init_state(
    program: Program | MatrixProgram | bytes, params: Sequence[Any], *, state_dtype: Any = None
) -> dict[str, list[Any]]:
    """Makes the zero states that a rule starts with, as ``{name: [one tensor per parameter]}``.

    Each has the shape and strides of its parameter, and the shape () where the rule keeps one number per tensor
    (`Program.per_tensor_states`). It is float64 for float64 parameters, and float32 for all others.

    With a `state_dtype`, ``"bfloat16"`` or ``"int8"``, the tensors are of that dtype; pass
    ``stochastic_rounding="states"`` to `apply_rule` then, or small changes are lost. In the place of int8 it is uint8
    for states that are never negative (`Program.non_negative_states`), and there is a list of scales more for each
    state, under ``name + ".scale"``.

    Raises:
        ValueError: an unknown `state_dtype`, or one beside a float64 parameter; bfloat16 beside NumPy's arrays.
    """
    program = program if isinstance(program, MatrixProgram) else _program("program", program)
    params = listed("params", params, "a list of tensors")
    numbers = program.per_tensor_states
    state: dict[str, list[Any]] = {}
    scales: dict[str, list[Any]] = {}
    for name, dtype in stored_as(program, checked_state_dtype(state_dtype)).items():
        shape = () if name in numbers else None
        state[name] = [_zeros_like(i, p, shape, dtype) for i, p in enumerate(params)]
        if dtype in ("int8", "uint8"):
            scales[name + SCALE] = [_zeros_like(i, p, (scale_count(_size(p)),)) for i, p in enumerate(params)]
    return {**state, **scales}


def init_population_state(programs: Sequence[Program | bytes], params: Sequence[Any]) -> list[list[Any]]:
    """Makes zero states for `apply_population`, in slot order: one list for each state of the program with the most.

    Each has the shape of its parameter, and the shape (K,) in a slot where the K programs keep one number per tensor.

    Raises:
        ValueError: one program keeps one number per tensor in a slot where another has a tensor.
    """
    known = [_program(f"programs[{k}]", x) for k, x in enumerate(listed("programs", programs, "a list of programs"))]
    params = listed("params", params, "a list of tensors")
    slots: list[bool] = []
    for program in known:
        for slot, name in enumerate(program.state_names):
            number = name in program.per_tensor_states
            if slot == len(slots):
                slots.append(number)
            elif slots[slot] != number:
                raise ValueError(
                    f"state {slot} is one number per tensor in some of the programs and a tensor in others "
                    f"('{name}' of rule '{program.name}'); reorder the states, or run these programs apart"
                )
    shape = (len(known),)
    return [[_zeros_like(i, p, shape if number else None) for i, p in enumerate(params)] for number in slots]


def _program(name: str, program: Any) -> Program:
    if isinstance(program, MatrixProgram):
        raise refusal(program, "a population")
    if isinstance(program, Program):
        return program
    if isinstance(program, _C.Program):
        program = program.bytecode
    if not isinstance(program, bytes | bytearray | memoryview):
        raise TypeError(
            f"{name} is a {type(program).__name__}; pass a nos_ext.Program or its .bytecode (nos_ext.compile_rule "
            "makes one)"
        )
    return Program.from_bytes(program)


def _size(p: Any) -> int:
    return int(p.size) if isinstance(p.size, int) else int(p.numel())  # NumPy's, torch's


def _zeros_like(i: int, p: Any, shape: tuple[int, ...] | None, dtype: str | None = None) -> Any:
    """Makes a zero state of params[i], of another shape or dtype if one is given."""
    wide = str(p.dtype).endswith("float64") if hasattr(p, "dtype") else False
    if dtype is not None and wide:
        raise ValueError(
            f"state_dtype is given but params[{i}] is float64, beside which states have to be float64; leave it None"
        )
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(p, torch.Tensor):
        if p.layout != torch.strided:
            raise TypeError(f"params[{i}] is {shown(p)} in {p.layout}; pass a dense tensor")
        kind = getattr(torch, dtype or ("float64" if wide else "float32"))
        if shape is not None:
            return torch.zeros(shape, dtype=kind, device=p.device)
        return torch.zeros_like(p, dtype=kind, memory_format=torch.preserve_format, requires_grad=False)
    import numpy as np

    if isinstance(p, np.ndarray):
        if dtype == "bfloat16":
            raise ValueError(
                f"state_dtype is 'bfloat16' but params[{i}] is an array of NumPy, which has no bfloat16; pass 'int8', "
                "or torch's tensors"
            )
        kind = np.dtype(dtype or ("float64" if wide else "float32"))
        return np.zeros_like(p, dtype=kind, subok=False) if shape is None else np.zeros(shape, dtype=kind)
    raise TypeError(f"params[{i}] is a {type(p).__name__}; pass a torch.Tensor or a numpy.ndarray")


def build_info() -> dict[str, Any]:
    """Tells the versions, the instruction set in use, and whether CUDA is in this build or why it is not."""
    return dict(_C.build_info())
