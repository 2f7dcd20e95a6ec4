"""The machine code of the native tier, read by a disassembler that knows nothing of it."""

from __future__ import annotations

import ctypes
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import nos_ext

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not shutil.which("objdump"), reason="no objdump")
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="no g++")


def disassembled(code: bytes, folder: Path) -> dict[int, str]:
    """Address -> instruction in AT&T's syntax, one space after the name and none elsewhere."""
    (folder / "code").write_bytes(code)
    command = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "--insn-width=16", folder / "code"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    out = {}
    for line in text.splitlines():
        if found := re.match(r" *([0-9a-f]+):\t(?:[0-9a-f]{2} )+ *\t(.*)", line):
            out[int(found[1], 16)] = " ".join(found[2].split("#")[0].split())
    return out


# ---- one instruction at a time ---------------------------------------------------------------------------------------
class Form(NamedTuple):
    """How Intel's manual writes an instruction: the operands modrm.reg, vvvv and modrm.r/m by the kind of register,
    "" where there is none. order: as AT&T writes them, from source to result."""

    sets: str  # "vex", "evex" or both
    order: str = "rm v reg"
    reg: str = "V"  # V: ymm or zmm; x: xmm, y: ymm, k: mask, d: 32 bits
    v: str = "V"
    rm: str = "V"
    immediate: bool = False
    memory: int = 0  # bytes of the memory operand, 0: of a whole vector
    only: str = ""  # "register" or "memory": what r/m can be
    wide: bool = True


BOTH = Form("vex evex")
ONE = BOTH._replace(order="rm reg", v="")
STORE = ONE._replace(order="reg rm", only="memory")
SHIFT = Form("evex", order="rm v", reg="", immediate=True)
FORMS = {
    **dict.fromkeys(("vaddps", "vsubps", "vmulps", "vdivps", "vminps", "vmaxps", "vandps", "vorps", "vxorps", "vpermps"), BOTH),
    **dict.fromkeys((f"vf{n}madd{order}ps" for n in ("", "n") for order in (132, 213, 231)), BOTH),
    "vcmpps": BOTH._replace(immediate=True),
    "vpcmpud": Form("evex", immediate=True),
    **dict.fromkeys(("vpandd", "vpord", "vpaddd", "vpsubd", "vblendmps"), Form("evex")),
    **dict.fromkeys(("vfixupimmps", "vpternlogd"), Form("evex", immediate=True)),
    **dict.fromkeys(("vsqrtps", "vmovups", "vmovaps"), ONE),
    "vroundps": ONE._replace(sets="vex", immediate=True),
    "vrndscaleps": ONE._replace(sets="evex", immediate=True),
    "vbroadcastss": ONE._replace(memory=4, only="memory"),
    "vmovups_store": STORE,
    "vpsrld": SHIFT._replace(sets="vex evex"),
    "vpslld": SHIFT,
    "vblendvps": Form("vex", immediate=True),
    "vmaskmovps": Form("vex", only="memory"),
    "vmaskmovps_store": Form("vex", order="reg v rm", only="memory"),
    "vmovd": Form("vex", order="rm reg", reg="x", v="", rm="d", only="register", wide=False),
    "vpbroadcastd": Form("vex", order="rm reg", v="", rm="x", only="register"),
    "vpcmpgtd": Form("vex"),
    **dict.fromkeys(("vcvtph2ps", "vpmovzxwd"), ONE._replace(sets="evex", rm="y", memory=32)),
    "vcvtps2ph": STORE._replace(sets="evex", memory=32, immediate=True),
    "vpmovdw": STORE._replace(sets="evex", memory=32),
    **dict.fromkeys(("vpmovsxbd", "vpmovzxbd"), ONE._replace(sets="evex", rm="x", memory=16)),
    "vcvtdq2ps": ONE._replace(sets="evex"),
    "kortestw": Form("vex", order="rm reg", reg="k", v="", rm="k", only="register", wide=False),
    "kmovw": Form("vex", order="rm reg", reg="k", v="", rm="d", only="register", wide=False),
    "bzhi": Form("vex", order="v rm reg", reg="d", v="d", rm="d", only="memory", wide=False),
}  # fmt: skip

NAMES = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16))]
PREDICATES = {0: "eq", 3: "unord", 4: "neq", 0xC: "neq_oq", 0x1D: "ge_oq", 0x1E: "gt_oq", 0x11: "lt_oq", 0x12: "le_oq"}
NO_INDEX = 255
ADDRESSES = [
    (base, index, scale, disp)
    for base in (2, 4, 5, 7, 8, 12, 13, 15)
    for index, scale in ((NO_INDEX, 1), (0, 4), (0, 2), (0, 1))
    for disp in (0, 4, -8, 32, 64, -64 * 128, 64 * 127, 64 * 128, 127, 128, -128, -129)
]


def memory_text(base: int, index: int, scale: int, disp: int) -> str:
    offset = f"{'-' if disp < 0 else ''}0x{abs(disp):x}" if disp or base % 8 == 5 else ""
    return offset + f"(%{NAMES[base]}{'' if index == NO_INDEX else f',%{NAMES[index]},{scale}'})"


def a_case(rng: random.Random, name: str, form: Form, kind: str) -> tuple[str, str]:
    """A line for assemble.cc, and the pattern of what a disassembler must say about it."""
    registers = range(32) if kind == "evex" else range(16)

    def pick(of: str) -> int:
        return rng.choice({"k": range(8), "d": range(8)}.get(of, registers))

    def text(of: str, number: int) -> str:
        if of == "d":
            return f"%e{NAMES[number][1:]}"
        return f"%{'k' if of == 'k' else {'V': 'zmm' if kind == 'evex' else 'ymm', 'x': 'xmm', 'y': 'ymm'}[of]}{number}"

    to_mask = kind == "evex" and name in ("vcmpps", "vpcmpud")
    reg_kind = "k" if to_mask else form.reg
    numbers = {
        "reg": pick(reg_kind) if reg_kind else {"vpsrld": 2, "vpslld": 6}[name],
        "v": pick(form.v) if form.v else 0,
    }
    texts = {
        "reg": text(reg_kind, numbers["reg"]) if reg_kind else "",
        "v": text(form.v, numbers["v"]) if form.v else "",
    }
    register = form.only == "register" or (form.only != "memory" and rng.random() < 0.4)
    # in VEX, vpsrld shifts registers only; the emitter stores and loads half vectors only
    if (name, kind) == ("vpsrld", "vex"):
        register = True
    broadcast = kind == "evex" and not register and not form.memory and form.order != STORE.order and rng.random() < 0.4
    broadcast &= name not in ("vmovups", "vmovaps")
    if register:
        number = pick(form.rm)
        rm, texts["rm"] = f"r {number}", re.escape(text(form.rm, number))
    elif rng.random() < 0.2:
        rm, texts["rm"] = "c", r"0x[0-9a-f]+\(%rip\)"
    else:
        address = rng.choice(ADDRESSES)
        rm, texts["rm"] = "m " + " ".join(map(str, address)), re.escape(memory_text(*address))
    texts["rm"] += re.escape("{1to16}") if broadcast else ""
    mask = rng.randrange(8) if kind == "evex" else 0
    zero = mask > 0 and not to_mask and form.order != STORE.order and rng.random() < 0.5

    immediate, shown, spelled = -1, "", name.removesuffix("_store")
    if form.immediate and spelled in ("vcmpps", "vpcmpud"):
        immediate = rng.choice(list(PREDICATES)) if spelled == "vcmpps" else 5
        spelled = spelled.replace("cmp", "cmp" + (PREDICATES[immediate] if spelled == "vcmpps" else "nlt"))
    elif form.immediate:
        immediate = rng.randrange(16)
        shown = f"$0x{immediate:x},"
        if name == "vblendvps":
            shown, immediate = f"%ymm{immediate},", immediate << 4
    order = form.order.split()
    operands = [texts[o] if o == "rm" else re.escape(texts[o]) for o in order]
    operands[-1] += re.escape((f"{{%k{mask}}}" if mask else "") + ("{z}" if zero else ""))
    line = f"{kind} {name} {numbers['reg']} {numbers['v']} {rm} {immediate} "
    flags = f"{mask} {int(zero)} {int(broadcast)} {form.memory or 64}" if kind == "evex" else f"{int(form.wide)}"
    return line + flags, f"{spelled} {re.escape(shown)}{','.join(operands)}"


GENERAL = {
    "push 3 r 0": "push %rbx", "push 12 r 0": "push %r12", "pop 5 r 0": "pop %rbp", "pop 15 r 0": "pop %r15",
    "mov 5 r 4": "mov %rsp,%rbp", "mov 9 r 3": "mov %rbx,%r9", "sub 1 r 0": "sub %rax,%rcx", "cmp 0 r 1": "cmp %rcx,%rax",
    "load 8 m 7 255 1 16": "mov 0x10(%rdi),%r8", "load 7 m 7 255 1 0": "mov (%rdi),%rdi",
    "lea 4 m 5 255 1 -40": "lea -0x28(%rbp),%rsp", "add_number 16 r 0": "add $0x10,%rax",
    "sub_number 4096 r 4": "sub $0x1000,%rsp", "align_down 64 r 4": "and $0xffffffffffffffc0,%rsp",
    "zero 0 r 0": "xor %eax,%eax", "zero 9 r 0": "xor %r9d,%r9d", "ret 0 r 0": "ret", "vzeroupper 0 r 0": "vzeroupper",
}  # fmt: skip


@needs_compiler
def test_every_instruction_is_what_its_name_says(tmp_path: Path) -> None:
    table = (ROOT / "csrc/backend/cpu/native/x86/opcodes.def").read_text(encoding="utf-8")
    names = re.findall(r"^NOS_OPCODE\((\w+)", table, re.M)
    assert sorted(names) == sorted(FORMS)
    rng = random.Random(6)
    cases = [a_case(rng, n, FORMS[n], k) for n in names for k in FORMS[n].sets.split() for _ in range(80)]
    cases += [(f"general {line}", re.escape(text)) for line, text in GENERAL.items()]
    program = tmp_path / "assemble"
    subprocess.run(["g++", "-std=c++20", ROOT / "tests/backend/assemble.cc", "-o", program], check=True)
    lines = "\n".join(line for line, _ in cases) + "\n"
    out = subprocess.run([program], input=lines, capture_output=True, text=True, check=True).stdout.split()
    assert len(out) == len(cases)
    room = 16  # bytes; no instruction is longer
    code = b"".join(bytes.fromhex(x).ljust(room, b"\xcc") for x in out)
    found = disassembled(code, tmp_path)
    for i, (line, expected) in enumerate(cases):
        said = found[i * room]
        assert re.fullmatch(expected, said), (line, expected, said)
        length = len(out[i]) // 2
        assert length == room or found[i * room + length] == "int3", (line, "its length")


# ---- what runs -------------------------------------------------------------------------------------------------------
def pages() -> set[tuple[int, int]]:
    """Executable memory of this process that is of no file."""
    out = set()
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, rights, _, _, inode, *name = line.split()
        if rights == "r-xp" and inode == "0" and not name:
            start, end = (int(x, 16) for x in where.split("-"))
            out.add((start, end))
    return out


def dump(rule: str, path: str) -> None:
    """The machine code of a rule, from the memory of the process that has run it."""
    import numpy as np

    before = pages()
    program = nos_ext.compile_rule(rule)
    x = [[np.ones(64, np.float32)] for _ in range(2 + len(program.state_names))]
    nos_ext.apply_rule(program, x[0], x[1], x[2:], lr=0.1)
    (made,) = pages() - before
    Path(path).write_bytes(ctypes.string_at(made[0], made[1] - made[0]))


def code_of(rule: str, folder: Path, **env: str) -> list[str]:
    script = "import sys; sys.path.insert(0, sys.argv[1]); import test_machine_code as t; t.dump(*sys.argv[2:])"
    path = folder / "rule"
    subprocess.run(
        [sys.executable, "-c", script, os.path.dirname(__file__), rule, str(path)],
        env={**os.environ, **env},
        check=True,
    )
    text = list(disassembled(path.read_bytes(), folder).values())
    return text[: text.index("ret") + 1]


CPU = nos_ext.build_info()["cpu"]
ISAS = [] if CPU["native"].startswith("off") else [isa for isa in CPU["isas"] if isa in ("avx2", "avx512")]


@pytest.mark.skipif(not ISAS or not sys.platform.startswith("linux"), reason="no native tier, or no /proc")
@pytest.mark.parametrize("isa", ISAS)
def test_a_rule_is_one_loop_and_a_tail(isa: str, tmp_path: Path) -> None:
    """A multiplication and a subtraction of whole vectors, and the same once more for what is left."""
    code = code_of("def r(p, g, *, lr):\n    return p - lr * g\n", tmp_path, NOS_ISA=isa)
    names = [line.split()[0] for line in code]
    assert "(bad)" not in names
    assert names[-2:] == ["vzeroupper", "ret"]
    assert names.count("vmulps") == 2
    assert names.count("vsubps") == 2
    assert sum(name.startswith("j") and name != "jmp" for name in names) == 3
    vector = "%zmm" if isa == "avx512" else "%ymm"
    assert all(vector in line for line in code if line.split()[0] in ("vmulps", "vsubps"))


@pytest.mark.skipif("avx512" not in ISAS or not sys.platform.startswith("linux"), reason="no AVX-512, or no /proc")
@pytest.mark.parametrize(
    "update",
    ["p - lr * exp(sign(g) * sign(0.9 * m + 0.1 * g)) * g", "p * 0.99 - lr * exp(sign(g) * sign(m)) * g",
     "p * 0.99 - lr * (exp(sign(g)) * m + sign(m) * g + exp(sign(p) * sign(m)))",
     "p - lr * (max(g, m) + max(p, g) * sign(m) + clip(g, m, p))"],
)  # fmt: skip
def test_no_turn_of_a_loop_waits_for_the_one_before(update: str, tmp_path: Path) -> None:
    """These instructions wait for what is in the register that they write, so it has to be a value of the same turn."""
    code = code_of(f"def r(p, g, m, *, lr):\n    return {update}, m + g\n", tmp_path, NOS_ISA="avx512")
    written: set[str] = set()
    found = 0
    for line in code[: next(k for k, text in enumerate(code) if text.startswith("jle"))]:
        name, _, operands = line.partition(" ")
        *_, to = operands.split(",")
        if name == "int3":  # what comes before the loop
            written.clear()
        elif name in ("vfixupimmps", "vpermps", "vpternlogd"):
            found += 1
            assert to in written, line
        if to.startswith("%zmm"):
            written.add(to)
    assert found


@pytest.mark.skipif("avx512" not in ISAS or not sys.platform.startswith("linux"), reason="no AVX-512, or no /proc")
@pytest.mark.parametrize(
    ("rule", "with_divider", "without"),
    [("g / lr", 1, 0), ("sqrt(g) / lr", 1, 0), ("g / lr / (sqrt(p) + 1)", 1, 1), ("g / lr / (sqrt(p) + 1) + p / beta", 2, 1),
     ("g / lr, sqrt(m) / m", 1, 1), ("g / lr * rsqrt(p) + p / lr / sqrt(p)", 1, 2)],
)  # fmt: skip
def test_division_by_a_scalar_spares_the_divider_where_it_is_busy(
    rule: str, with_divider: int, without: int, tmp_path: Path
) -> None:
    """One division for every two other ops of the divider. It then divides under a mask only, elements out of range."""
    state = ", m" if "m" in rule else ""
    head = f"def r(p, g{state}, *, lr, beta=0.9):\n    return "
    code = code_of(f"{head}{rule}\n", tmp_path, NOS_ISA="avx512")
    masked = [line.endswith("{%k2}") for line in code if line.startswith("vdivps")]
    reciprocals = 2 * rule.count("rsqrt")  # in the loop and in its tail
    assert (masked.count(False) - reciprocals, masked.count(True)) == (2 * with_divider, 2 * without)
