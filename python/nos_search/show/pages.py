"""Owns the templates of pages: each is one HTML file that contains everything it shows and loads nothing.

Text is escaped when it is put in. Only what is Markup, formulas and drawings that were escaped where they were made,
is put in as it is.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from ..escape import lines

_FOLDER = Path(__file__).resolve().parent / "templates"


@cache
def template(name: str) -> jinja2.Template:
    """Returns the template of that name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else lines(value),  # before it is escaped
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: "none" if value is None else f"{value:g}"
    return environment.get_template(name)
