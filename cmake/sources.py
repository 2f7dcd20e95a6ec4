"""From which sources a compiled module was built: it carries their hash, and this tells whether that still fits.

    python cmake/sources.py                the hash of csrc/, cmake/ and CMakeLists.txt
    python cmake/sources.py --write FILE   a C++ file with it, for the build
    python cmake/sources.py --check        exit status 0 if nos_ext/ holds this Python's module of these sources; says
                                           in one line which module it is, or why not

Nothing is imported: a module that was built elsewhere can be judged before it is loaded.
"""

import hashlib
import re
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARK = b"nos_ext was built from sources "  # the hash follows


def hash_of(root: Path) -> str:
    """SHA-256 over names and contents."""
    files = [p for top in ("csrc", "cmake") for p in (root / top).rglob("*") if p.is_file()]
    digest = hashlib.sha256()
    for path in sorted(p for p in [*files, root / "CMakeLists.txt"] if "__pycache__" not in p.parts):
        name = path.relative_to(root).as_posix()
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def check(root: Path) -> "tuple[bool, str]":
    """Whether the module fits, and the line to say."""
    module = Path("nos_ext") / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not (root / module).exists():
        return False, f"there is no {module}, the module for this Python"
    found = re.search(re.escape(MARK) + b"([0-9a-f]{64})", (root / module).read_bytes())
    expected = hash_of(root)
    if not found:
        return False, f"{module} does not say from which sources it was built"
    if found[1].decode() != expected:
        return False, f"{module} was built from other sources ({found[1].decode()[:12]}, these are {expected[:12]})"
    return True, f"{module} was built from these sources ({expected[:12]})"


def main(arguments: "list[str]") -> int:
    if not arguments:
        print(hash_of(ROOT))
    elif arguments == ["--check"]:
        fits, line = check(ROOT)
        print(line)
        return 0 if fits else 1
    elif len(arguments) == 2 and arguments[0] == "--write":
        text = f'[[gnu::used]] static const char built_from[] = "{MARK.decode()}{hash_of(ROOT)}";\n'
        Path(arguments[1]).write_text("// written by cmake/sources.py\n" + text)
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
