"""A hook of MkDocs: the pages of the API get the whole docstrings, where their text in the repository has a table.

The table is what can be read on GitHub. Behind it each name stands in a comment, `<!-- ::: nos_ext.apply_rule -->`, and
what is in such a comment is an instruction to mkdocstrings. A page that a docstring names, docs/tasks.md, is linked.
"""

from __future__ import annotations

import re
from typing import Any

from mkdocs.structure.pages import Page

_COMMENT = r"^<!-- (::: [\w.]+) -->$"
_OPTIONS = "\n    options: { inherited_members: true }\n"


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    # A Program has most of its methods from elsewhere. Those of an optimizer would be RuleOptimizer's, over and over.
    options = _OPTIONS if page.file.src_uri == "reference/nos_ext.md" else "\n"
    return re.sub(_COMMENT, lambda found: found[1] + options, markdown, flags=re.MULTILINE)


def on_page_content(html: str, page: Page, **_: Any) -> str:
    if not page.file.src_uri.startswith("reference/"):
        return html
    return re.sub(r"(?<![\w/>])docs/([\w/]+)\.md", r'<a href="../\1.html">docs/\1.md</a>', html)
