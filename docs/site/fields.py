"""An extension of griffe, which reads the sources for mkdocstrings: `Fields:` in a docstring lists the attributes.

Google's style, which griffe reads, calls them `Attributes:`.
"""

from __future__ import annotations

from typing import Any

import griffe


class Fields(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nFields:\n", "\nAttributes:\n")
