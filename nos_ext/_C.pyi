"""Compiled core of nos_ext. Kept by hand; tests/packaging/test_stubs.py compares it with the module."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

__version__: str

class _OpRow(TypedDict):
    code: int
    name: str
    arity: int
    domain: str
    symbol: str
    commutes: bool
    cost: int
    numpy: str
    torch: str
    latex: str
    doc: str

class Program:
    def __init__(self, bytecode: bytes) -> None: ...
    @property
    def bytecode(self) -> bytes: ...
    @property
    def name(self) -> str: ...
    @property
    def state_names(self) -> tuple[str, ...]: ...
    @property
    def hyperparameters(self) -> dict[str, float | None]: ...
    @property
    def constants(self) -> tuple[float, ...]: ...
    @property
    def scalar_code(self) -> list[tuple[str, int, int, int]]: ...
    @property
    def code(self) -> list[tuple[str, int, int, int]]: ...
    @property
    def outputs(self) -> tuple[int, ...]: ...
    @property
    def uses_total_steps(self) -> bool: ...
    @property
    def uses_random(self) -> bool: ...
    def identity(self) -> bytes: ...
    def eval_scalars(self, step: float, total_steps: float, hypers: Sequence[float]) -> list[float]: ...
    def disassemble(self) -> str: ...
    def __len__(self) -> int: ...

class FloatEnvironment:
    def __init__(self) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...

class Stepper:
    def __init__(
        self,
        program: Program,
        groups: list[dict[str, Any]],
        state: dict[Any, Any],
        hypers: tuple[str, ...],
        flags: tuple[str, ...],
        tensors: list[Any],
        states: list[list[Any]],
        steps: Any,
        counts: int,
    ) -> None: ...
    def divide(self, parts: list[Any], read: Callable[[int, int, Any], Any]) -> None: ...
    def gradients(self) -> list[Any]: ...
    def step(
        self, groups: Any, state: Any, read: Callable[[int, int, Any], Any], scale: Any = None, grads: Any = None
    ) -> int: ...

def op_table() -> list[_OpRow]: ...
def name_table() -> dict[str, tuple[str, ...]]: ...
def name_problem(kind: str, name: bytes) -> str | None: ...
def apply_rule(
    bytecode_or_program: Program | bytes,
    params: Sequence[Any],
    grads: Sequence[Any],
    state: Mapping[str, Sequence[Any]] | Sequence[Sequence[Any]],
    *,
    lr: Any,
    step: int = 1,
    total_steps: float | None = None,
    seed: int = 0,
    maximize: bool = False,
    grad_scale: Any = None,
    stochastic_rounding: bool = False,
    tensor_index: int = 0,
    **hyperparameters: Any,
) -> None: ...
def apply_population(
    programs: Sequence[Program | bytes],
    params: Sequence[Any],
    grads: Sequence[Any],
    state: Mapping[str, Sequence[Any]] | Sequence[Sequence[Any]],
    *,
    lr: Any,
    step: int = 1,
    total_steps: Any = None,
    seed: int | Sequence[int] = 0,
    maximize: bool = False,
    grad_scale: Any = None,
    stochastic_rounding: bool = False,
    tensor_index: int = 0,
    **hyperparameters: Any,
) -> None: ...
def set_tuning(block: int = ..., chunk: int = ..., threads: int = ...) -> None: ...
def build_info() -> dict[str, Any]: ...
def philox(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> tuple[int, int, int, int]: ...
def set_jit(mode: str, *, after: int | None = None) -> str: ...
def set_nvrtc_folders(folders: Sequence[str]) -> None: ...
def jit_status() -> str: ...
def cuda_source(program: Program, dtypes: Sequence[str], *, prelude: bool = True) -> str: ...
def nvrtc_compile(source: str, arch: int) -> tuple[bytes, str]: ...
def jit_build(
    program: Program, dtypes: Sequence[str], arch: int, *, mode: str = "always"
) -> tuple[bytes, bool] | None: ...

class CapturedStep:
    def __init__(
        self,
        programs: Sequence[Program],
        population: bool,
        params: Sequence[Any],
        grads: Sequence[Any],
        states: Sequence[Sequence[Any]],
        group_of: Sequence[int],
        rows: int,
        tensor_index: int,
        max_instructions: int,
        max_scalars: int,
        max_temporaries: int,
        in_capture: bool = False,
    ) -> None: ...
    def set_row(
        self,
        row: int,
        seed: int,
        total_steps: float,
        hypers: Sequence[float],
        sources: Sequence[int] = [],
        wide: int = 0,
    ) -> None: ...
    def set_head(self, steps_done: int, factor: float, stochastic_rounding: bool = False, counter: int = 0) -> None: ...
    def load(self, number: int, program: Program) -> None: ...
    def launch(self) -> None: ...
    def steps_done(self) -> int: ...
