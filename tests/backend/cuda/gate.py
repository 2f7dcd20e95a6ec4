"""What the compiled CUDA kernels must look like: no spills, no local memory, one indirect branch, registers in budget.

    python -m tests.backend.cuda.gate [--arch 80 90 ...]     (make gate)

Compiles csrc/backend/cuda/runtime/kernels.cu for each architecture, reads ptxas' report and, where nvdisasm is found (on PATH or
from PyPI: nvidia-cuda-nvdisasm), the machine code; prints a table; exit status 1 names every kernel that fails and its
figures. The last columns are instructions per element that the interpreter issues for a rule, counted in the machine
code along the usual path: loads and stores not included.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "csrc/backend/cuda/runtime/kernels.cu"
# as in cmake/NosCudaBackend.cmake
FLAGS = ["-std=c++20", "-O3", "--fmad=false", "-Xcicc", "-jump-table-density=10", "-Xptxas", "-v", "-cubin"]
ARCHITECTURES = ["75", "80", "90", "100"]


@dataclass
class Limits:
    """registers: 65536 per multiprocessor, for 2 blocks of 256 threads, or of 128 where these hold 8 doubles each, or 32
    blocks of 32 of the prologue; a half of that for what runs between passes."""

    title: str
    elements: int
    registers: int
    branches: int
    powersign: float = 0  # instructions per element for this rule, of which dispatch is the most


KERNELS = {
    r"11interpreterIfLi8ELb0E": Limits("interpreter f32", 8, 128, 1, 95),
    r"11interpreterIfLi8ELb1E": Limits("interpreter mixed", 8, 128, 1, 95),
    r"11interpreterIdLi4ELb0E": Limits("interpreter f64", 4, 128, 1, 170),
    r"folding_interpreterIfLb0E": Limits("reducing f32", 8, 128, 1, 95),
    r"folding_interpreterIfLb1E": Limits("reducing mixed", 8, 128, 1, 95),
    r"folding_interpreterIdLb0E": Limits("reducing f64", 8, 255, 1, 130),
    r"21quantized_interpreterE": Limits("quantized", 8, 128, 1, 95),
    r"8prologueE": Limits("prologue", 1, 64, 1),
    r"5beginE": Limits("begin", 1, 64, 1),
    r"11first_levelE": Limits("first level", 1, 64, 0),
    r"6finishE": Limits("finish", 1, 64, 2),
    r"4joinE": Limits("join", 1, 64, 2),
}
# CUDA's own reduction of angles beyond 2^31 for sin and cos, which other arguments do not enter, has an array in local
# memory.
MAY_BE_LOCAL = re.compile(r"__internal_trig_reduction_slowpath")


@dataclass
class Report:
    arch: str
    limits: Limits
    registers: int
    spills: int
    local: int | None = None  # None: no disassembler
    branches: int | None = None
    instructions: int | None = None
    code: list[str] = field(default_factory=list)
    issued: dict[str, float] = field(default_factory=dict)  # instructions per element, by rule

    def problems(self) -> list[str]:
        limits, out = self.limits, []
        if self.spills:
            out.append(f"spills {self.spills} bytes")
        if self.registers > limits.registers:
            out.append(f"uses {self.registers} registers, limit {limits.registers}")
        if self.local:
            out.append(f"has {self.local} accesses to local memory")
        if self.branches is not None and self.branches != limits.branches:
            out.append(f"has {self.branches} indirect branches, expected {limits.branches}")
        if limits.powersign and self.issued.get("powersign", 0) > limits.powersign:
            out.append(
                f"issues {self.issued['powersign']:.1f} instructions per element for powersign, limit {limits.powersign}"
            )
        return [f"sm_{self.arch} {limits.title}: {p}" for p in out]


def nvcc() -> str | None:
    return os.environ.get("CUDACXX") or shutil.which("nvcc")


def nvdisasm() -> str | None:
    found = shutil.which("nvdisasm")
    spec = importlib.util.find_spec("nvidia")
    for place in spec.submodule_search_locations or [] if spec else []:
        found = found or next((str(p) for p in Path(place).glob("*/bin/nvdisasm")), None)
    if found and not os.access(found, os.X_OK):  # wheels may lose the bit
        Path(found).chmod(0o755)
    return found


def limits_of(symbol: str) -> Limits | None:
    return next((limits for pattern, limits in KERNELS.items() if re.search(pattern, symbol)), None)


def is_label(line: str) -> bool:
    return line.startswith((".L_x_", "$"))


def local_accesses(code: Iterable[str]) -> int:
    count, allowed = 0, False
    for line in code:
        if line.startswith("$"):
            allowed = bool(MAY_BE_LOCAL.search(line))
        count += not allowed and bool(re.search(r"\b(LDL|STL)\b", line))
    return count


def disassemble(cubin: Path, tool: str) -> dict[str, list[str]]:
    """Lines of code, labels and the names of subroutines included, of each function."""
    text = subprocess.run([tool, "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    out: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        start = re.match(r"\.text\.(\S+):$", line)
        if start:
            lines = out.setdefault(start[1], [])
        elif re.match(r"\s*\.section", line):
            lines = []
        elif is_label(line) or re.match(r"\s+/\*[0-9a-f]{4,}\*/\s", line):
            lines.append(line.strip())
    return out


def inspect(arch: str) -> list[Report]:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        command = [nvcc() or "nvcc", *FLAGS, f"-arch=sm_{arch}", "-o", str(cubin), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        reports = {}
        for part in done.stderr.split("Compiling entry function")[1:]:
            symbol = part.split("'")[1]
            limits = limits_of(symbol)
            if limits is None:
                raise RuntimeError(f"kernel {symbol} has no limits; add a row to KERNELS")
            spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", part))
            registers = int(re.findall(r"Used (\d+) registers", part)[0])
            reports[symbol] = Report(arch, limits, registers, spills)
        if len(reports) != len(KERNELS):
            raise RuntimeError(f"expected {len(KERNELS)} kernels, ptxas reported {sorted(reports)}")
        tool = nvdisasm()
        for symbol, lines in disassemble(cubin, tool).items() if tool else ():
            if symbol not in reports:
                continue
            report = reports[symbol]
            report.code = lines
            report.instructions = sum(not is_label(line) for line in lines)
            report.local = local_accesses(lines)
            report.branches = sum(bool(re.search(r"\bBRXU?\b", line)) for line in lines)
    return sorted(reports.values(), key=lambda r: list(KERNELS.values()).index(r.limits))


MEETING = re.compile(r"\bBSSY(?:\.\w+)*\s+(B\d+),\s*`\((\.L_x_\d+)\)")


# ---- instructions per element ----------------------------------------------------------------------------------------
def mnemonics() -> tuple[list[str], list[str]]:
    """Names of the slot instructions and of the single ones, in the order of their opcodes."""
    text = (ROOT / "csrc/backend/cuda/interpreter/isa.def").read_text()
    rows = re.findall(r"^NOS_(SLOT_MOVE|SLOT|ONE|MOVE)\((\w+)", text, re.M)
    return [n for k, n in rows if k.startswith("SLOT")], [n for k, n in rows if not k.startswith("SLOT")]


def counter(report: Report) -> dict[str, int]:
    """Instructions from one dispatch to the next for each mnemonic, such as ``ld r3`` or ``exp``."""
    code = report.code
    label_at = {line[:-1]: i for i, line in enumerate(code) if is_label(line)}
    branch = max((i for i, line in enumerate(code) if re.search(r"\bBRXU?\b", line)), key=lambda i: len(code[i]))
    targets = re.findall(r"\.L_x_\d+", code[branch].split("BRANCH_TARGETS")[1])
    # where threads that left through other cases meet again; the dispatch sets it up before it branches
    barriers = dict(m for line in code[max(branch - 12, 0) : branch] for m in MEETING.findall(line))
    slot, one = mnemonics()
    names = [f"{n} r{s}" for n in slot for s in range(9)] + one
    out = {}
    for name, target in zip(names, targets, strict=False):
        out[name] = walk(code, label_at, label_at[target], branch, dict(barriers))
    return out


def walk(code: list[str], label_at: dict[str, int], at: int, branch: int, barriers: dict[str, str]) -> int:
    """Instructions from `at` to the indirect branch; slow paths of division and square root are not entered."""
    count, seen = 0, set()
    while at < len(code):
        line = code[at]
        if is_label(line):
            at += 1
            continue
        count += 1
        if at == branch:
            return count
        barriers.update(MEETING.findall(line))
        meet = re.search(r"\bBSYNC(?:\.\w+)*\s+(B\d+)", line)
        if meet and "@" not in line and meet[1] in barriers:
            at = label_at[barriers[meet[1]]]
            continue
        jump = re.search(r"(@!?U?P\d\s+)?BRA(\.\w+)*\s+(?:!?U?P\d,\s*)?`\((\.L_x_\d+)\)", line)
        if jump and at not in seen:
            seen.add(at)
            to = label_at[jump[3]]
            skipped = code[at:to] if to > at else []
            slow = any(re.search(r"\bCALL\b", s) for s in skipped)
            again = branch - 12 < to <= branch  # the next instruction
            if jump[1] is None or slow or again:
                at = to
                continue
        at += 1
    return count


def per_element(report: Report, costs: dict[str, int], listing: Iterable[str]) -> float:
    """For device code as `host.listing` gives it; costs: `counter` of the report."""
    total = 0
    for line in listing:
        words = line.split()
        total += costs[f"{words[0]} {words[1]}" if len(words) > 1 and words[1].startswith("r") else words[0]]
    return total / report.limits.elements


def count_issued(reports: list[Report]) -> None:
    """Fills `issued` of the interpreters whose machine code is known."""
    listings = rules() if nvdisasm() else {}
    for r in reports:
        if r.code and r.limits.elements > 1:
            costs = counter(r)
            r.issued = {name: per_element(r, costs, listing) for name, listing in listings.items()}


def table(reports: list[Report]) -> str:
    names = list(dict.fromkeys(name for r in reports for name in r.issued))
    header = ["arch", "kernel", "registers", "spills", "local", "branches", "instructions", *names]
    rows = [header]
    for r in reports:
        cells = [f"sm_{r.arch}", r.limits.title, r.registers, r.spills, r.local, r.branches, r.instructions]
        counted = [f"{r.issued[name]:.1f}" if name in r.issued else "" for name in names]
        rows.append([*("?" if c is None else str(c) for c in cells), *counted])
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def rules() -> dict[str, list[str]]:
    """Device code of the rules whose instructions the table counts."""
    import nos_ext
    from nos_ext.optim import library
    from tests.backend.cuda import host

    sources = {"powersign": library.powersign, "adam": library.adam, "lion": library.lion, "addsign": library.addsign}
    return {name: host.listing(nos_ext.compile_rule(rule))[0] for name, rule in sources.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="+", default=ARCHITECTURES, help="compute capabilities without the dot")
    options = parser.parse_args()
    if not nvcc():
        print("gate: no nvcc on PATH and no CUDACXX; nothing was checked", file=sys.stderr)
        return 1
    reports = [r for arch in options.arch for r in inspect(arch)]
    count_issued(reports)
    print(table(reports))
    if not nvdisasm():
        print("no nvdisasm: local memory and branches were not checked (pip install nvidia-cuda-nvdisasm)")
    problems = [p for r in reports for p in r.problems()]
    for problem in problems:
        print(f"gate: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
