"""Seeds of the fuzz target: the bytecode of every library rule and of rules with reductions, one file each.

python tests/fuzz/make_corpus.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import nos_ext
from nos_ext.optim import library

REDUCING: Final = (
    "g / norm(g)",
    "m_hat * min(1, 1 / global_norm(g)) + sign(dot(g, w)) * drop(w, 0.1)",
    """def averaged(p, g, k, m, *, lr, beta=0.9):
    k = beta * k + (1 - beta) * rms(g)
    m = beta * m + g / max(k, max_abs(m))
    return p - lr * m + normal(0.01 * k), k, m
""",
    """def phases(p, g, a, b, *, lr):
    a = max(a, cos(global_sum(g * p) / t))
    q = g / (1 + abs(a)) + sum(p)
    b = where(b > 0.5, mean(q), global_dot(q, p / (1 + global_norm(q))))
    return p - lr * q * b, a, b
""",
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    named = {name: library.get(name).compile() for name in library.names()}
    seeds = {name: program for name, program in named.items() if isinstance(program, nos_ext.Program)}
    seeds |= {f"reducing_{i}": nos_ext.compile_rule(text) for i, text in enumerate(REDUCING)}
    for name, program in seeds.items():
        (folder / name).write_bytes(program.bytecode)
    print(f"{len(seeds)} seeds in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
