"""Owns how a drawing is made: one palette, matplotlib's settings, and the formats that a drawing is written in.

matplotlib is imported when a drawing is rendered and not before, for it takes most of a second. A drawing is the same
bytes whenever it is rendered from the same data by the same matplotlib: no date, no random names, none of the user's
own settings.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from ..errors import UsageError
from ..escape import line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS: Final = ("svg", "png", "pdf")

# What each colour is for: on light and on dark ground. No two are equal, so that a page can tell them apart again.
PALETTE: Final[dict[str, tuple[str, str]]] = {
    "ink": ("#1c2430", "#e4e9f1"),
    "soft": ("#5d6a7c", "#97a4b7"),
    "line": ("#e1e5eb", "#2c3542"),
    "paper": ("#ffffff", "#1a2029"),
    "best": ("#0b7a5c", "#43c59e"),
    "mean": ("#c2570c", "#f0964f"),
    "base": ("#8a3ffc", "#be95ff"),
    "done": ("#3566c8", "#7aa5f5"),
    "dup": ("#8f9bb0", "#6c7a90"),
    "reject": ("#6b7686", "#8793a5"),
    "bad": ("#c23b4b", "#ef7382"),
    "bar": ("#b9cdf3", "#33507f"),
    "s0": ("#2f62c9", "#7ba6f6"),
    "s1": ("#c4500a", "#f19750"),
    "s2": ("#0a7b5e", "#44c69f"),
    "s3": ("#a3348f", "#e07fcf"),
    "s4": ("#b3261e", "#f07a6f"),
    "s5": ("#6b4fc0", "#ae97ef"),
    "s6": ("#1f7f96", "#67c4db"),
    "s7": ("#8a5a00", "#e0b04a"),
    "s8": ("#4f7d1f", "#9dcd6b"),
    "s9": ("#4c5a6e", "#a9b5c6"),
}
SERIES: Final = 10  # colours s0 to s9, for what has no colour of its own

_SETTINGS: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and read aloud
    "text.parse_math": False,  # a dollar sign in somebody's rule is a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],  # the first comes with matplotlib
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,  # room for a dash to show
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "text.color": PALETTE["ink"][0],
    "axes.labelcolor": PALETTE["ink"][0],
    "axes.titlecolor": PALETTE["ink"][0],
    "axes.edgecolor": PALETTE["soft"][0],
    "xtick.color": PALETTE["soft"][0],
    "ytick.color": PALETTE["soft"][0],
    "grid.color": PALETTE["line"][0],
    "grid.linewidth": 0.8,
    "figure.facecolor": PALETTE["paper"][0],
    "savefig.dpi": 150,
}
_SALT: Final = "nos_search"


def colour(role: str) -> str:
    """Returns the colour of a role on light ground."""
    return PALETTE[role][0]


def series(k: int) -> str:
    """Returns the colour of the k-th of several lines. After ten lines the colours come again."""
    return colour(f"s{k % SERIES}")


def words(text: object, most: int = 60) -> str:
    """Makes text of unknown origin fit for a drawing: it becomes one line of printable characters, at most `most`."""
    shown = line(text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


@dataclass(frozen=True)
class Drawing:
    """A Drawing is a picture that has not been made yet.

    `title` says what it shows, for those who cannot see it. `size` is its width and height in inches of 72 points.
    `paint` puts everything on an empty figure. `hover` has, by the gid of an artist, the text that a page shows when
    the mouse is over each of its marks.
    """

    title: str
    size: tuple[float, float]
    paint: Callable[[Figure], None]
    hover: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def render(self, form: str, *, salt: str = _SALT, ground: bool = True) -> bytes:
        """Makes the picture and returns it as a file of one of FORMATS.

        `salt` makes the names inside of an SVG differ from those in another one. With `ground` the paper is painted,
        too, so that the picture can be read on a page of any colour.
        """
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context(), warnings.catch_warnings():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update({**_SETTINGS, "svg.hashsalt": salt})
            warnings.filterwarnings("ignore", message="Glyph")  # a rule may hold characters that the font lacks
            figure = Figure(figsize=self.size)
            figure.patch.set_visible(ground)
            self.paint(figure)
            stream = io.BytesIO()
            figure.savefig(stream, format=form, metadata=_metadata(form, words(self.title, 300)))
        return stream.getvalue()


def _metadata(form: str, title: str) -> dict[str, Any]:
    """Returns the title, and None for what would make two files of one drawing differ."""
    left_out = {"svg": ("Date", "Creator"), "png": ("Software",), "pdf": ("CreationDate", "Creator", "Producer")}
    return {"Title": title, **dict.fromkeys(left_out[form])}


def form_of(option: str, path: str) -> str:
    """Returns the format that a file name asks for. Raises UsageError, which names the option, if it is none of
    FORMATS."""
    form = os.path.splitext(path)[1][1:].lower()
    if form not in FORMATS:
        endings = ", ".join(f".{each}" for each in FORMATS)
        raise UsageError(f"{option} {line(path)} ends in no format that is drawn; choose a name that ends in {endings}")
    return form


def check_matplotlib() -> None:
    """Raises ModuleNotFoundError when it is not installed, for commands that work long before they draw."""
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")


def legend_above(axes: Axes) -> None:
    """Puts the legend of everything that has a label in a row above the axes, on the left."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=8, borderaxespad=0.2, borderpad=0.2, columnspacing=1.4
    )


def whole_steps(axes: Axes, most: int = 9) -> None:
    """Puts whole numbers along the x axis, about `most` of them, for what is counted."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=most))


def room(figure: Figure, *, left: float, right: float, top: float, bottom: float) -> Axes:
    """Adds axes that fill the figure but for these margins in inches, which hold the labels."""
    width, height = figure.get_size_inches()
    return figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height),
    )
