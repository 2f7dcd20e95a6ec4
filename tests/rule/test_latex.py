"""LaTeX: the layout of equations, brackets, names and numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

import nos_ext
from nos_ext.ops import OPS
from nos_ext.optim import library
from nos_ext.rule import Rule
from nos_ext.rule.printers.latex import LatexFormatter
from tests.reference.strategies import rules

POWERSIGN = r"""\begin{aligned}
m_{t} &= \beta \, m_{t-1} + \left(1 - \beta\right) \, g_{t} \\
p_{t} &= p_{t-1} \, \left(1 - \eta \, \mathrm{weight\_decay}\right) - \eta \, e^{\ln\left(\mathrm{base}\right) \, \mathrm{sign\_decay} \, \operatorname{sign}\left(g_{t}\right) \, \operatorname{sign}\left(m_{t}\right)} \, g_{t}
\end{aligned}"""


def test_powersign() -> None:
    assert library.powersign.to_latex() == POWERSIGN
    assert nos_ext.compile_rule(library.powersign)._repr_latex_() == f"${POWERSIGN}$"


def equation(text: str) -> str:
    """The right side of the last equation of a rule that returns this expression."""
    rule = nos_ext.compile_rule(f"def f(p, g, m, m_1, *, lr, beta1=0.9, wd=0.5):\n    return {text}, m, m_1")
    return rule.to_latex().split("\n")[1].split(" &= ")[1].removesuffix(r" \\")


CASES = [
    ("g - (p - m)", r"g_{t} - \left(p_{t-1} - m_{t-1}\right)"),
    ("g + (p - m)", r"g_{t} + p_{t-1} - m_{t-1}"),
    ("(g + p) * m", r"\left(g_{t} + p_{t-1}\right) \, m_{t-1}"),
    ("g * (p * m)", r"g_{t} \, p_{t-1} \, m_{t-1}"),
    ("(g + p) / (m - 1)", r"\frac{g_{t} + p_{t-1}}{m_{t-1} - 1}"),
    ("(g / m) ** 2", r"\left(\frac{g_{t}}{m_{t-1}}\right)^{2}"),
    ("g ** 2 * 3", r"g_{t}^{2} \cdot 3"),
    ("-(g + p)", r"-\left(g_{t} + p_{t-1}\right)"),
    ("-(g * p)", r"-g_{t} \, p_{t-1}"),
    ("g * -p", r"g_{t} \, \left(-p_{t-1}\right)"),
    ("g ** -0.55", r"g_{t}^{-0.55}"),
    ("1 - beta1 ** t + g", r"1 - \beta_{1}^{t} + g_{t}"),
    ("exp(g) ** m", r"\left(e^{g_{t}}\right)^{m_{t-1}}"),
    ("sqrt(g) + 1e-8", r"\sqrt{g_{t}} + 10^{-8}"),
    ("g * 2.5e-7", r"g_{t} \cdot 2.5 \cdot 10^{-7}"),
    ("wd * m_1 * pi", r"\mathrm{wd} \, m_{1,t-1} \, \pi"),
    ("abs(g) * (g < p)", r"\left|g_{t}\right| \, \left[g_{t} < p_{t-1}\right]"),
    ("min(g + 1, inf * m)", r"\min\left(g_{t} + 1, \infty \, m_{t-1}\right)"),
    ("rsqrt(g) ** 2", r"\left(\frac{1}{\sqrt{g_{t}}}\right)^{2}"),
    ("where(g, p, m) ** 2", r"\left(\begin{cases} p_{t-1} & g_{t} \\ m_{t-1} & \text{else} \end{cases}\right)^{2}"),
    ("2 * (t % 3) + 1", r"2 \, \left(t \bmod 3\right) + 1"),
    ("g / norm(g + p)", r"\frac{g_{t}}{\left\lVert g_{t} + p_{t-1} \right\rVert}"),
    ("g * max_abs(m) ** 2", r"g_{t} \, \left\lVert m_{t-1} \right\rVert_{\infty}^{2}"),
    ("g * global_dot(g, -p)", r"g_{t} \, \left\langle g_{t}, -p_{t-1} \right\rangle_{\text{all}}"),
    ("global_sum(g * p) - g", r"\sum_{\text{all}} \left(g_{t} \, p_{t-1}\right) - g_{t}"),
    ("g * global_sum(g)", r"g_{t} \, \left(\sum_{\text{all}} g_{t}\right)"),
    ("g * rms(m)", r"g_{t} \, \operatorname{rms}\left(m_{t-1}\right)"),
    ("fma(g, 3, p)", r"g_{t} \cdot 3 + p_{t-1}"),
    ("g + normal(wd + 1)", r"g_{t} + \mathcal{N}\left(0, \left(\mathrm{wd} + 1\right)^2\right)"),
]


@pytest.mark.parametrize(("text", "latex"), CASES, ids=[text for text, _ in CASES])
def test_brackets(text: str, latex: str) -> None:
    assert equation(text) == latex


def test_names_and_numbers() -> None:
    latex = LatexFormatter()
    assert latex.name("beta") == r"\beta"
    assert latex.name("alpha12") == r"\alpha_{12}"
    assert latex.name("weight_decay") == r"\mathrm{weight\_decay}"
    assert latex.name("x_3") == "x_{3}"
    assert latex.name("lr") == r"\eta"
    assert latex.name("_") == r"\_"
    assert latex.number(-0.5).text == "-0.5"
    assert latex.number(1e20).text == r"10^{20}"


def test_states_that_move_or_share() -> None:
    latex = nos_ext.compile_rule(
        "def f(p, g, m, v, *, lr):\n    x = exp(g)\n    return p - lr * x * x, x, m"
    ).to_latex()
    assert latex.split("\n")[1:-1] == [
        r"m_{t} &= e^{g_{t}} \\",
        r"p_{t} &= p_{t-1} - \eta \, m_{t} \, m_{t} \\",
        r"v_{t} &= m_{t-1}",
    ]


@settings(max_examples=100)
@given(rules(ops=tuple(OPS)))
def test_balanced(rule: Rule) -> None:
    latex = rule.to_latex()
    for opening, closing in (("{", "}"), (r"\left", r"\right"), (r"\begin", r"\end")):
        assert latex.replace(r"\rfloor", "").replace(r"\lfloor", "").count(opening) == latex.count(closing)
    assert "#" not in latex
    assert latex.count("&=") == 1 + len(rule.state_names) + latex.count("\nx_")
