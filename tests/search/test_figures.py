"""Drawings: their formats, that equal data give equal files, what stands in them, and drawings as parts of a page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from nos_search.cli import main
from nos_search.errors import UsageError
from nos_search.show import charts
from nos_search.show.figure import _SETTINGS, FORMATS, PALETTE, SERIES, Drawing, form_of, words
from nos_search.show.inline import inline
from nos_search.show.plot import comparison
from nos_search.task import SCORES
from nos_search.train.evaluate import Comparison
from tests.fresh import python

from .conftest import NURSERY
from .test_command_line import without

ACCURACY = SCORES["accuracy"]
MAGIC = {"svg": b"<?xml", "png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-"}


def compared(rule: str, tests: tuple[float, ...], half: float | None = 0.1) -> Comparison:
    mean = sum(tests) / len(tests)
    rates = (0.1,) * len(tests)
    return Comparison(rule, "digits", len(tests), 0.5, 0.1, half, mean, 0.1, half, 0, 1.0, rates, tests, tests)


def rewards(count: int) -> Drawing:
    statuses = ("done", "duplicate", "rejected", "diverged")
    dots = [charts.Dot(k, (k % 7) / 7, statuses[k % 4], f"trial {k}") for k in range(count)]
    return charts.rewards(dots, [(k, 0.5) for k in range(count)], [(0, 0.25), (count - 1, 0.5)], window=25)


@pytest.mark.parametrize("form", FORMATS)
def test_equal_data_give_equal_files(form: str) -> None:
    drawing = comparison([compared("adam", (0.4, 0.6)), compared("sgd", (0.3, 0.5))])
    one = drawing.render(form)
    assert one.startswith(MAGIC[form])
    assert one == drawing.render(form)
    assert not re.search(rb"20\d\d-\d\d-\d\d|CreationDate", one)


def test_settings_of_the_user_change_nothing() -> None:
    import matplotlib

    drawing = comparison([compared("adam", (0.4, 0.6))])
    plain = drawing.render("svg")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert drawing.render("svg") == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_the_format_follows_from_the_name() -> None:
    assert [form_of("--plot", name) for name in ("a.svg", "b.c.PNG", "/d/e.pdf")] == ["svg", "png", "pdf"]
    for name in ("a", "a.jpg", "svg", ".svg/a", "a.svg.gz"):
        with pytest.raises(
            UsageError, match=r"--plot .* ends in no format that is drawn; choose a name that ends in \.svg"
        ):
            form_of("--plot", name)


def test_a_plot_is_written_in_each_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in FORMATS:
        path = tmp_path / f"figure.{form}"
        assert main(["surfaces", "g", "--steps", "3", "--plot", str(path)]) == 0
        assert path.read_bytes().startswith(MAGIC[form])
        assert f"wrote {path}" in capsys.readouterr().err


def test_matplotlib_is_imported_for_drawings_only(tmp_path: Path) -> None:
    code = (
        "import sys; from nos_search.cli import main; from nos_search.cli import evaluate, report, surfaces, train\n"
        "status = main(sys.argv[1:]); print(status, 'matplotlib' in sys.modules, file=sys.stderr)"
    )
    line = ["surfaces", "g", "--steps", "2"]
    for more, there in (([], False), (["--plot", str(tmp_path / "x.svg")], True)):
        done = python(code, *line, *more, imports=NURSERY)
        assert done.stderr.splitlines()[-1] == f"0 {there}", done.stderr


def test_without_matplotlib_one_line_names_the_extra() -> None:
    """Before anything is trained, whether the importer says so by an error or finds nothing."""
    line = ["evaluate", "g", "--plot", "x.svg"]
    done = without(line, names=("matplotlib",))
    assert done.stdout == f"STATUS {line} 1\n"
    remedy = 'install it with: pip install "nos-ext[plot]"'
    assert done.stderr == f"nos-search evaluate: this needs matplotlib, which is not installed; {remedy}\n"


def test_no_colour_has_two_roles() -> None:
    """A page finds the role of a colour again by its value."""
    for ground in (0, 1):
        assert len({colours[ground] for colours in PALETTE.values()}) == len(PALETTE)
    assert all(f"s{k}" in PALETTE for k in range(SERIES))


def luminance(colour: str) -> float:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("ground", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_from_the_paper(ground: int) -> None:
    """WCAG 2: a contrast of 4.5 for text, of 3 for lines; grids and areas may be pale."""
    paper = luminance(PALETTE["paper"][ground])
    for role, colours in PALETTE.items():
        low, high = sorted((paper, luminance(colours[ground])))
        contrast = (high + 0.05) / (low + 0.05)
        if role in ("ink", "soft"):
            assert contrast >= 4.5, role
        elif role not in ("paper", "line", "bar", "dup"):
            assert contrast >= 3, role


def test_text_of_unknown_origin_is_text() -> None:
    assert words("a\nb") == "a\\nb"
    assert words("x" * 80, 10) == "x" * 9 + "…"
    shown = comparison([compared("$x^2$ & <b>", (0.5,), None)]).render("svg").decode()
    assert "$x^2$ &amp; &lt;b&gt;" in shown


# --- as parts of a page ----------------------------------------------------------------------------------------------


def test_a_drawing_takes_the_colours_of_its_page() -> None:
    element = ElementTree.fromstring(inline(rewards(40), "rewards"))
    text = ElementTree.tostring(element, encoding="unicode")
    assert set(re.findall(r"#[0-9a-f]{6}", text)) <= {"#000000"}
    assert {"var(--ink)", "var(--soft)", "var(--best)", "var(--done)"} <= set(re.findall(r"var\(--\w+\)", text))
    assert set(re.findall(r"var\(--(\w+)\)", text)) <= set(PALETTE)
    assert element.get("role") == "img"
    assert not [part.tag for part in element.iter() if part.tag in ("style", "metadata")]
    assert all(part.get("id", "rewards-").startswith("rewards-") for part in element.iter())


def test_dots_of_a_long_run_are_few_elements() -> None:
    """Beyond 1500 there is one path for each kind; before, a mark with a title for each."""
    short, long = (ElementTree.fromstring(inline(rewards(count), "r")) for count in (1200, 6000))
    assert len([part for part in short.iter("title") if part.text]) == 1200
    assert not list(long.iter("title"))
    assert len(list(long.iter())) < 300
    for drawing in (short, long):
        names = [text.text for text in drawing.iter("text")]
        for name in ("best so far", "mean of last 25", "strategy's own mean", "trained", "duplicate", "rejected"):
            assert name in names
    (dots,) = [group for group in long.iter("g") if group.get("class") == "dots-done"]
    lines = re.findall(r"M\s+([\d.]+) ([\d.]+)\s+L\s+([\d.]+) ([\d.]+)", next(dots.iter("path")).get("d", ""))
    assert len(lines) == 1500
    for x, y, to, same in lines:  # a line of no length would be left out when drawn
        assert 0 < float(to) - float(x) < 0.5
        assert y == same
    longer = ElementTree.fromstring(inline(rewards(60000), "r"))  # 8572 places of a dot for each of the 7 rewards
    paths = [path.get("d", "") for path in longer.iter("path")]
    assert 1000 < max(path.count("M") for path in paths) <= 7 * 433


def test_drawings_of_nothing() -> None:
    assert charts.learning([], ACCURACY) is None
    assert charts.learning([charts.Curve("a", {}, [(1, float("nan"))])], ACCURACY) is None
    assert charts.primitives([], [], evaluations=0) is None
    assert charts.spark([0.5], ACCURACY) is None
    for drawing in (charts.funnel([]), charts.funnel([charts.Stage("proposed", 0, "")]), rewards(1)):
        ElementTree.fromstring(inline(drawing, "x"))


def test_the_legend_of_curves_has_their_order() -> None:
    curves = [charts.Curve(name, charts.known_look(k), [(1, 0.1), (2, last)]) for k, (name, last) in enumerate((("a", 0.3), ("b", 0.9), ("c", 0.6)))]  # fmt: skip
    drawing = charts.learning(curves, ACCURACY)
    assert drawing is not None
    names = [text.text for text in ElementTree.fromstring(inline(drawing, "x")).iter("text")]
    assert [name for name in names if name in ("a", "b", "c")] == ["b", "c", "a"]


def test_names_and_notes_of_the_funnel_are_not_cut_off() -> None:
    """The last rung of the default ladder has a long name, and a long run has notes with large numbers."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stages = [
        charts.Stage("screen", 123456, "123456 stopped, 999 \u00b5s each, 12345.67 s in all"),
        charts.Stage("rung 2: teacher+mnist1d+charlm", 12, "10.17 s each, 2034 s in all"),
        charts.Stage("rung 3: " + "n" * 40, 2, "10.17 s each, 20 s in all"),
    ]
    drawing = charts.funnel(stages)
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=drawing.size)
        canvas = FigureCanvasAgg(figure)
        drawing.paint(figure)
        canvas.draw()
        whole = figure.bbox
        for text in figure.findobj(matplotlib.text.Text):
            place = text.get_window_extent()
            assert not text.get_text() or (place.x0 >= 0 and place.x1 <= whole.x1), text.get_text()
