"""Makes data/kjv_text.txt.xz and data/kjv_rv1909_pairs.txt.xz, the texts that this package carries.

    python -m nos_search.task._make_bible_subsets /usr/share/sword

Reads two public-domain Bibles in the form of Debian's sword-text-kjv (King James Version, English) and sword-text-sparv
(Reina-Valera 1909, Spanish), which number their verses alike. kjv_text: the verses of Genesis and on, one a line, the
first million characters. kjv_rv1909_pairs: lines "English TAB Spanish" of the verses with at most 16 words on either
side. The same input gives the same bytes.
"""

from __future__ import annotations

import lzma
import re
import struct
import sys
import zlib
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"
TEXT_CHARACTERS = 1_000_000
PAIR_WORDS = 16
_NOT_TEXT = re.compile(r"<note.*?</note>|<title.*?</title>|<[^>]*>|[¶\\\\]", re.DOTALL)


def read_module(folder: Path, name: str) -> list[str]:
    """Returns plain text by position in the versification; it is "" where there is no verse. The layout is "zText" of
    the SWORD project: for each testament, bzv holds (block, offset, length) of each entry, and bzs holds (offset,
    length, _) of each block in bzz."""
    verses = []
    for testament in ("ot", "nt"):
        base = folder / "modules/texts/ztext" / name / testament
        packed = base.with_suffix(".bzz").read_bytes()
        blocks = [
            zlib.decompress(packed[start : start + size])
            for start, size, _ in struct.iter_unpack("<III", base.with_suffix(".bzs").read_bytes())
        ]
        for block, start, size in struct.iter_unpack("<IIH", base.with_suffix(".bzv").read_bytes()):
            entry = blocks[block][start : start + size].decode("utf-8") if size else ""
            verses.append(" ".join(_NOT_TEXT.sub("", entry).split()))
    return verses


def _write(name: str, text: str) -> None:
    path = DATA / name
    path.write_bytes(lzma.compress(text.encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))
    print(f"{path}: {len(text)} characters, {path.stat().st_size} bytes")


def main(folder: Path) -> None:
    english, spanish = read_module(folder, "engKJV2006eb"), read_module(folder, "spaRV1909eb")
    _write("kjv_text.txt.xz", "\n".join(verse for verse in english if verse)[:TEXT_CHARACTERS])
    pairs = [
        f"{a}\t{b}"
        for a, b in zip(english, spanish, strict=True)
        if a and b and len(a.split()) <= PAIR_WORDS and len(b.split()) <= PAIR_WORDS
    ]
    _write("kjv_rv1909_pairs.txt.xz", "\n".join(pairs))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
