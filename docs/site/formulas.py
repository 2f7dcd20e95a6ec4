"""A hook of MkDocs: formulas become MathML, which every browser draws without a script.

In the pages they are TeX between dollars, as GitHub reads it.
"""

from __future__ import annotations

import html
import re
from typing import Any, Final

from latex2mathml.converter import convert

# What pymdownx.arithmatex makes of TeX between dollars.
_INLINE: Final = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK: Final = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    content = _BLOCK.sub(lambda found: f'<div class="formula">{_mathml(found[1], "block")}</div>', content)
    return _INLINE.sub(lambda found: _mathml(found[1], "inline"), content)


def _mathml(tex: str, display: str) -> str:
    return convert(html.unescape(tex).strip(), display=display)
