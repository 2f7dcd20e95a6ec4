"""Makes a wheel fit for other Linux machines, which have no compiler and perhaps no OpenMP library; prints its size.

python .ci/repair_wheel.py WHEEL FOLDER

Needs auditwheel and patchelf on PATH. libgomp goes into the wheel under its own name. auditwheel would give it another
one, and the module would then have threads of its own beside torch's: the loader takes a library of the same name only
once, so whichever of torch and nos_ext is imported first brings the one that both use. torch's own wheels do the same.
None of torch's libraries is linked, so there are none to leave out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LIBRARY = "libgomp.so.1"
FOLDER = "nos_ext.libs"


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def found_by_loader(module: Path) -> Path | None:
    """Returns the OpenMP library that the module loads on this machine, or None for a build without OpenMP."""
    found = re.search(rf"{re.escape(LIBRARY)} => (\S+)", run("ldd", module))
    return Path(found[1]) if found else None


def with_openmp(wheel: Path, folder: Path) -> Path:
    """Writes the wheel to `folder` with the OpenMP library in it. auditwheel reads in the list of files what there is,
    and brings its hashes up to date."""
    tree = folder / "tree"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tree)
        names = archive.namelist()
    (module,) = tree.glob("nos_ext/_C.*.so")
    library = found_by_loader(module)
    if library is None:
        return wheel
    (tree / FOLDER).mkdir()
    shutil.copy(library.resolve(), tree / FOLDER / LIBRARY)
    (record,) = tree.glob("*.dist-info/RECORD")
    record.write_text(f"{FOLDER}/{LIBRARY},,\n{record.read_text(encoding='utf-8')}", encoding="utf-8")
    run("patchelf", "--set-rpath", f"$ORIGIN/../{FOLDER}", module)
    out = folder / wheel.name
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in [f"{FOLDER}/{LIBRARY}", *names]:  # the wheel's own folder stays last, as wheels have it
            archive.write(tree / name, name)
    return out


def main(wheel: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    before = set(target.glob("*.whl"))
    with tempfile.TemporaryDirectory() as folder:
        run("auditwheel", "repair", "--wheel-dir", target, with_openmp(wheel, Path(folder)))
    for made in sorted(set(target.glob("*.whl")) - before) or sorted(target.glob("*.whl")):
        print(f"{made} ({made.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python .ci/repair_wheel.py WHEEL FOLDER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
