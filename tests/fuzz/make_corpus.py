"""Seeds of the fuzz target: the bytecode of every library rule and found-rule shape, one file each.

python tests/fuzz/make_corpus.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import nos_ext
from nos_ext.optim import library


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in library.names():
        (folder / name).write_bytes(nos_ext.compile_rule(getattr(library, name)).bytecode)
    print(f"{len(library.names())} seeds in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
