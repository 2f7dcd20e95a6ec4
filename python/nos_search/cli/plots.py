"""Owns the option --plot: what is checked before a command works, and the file that it writes in the end."""

from __future__ import annotations

from ..show.figure import Drawing, check_matplotlib, form_of
from ..store import files
from .output import note


def check_plot(path: str | None) -> None:
    """Raises UsageError for a file that cannot be written or has no format, and ModuleNotFoundError when there is
    nothing to draw with, before anything takes long. With None nothing is drawn."""
    if path is not None:
        files.check_place("--plot", path)
        form_of("--plot", path)
        check_matplotlib()


def draw(path: str, drawing: Drawing) -> None:
    """Writes a drawing in the format that the name of the file asks for, and says so."""
    files.write("--plot", path, drawing.render(form_of("--plot", path)))
    note(f"wrote {path}")
