"""Owns the figure of the learning-rate decays, which `python -m nos_ext.schedules --plot out.svg` writes.

matplotlib draws it. Only this command imports it, so nos_ext itself works without the extra `plot`.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ._lr_factors import Factor, cosine, linear_cosine, stepwise

STEPS: Final = 300
FORMATS: Final = ("svg", "png", "pdf")
# Each curve has a label, its factor, a colour, and dashes that tell it from the others without colour.
_CURVES: Final[tuple[tuple[str, Factor, str, str], ...]] = (
    ("stepwise decay", stepwise(STEPS // 3, 0.1), "#b45309", "--"),
    ("cosine decay", cosine(STEPS), "#1d4ed8", ":"),
    ("linear cosine decay", linear_cosine(STEPS, beta=0.001), "#be123c", "-"),
)
_SETTINGS: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "nos_ext",  # equal figures are equal files
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
}
_NO_DATE: Final = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}


def figure(form: str) -> bytes:
    """Draws the decays and returns the picture as a file of one of FORMATS."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        drawn = Figure(figsize=(8.0, 5.0), layout="constrained")
        axes = drawn.subplots()
        for label, factor, colour, dashes in _CURVES:
            steps = range(STEPS + 1)
            axes.plot(steps, [factor(step) for step in steps], dashes, color=colour, linewidth=2.0, label=label)
        axes.set(
            title="Learning-rate decays", xlabel="step", ylabel="learning rate / initial learning rate", xlim=(0, STEPS)
        )
        axes.legend()
        stream = io.BytesIO()
        drawn.savefig(stream, format=form, metadata=_NO_DATE[form])
    return stream.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line of nos_ext.schedules."""
    parser = argparse.ArgumentParser(prog="python -m nos_ext.schedules", description="Draw the learning-rate decays.")
    parser.add_argument("--plot", metavar="OUT.svg", type=Path, required=True, help="the .svg, .png or .pdf to write")
    path = parser.parse_args(arguments).plot
    form = path.suffix[1:].lower()
    if form not in FORMATS:
        parser.error(f"--plot is {str(path)!r}; choose a name that ends in .svg, .png or .pdf")
    try:
        path.write_bytes(figure(form))
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        parser.exit(1, "--plot needs matplotlib, which is not installed; pip install 'nos-ext[plot]'\n")
    except OSError as error:
        parser.exit(1, f"--plot is {str(path)!r}, which cannot be written ({error.strerror}); pass another path\n")
    print(path)
    return 0
