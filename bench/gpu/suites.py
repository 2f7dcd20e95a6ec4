"""Owns the suites of the GPU benches: each yields the rows of one list of the record."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch

import nos_ext

from .. import population as many
from .. import reductions as norms
from ..case import Contender, repeated
from ..harness import quartiles
from ..peers import ENGINE, eager, foreach
from ..peers.engine import program
from ..rules import LR, RULES, TOTAL_STEPS
from . import scenes
from .contenders import INTERPRETER, contenders
from .timing import measure, sample, synchronize

Left = Callable[[], float]  # seconds


def copy_ceiling(device: str) -> dict[str, Any]:
    """GB/s of torch's copy_ of 512 MiB: read and written bytes together."""
    n = 1 << 12 if device == "cpu" else 1 << 27
    a = torch.ones(n, device=device)
    b = torch.empty_like(a)
    row = measure([Contender("copy", repeated(lambda: b.copy_(a)))], "copy", device, 1.0)["copy"]
    return {"elements": n, "us": row["us"], "gb_per_s": 8 * n / row["us"] * 1e-3}


def cells(device: str, budget: float, left: Left) -> Iterator[dict[str, Any]]:
    """SCENES x rules x dtypes, for as long as there is time."""
    for scene, rule, dtype in scenes.CELLS:
        if left() < budget:
            yield {"scene": scene, "rule": rule, "dtype": dtype, "skipped": "no time was left"}
            continue
        size = scenes.SCENES[scene] if device != "cpu" else scenes.shrunk(scenes.SCENES[scene])
        case = scenes.case(size, rule, dtype, device)
        found, missing = contenders(case)
        head = {"scene": scene, "rule": rule, "dtype": dtype, "elements": size.elements, "tensors": size.tensors}
        head |= {"bytes": scenes.bytes_moved(size, rule, dtype), "missing": missing}
        yield head | {"contenders": measure(found, INTERPRETER, device, budget)}
        del case, found
        forget(device)


def forget(device: str) -> None:
    """Gives back the memory of optimizers, which sit in reference cycles."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


POPULATIONS: Final = ((256, 50_000), (1024, 20_000))


def population(device: str, left: Left) -> Iterator[dict[str, Any]]:
    """K programs in one launch against K launches."""
    for k, elements in POPULATIONS if device != "cpu" else ((4, 1000),):
        if left() < 10:
            yield {"candidates": k, "elements": elements, "skipped": "no time was left"}
            continue
        s = many.stack(((elements,),), many.MIXED, k)
        for tensors in (s.params, s.grads, *s.slots):
            tensors[:] = [x.to(device) for x in tensors]
        found = [
            Contender("one launch", repeated(many.apply_population(s)), peer=False),
            Contender("K launches", repeated(many.apply_rules(s, keep_views=True)), peer=False),
            Contender("eager", repeated(many.eager(s))),
        ]
        yield {"candidates": k, "elements": elements, "contenders": measure(found, "one launch", device, 3.0)}


def reductions(device: str, left: Left) -> Iterator[dict[str, Any]]:
    """Rules with norms and clipping by the global norm, against what people use for them. The bytes are those of the
    passes that cannot be spared: what stands behind a reduction reads its tensors again."""
    for name, (rule, chosen) in itertools.product(("gpt2", "2^27"), norms.SCENES.items()):
        if left() < 6:
            yield {"scene": name, "rule": rule, "skipped": "no time was left"}
            continue
        size = scenes.SCENES[name] if device != "cpu" else scenes.shrunk(scenes.SCENES[name])
        found = chosen.build(scenes.case(size, chosen.rule, "float32", device))
        head = {"scene": name, "rule": rule, "elements": size.elements, "bytes": chosen.bytes * size.elements}
        yield head | {"contenders": measure(found, ENGINE, device, 2.0)}
        del found
        forget(device)


def first_update(device: str) -> dict[str, Any]:
    """From the text of a rule that nothing knows to its first step done on the device; milliseconds."""
    p = [torch.ones(1000, device=device)]
    g = [torch.ones(1000, device=device)]
    fresh = (f"def f(p, g, m, *, lr):\n    m = {0.5 + i * 1e-6} * m + g\n    return p - lr * exp(sign(g)) * m, m\n"
             for i in itertools.count())  # fmt: skip
    taken = []
    for text in itertools.islice(fresh, 30):
        state = {"m": [torch.zeros(1000, device=device)]}
        synchronize(device)
        begin = time.perf_counter()
        nos_ext.apply_rule(nos_ext.compile_rule(text), p, g, state, lr=LR)
        synchronize(device)
        taken.append((time.perf_counter() - begin) * 1e3)
    return dict(zip(("ms_q1", "ms", "ms_q3"), quartiles(taken[5:]), strict=True))


def compiled_peers(device: str, left: Left) -> Iterator[dict[str, Any]]:
    """torch.compile of PowerSign, its first call and then beside the engine. Slow to build, so the last suite."""
    updates = {"2^27": eager.UPDATES, "L2": eager.UPDATES, "gpt2": foreach.UPDATES}
    for scene, kind in updates.items():
        if left() < 15:
            yield {"scene": scene, "rule": "powersign", "skipped": "no time was left"}
            continue
        size = scenes.SCENES[scene] if device != "cpu" else scenes.shrunk(scenes.SCENES[scene])
        case = scenes.case(size, "powersign", "float32", device)
        update, k = kind["powersign"], case.rule.at(case.step)

        def eager_step(*lists: list[torch.Tensor], update: Any = update, k: Any = k) -> None:
            for tensors in zip(*lists, strict=True):
                update(k, *tensors)

        def list_step(*lists: list[torch.Tensor], update: Any = update, k: Any = k) -> None:
            update(k, *lists)

        torch._dynamo.reset()
        step = torch.compile(list_step if kind is foreach.UPDATES else eager_step, fullgraph=True, dynamic=False)
        lists = [[x.detach() for x in xs] for xs in case.lists]

        @torch.no_grad()
        def run(n: int, step: Any = step, lists: Any = lists) -> None:
            for _ in range(n):
                step(*lists)

        begin = time.perf_counter()
        sample(run, 1, device)
        seconds = time.perf_counter() - begin
        found, _ = contenders(case)
        rows = [c for c in found if c.name.startswith("nos_ext")]
        rows.append(Contender("torch.compile", run, build_seconds=seconds))
        head = {"scene": scene, "rule": "powersign", "elements": size.elements}
        yield head | {"contenders": measure(rows, INTERPRETER, device, 2.0)}


def for_profiler(device: str) -> None:
    """A launch of each of three rules in each tier, for ncu."""
    size = scenes.SCENES["2^27"] if device != "cpu" else scenes.shrunk(scenes.SCENES["2^27"])
    for mode in ("never", "always") if device != "cpu" else ("never",):
        nos_ext.set_jit(mode)
        for rule in ("powersign", "adam", scenes.RANDOM20):
            case = scenes.case(size, rule, "float32", device)
            nos_ext.apply_rule(program(RULES[rule].text), case.params, case.grads, case.state, lr=LR,
                               total_steps=TOTAL_STEPS)  # fmt: skip
            synchronize(device)
