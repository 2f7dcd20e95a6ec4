"""What division by a scalar without the divider gains, rule by rule: python -m bench.quotient, after `make build`.

Prints (time of the rule's machine code with every division done by the divider) / (time as it is), the median of
interleaved rounds on one thread, for the rules of the library that have such a division. docs/native.md has the
figures, and choose_quotients in csrc/backend/cpu/native/graph.cc decides which divisions they are.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import nos_ext
from nos_ext.optim import library

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "bench" / "native" / "quotient.cc"
ENGINE = ROOT / "build" / "dev" / "libnos_engine.a"


def main() -> int:
    if not ENGINE.exists():
        print(f"{ENGINE.relative_to(ROOT)} is missing: run `make build`", file=sys.stderr)
        return 1
    named = map(nos_ext.compile_rule, library.rules())
    programs = [program.bytecode for program in named if isinstance(program, nos_ext.Program)]
    with tempfile.TemporaryDirectory() as folder:
        bench = Path(folder) / "quotient"
        compiler = os.environ.get("CXX", "c++")
        command = [compiler, "-std=c++20", "-O2", str(SOURCE), str(ENGINE), "-fopenmp", "-o", str(bench)]
        subprocess.run(command, check=True)
        stdin = b"".join(struct.pack("<I", len(b)) + b for b in programs)
        return subprocess.run([bench], input=stdin, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
