"""Text that is not a rule: what is said, and where the caret points."""

from __future__ import annotations

import time

import pytest

import nos_ext
from nos_ext import RuleError
from nos_ext.rule.scan import too_deep_at

HEAD = "def f(p, g, m, *, lr, beta=0.9):\n    m = beta * m + g\n"
SIGNATURE = "def f({}): return p"

# text, part of the message, line, column
EXPRESSIONS = [
    ("g +", "syntax error", 1, 4),
    ("(g", "never closed", 1, 1),
    ("2 * g.x", "attribute access", 1, 5),
    ("exp(g[0])", "indexing", 1, 5),
    ("lambda x: x", "lambda", 1, 1),
    ("[x for x in g]", "comprehensions", 1, 1),
    ("exp(x for x in g)", "comprehensions", 1, 4),
    ("{x for x in g}", "comprehensions", 1, 1),
    ("g * (h := 1)", ":=", 1, 6),
    ("f'{g}'", "strings", 1, 1),
    ("g * 'abc'", "strings", 1, 5),
    ("g * b'abc'", "strings", 1, 5),
    ("g * True", "write 1", 1, 5),
    ("g * 1j", "not a real number", 1, 5),
    ("g * None", "not a real number", 1, 5),
    ("g if g > 0 else m", "where(condition, a, b)", 1, 1),
    ("g and m", "and/or", 1, 1),
    ("not g", "x == 0", 1, 1),
    ("g // 2", "floor(a / b)", 1, 1),
    ("g @ m", "@", 1, 1),
    ("g & m", "bitwise", 1, 1),
    ("~g", "bitwise", 1, 1),
    ("1 < g < 2", "chained", 1, 1),
    ("g is m", "is and in", 1, 1),
    ("1 < 2", "two numbers", 1, 1),
    ("exp(g, m)", "exp takes 1 argument, 2 given", 1, 1),
    ("where(g, m)", "where takes 3 arguments, 2 given", 1, 1),
    ("g + clip(g)", "clip takes 3 arguments, 1 given", 1, 5),
    ("exp(*g)", "* arguments", 1, 5),
    ("exp(a=g)", "keyword arguments", 1, 1),
    ("2 * xep(g)", "did you mean 'exp'?", 1, 5),
    ("print(g)", "unknown op 'print'", 1, 1),
    ("__import__('os')", "unknown op '__import__'", 1, 1),
    ("g * sign", "call it: sign(...)", 1, 5),
    ("g * mhat", "did you mean 'm_hat'?", 1, 5),
    ("g(m)", "write * to multiply", 1, 1),
    ("exp(g)(m)", "only the ops", 1, 1),
    ("drop(g, m)", "last argument of drop must be a scalar", 1, 1),
    ("1 + cos(g)", "cos works on scalars only", 1, 5),
    ("g % 2", "mod works on scalars only", 1, 1),
    ("g / (1 / 0)", "division of numbers by zero", 1, 6),
    ("2 ** 10000 * g", "too large", 1, 1),
    ("(-8) ** 0.5 * g", "not a real number", 1, 1),
    ("g * (inf - inf)", "not a real number", 1, 6),
    ("9" * 400, "too large for a double", 1, 1),
    ("9" * 5000, "too large for a double", 1, 1),
    ("g * 1e400", "too large for a double; write inf", 1, 5),
    ("g * (1e308 * 10)", "too large for a double", 1, 6),
    ("g * square(1e200)", "too large for a double", 1, 5),
    ("g, m", "tuple", 1, 1),
    ("yield g", "yield", 1, 1),
    ("await g", "await", 1, 1),
    ("g * \N{FULLWIDTH LATIN SMALL LETTER G}", "outside ASCII", 1, 5),
    ("\N{MATHEMATICAL ITALIC SMALL P} * g", "outside ASCII", 1, 1),
    ("# \N{LATIN SMALL LETTER E WITH ACUTE}\ng * \N{LATIN SMALL LETTER E WITH ACUTE}", "outside ASCII", 2, 5),
    ("\n\n  # comment\n  foo * g", "unknown name 'foo'", 4, 3),
    ("\tg *\\\n\thist", "unknown name 'hist'", 2, 2),
    ("g * nan", "NaN cannot be a constant", 1, 5),
    ("g * " + "x" * 5000, "'xxxxxxxxxxxxxxxxxxxx...' (5000 characters)", 1, 5),
    ("g * " + "x" * 5000 + "(m)", "'xxxxxxxxxxxxxxxxxxxx...' (5000 characters)", 1, 5),
    ("\x00", "U+0000", 1, 1),
    ("g\n* \ud800", "U+D800", 2, 3),
    ("\ufeffhist", "unknown name 'hist'", 1, 1),
    ("\ufeff\ufeffg", "U+FEFF", 1, 1),
    ("g\N{NO-BREAK SPACE}* m", "U+00A0", 1, 2),
    ("g * \N{ZERO WIDTH SPACE}m", "U+200B", 1, 5),
    ("g \N{MINUS SIGN} m", "U+2212", 1, 3),
    ("g\x85* m", "U+0085", 1, 2),
    ("# a\u2028b\x85c\x0cd\ng * hist", "unknown name 'hist'", 2, 5),
    ("g * \N{SCRIPT CAPITAL P}", "outside ASCII", 1, 5),
    ("\N{LATIN SMALL LETTER E WITH ACUTE}" * 3000, "(3000 characters) has characters outside ASCII", 1, 1),
]

STATEMENTS = [
    ("    x = g\n    return p, m", "'x' is assigned but not used", 3, 5),
    ("    x = g\n    x = m\n    return p * x, m", "assigned again before its value is used", 4, 5),
    ("    return p, m\n    return p, m", "after the return", 4, 5),
    ("    if g: x = 1\n    return p, m", "where(condition, a, b)", 3, 5),
    ("    for i in g:\n        x = 1\n    return p, m", "loops", 3, 5),
    ("    while g:\n        x = 1\n    return p, m", "loops", 3, 5),
    ("    import os\n    return p, m", "imports", 3, 5),
    ("    g.x = 1\n    return p, m", "one name per line", 3, 5),
    ("    g[0] += 1\n    return p, m", "one name per line", 3, 5),
    ("    a = b = g\n    return p, m", "one name per line", 3, 5),
    ("    a, b = g, m\n    return p, m", "one name per line", 3, 5),
    ("    a: float = g\n    return p, m", "annotations", 3, 5),
    ("    exp = g\n    return p, m", "belongs to the rule language", 3, 5),
    ("    t = g\n    return p, m", "belongs to the rule language", 3, 5),
    ("    g\n    return p, m", "no effect", 3, 5),
    ("    pass\n    return p, m", "pass", 3, 5),
    ("    def h(): pass\n    return p, m", "one function", 3, 5),
    ("    class A: pass\n    return p, m", "classes", 3, 5),
    ("    with g: pass\n    return p, m", "With", 3, 5),
    ("    return p, (m, g)", "tuple", 3, 15),
    ("    return (p, m, *g)", "* arguments", 3, 19),
    ("    return bata * p, m", "did you mean 'beta'?", 3, 12),
    ("    m += q\n    return p, m", "unknown name 'q'", 3, 10),
    ("    y += 1\n    return p, m", "unknown name 'y'", 3, 5),
    ("    m //= 2\n    return p, m", "floor(a / b)", 3, 5),
    ("    return p", "returns 1 value; it must return 2: the new p, then the new m", 3, 5),
    ("    return p, m, m", "returns 3 values", 3, 5),
    ("    return", "return the new p", 3, 5),
    ("    p = p + m", "returns nothing", 1, 1),
    ("    return p, m\nx = 1", "outside of the rule's function", 4, 1),
    ("    return p, m\ndef h(p, g, *, lr): return p", "one function", 4, 1),
]

SIGNATURES = [
    ("", "first two arguments of a rule are p", 1, 1),
    ("p", "first two arguments of a rule are p", 1, 1),
    ("g, p, *, lr", "first two arguments of a rule are p", 1, 7),
    ("p, g", "has no lr", 1, 1),
    ("p, g, lr", "write lr after a *", 1, 1),
    ("p, g, *, lr=1", "lr has a default", 1, 19),
    ("p, g, *, lr, beta", "'beta' has no default", 1, 20),
    ("p, g, *, lr, beta=g", "unknown name 'g'", 1, 25),
    ("p, g, *, lr, beta='x'", "strings", 1, 25),
    ("p, g, *, lr, beta=True", "write 1", 1, 25),
    ("p, g, *, lr, beta=exp(1)", "not a number", 1, 25),
    ("p, g, *, lr, beta=inf - inf", "not a real number", 1, 25),
    ("p, g, *a, lr", "* and ** arguments", 1, 14),
    ("p, g, *, lr, **k", "* and ** arguments", 1, 22),
    ("p, g, /, *, lr", "/ is not part", 1, 7),
    ("p, g, m=1, *, lr", "no defaults", 1, 15),
    ("p: int, g, *, lr", "annotations", 1, 10),
    ("p, g, m, *, lr, m=1", "the name 'm' is used twice", 1, 23),
    ("p, g, exp, *, lr", "belongs to the rule language", 1, 13),
    ("p, g, *, lr, e=1", "belongs to the rule language", 1, 20),
    ("p, g, *, lr, seed=1", "argument of nos_ext.apply_rule", 1, 20),
    (f"p, g, {'s' * 129}, *, lr", "limit is 128", 1, 13),
]

WHOLE = [
    ("x = 1", "outside of the rule's function", 1, 1),
    ("import os", "imports", 1, 1),
    ("import os\ndef f(p, g, *, lr): return p", "imports", 1, 1),
    ("for i in g: pass", "loops", 1, 1),
    ("async def f(p, g, *, lr): return p", "async", 1, 1),
    ("@cache\ndef f(p, g, *, lr): return p", "no decorator but", 1, 2),
    ("@a.b.rule\ndef f(p, g, *, lr): return p", "no decorator but", 1, 2),
    ("def f(p, g, *, lr) -> int: return p", "annotations", 1, 1),
    (f"def {'f' * 129}(p, g, *, lr): return p", "limit is 128", 1, 1),
    ("def f(p, g, *, lr):\n  return p - lr * exp(g))", "unmatched", 2, 25),
    ("   def f(p, g, *, lr):\n      return p - lr * bad", "unknown name 'bad'", 2, 23),
    (SIGNATURE.format(f"p, g, {', '.join(f's{i}' for i in range(9))}, *, lr"), "9 states; the limit is 8", 1, 1),
    (
        SIGNATURE.format(f"p, g, *, lr, {', '.join(f'h{i}=1' for i in range(64))}"),
        "65 hyperparameters; the limit is 64",
        1,
        1,
    ),
]

CASES = [
    *EXPRESSIONS,
    *[(HEAD + text, *rest) for text, *rest in STATEMENTS],
    *[(SIGNATURE.format(text), *rest) for text, *rest in SIGNATURES],
    *WHOLE,
]


@pytest.mark.parametrize(("text", "message", "line", "column"), CASES, ids=[repr(case[0][-40:]) for case in CASES])
def test_message_and_place(text: str, message: str, line: int, column: int) -> None:
    with pytest.raises(RuleError) as caught:
        nos_ext.compile_rule(text)
    error = caught.value
    assert message in error.message
    assert (error.line, error.column) == (line, column)
    assert error.source_line == text.removeprefix("\ufeff").split("\n")[line - 1]
    first, shown, caret = str(error).split("\n")
    assert first == f"line {line}, column {column}: {error.message}"
    assert caret.strip() == "^"
    if len(error.source_line) < 60:
        assert shown == "    " + "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in error.source_line)
        assert caret.index("^") - 4 == column - 1


WITHOUT_PLACE = [
    ("", "empty"),
    ("  \n\t\n", "empty"),
    ("# nothing\n", "empty"),
    ("g" * 262145, "limit is 262144"),
    ("\N{LATIN SMALL LETTER E WITH ACUTE}" * 140000, "limit is 262144"),
]


@pytest.mark.parametrize(("text", "message"), WITHOUT_PLACE, ids=[repr(case[0][:12]) for case in WITHOUT_PLACE])
def test_message_without_place(text: str, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        nos_ext.compile_rule(text)
    assert message in caught.value.message
    assert caught.value.line is None


NESTED = {
    "brackets": "(" * 300 + "g" + ")" * 300,
    "calls": "exp(" * 300 + "g" + ")" * 300,
    "minus": "-" * 300 + "g",
    "powers": "g ** " * 300 + "g",
    "lists": "[" * 300 + "]" * 300,
    "open brackets": "(" * 60000,
    "open braces": "{[(" * 20000,
    "many brackets": "(" * 10000 + "g" + ")" * 10000,
    "many calls": "exp(" * 10000 + "g" + ")" * 10000,
    "tuples": "(g," * 199 + "g" + ")" * 199,
    "many minus": "-" * 30000 + "g",
    "spaced minus": "- " * 10000 + "g",
    "tildes": "~" * 60000 + "g",
    "many powers": "g" + "**g" * 10000,
    "negative powers": "g" + "**-g" * 10000,
    "nots": "not " * 10000 + "g",
    "lambdas": "lambda:" * 9000 + "g",
    "conditions": "g if g else " * 5000 + "g",
    "branches": "if g: x\n" + "elif g: x\n" * 6000,
}


@pytest.mark.parametrize("text", NESTED.values(), ids=NESTED.keys())
def test_deep_nesting_is_refused_with_a_place(text: str) -> None:
    with pytest.raises(RuleError, match="180 levels") as caught:
        nos_ext.compile_rule(text)
    assert caught.value.column is not None


FLAT = {
    "negative terms": "g" + " + -g" * 400,
    "powers of two": "g" + " + g ** 2" * 400,
    "products in brackets": "g" + " * (1 - g)" * 400,
    "brackets in a comment": f"g # {'(' * 300}",
    "as deep as may be": "exp(" * 170 + "g" + ")" * 170,
    "lines": "(g\n" + "+ -g\n" * 400 + ")",
}


@pytest.mark.parametrize("text", FLAT.values(), ids=FLAT.keys())
def test_what_is_long_and_not_deep(text: str) -> None:
    nos_ext.compile_rule(text)
    assert too_deep_at(text) is None


def test_brackets_in_a_docstring_are_no_nesting() -> None:
    text = f'def f(p, g, *, lr):\n    """{"(" * 300}"""\n    return p - lr * g\n'
    assert len(nos_ext.compile_rule(text)) == 2


def test_a_caller_near_the_limit_of_recursion_keeps_its_own_error() -> None:
    def down() -> None:
        try:
            down()
        except RecursionError:
            nos_ext.compile_rule("g * m")
            raise

    with pytest.raises(RecursionError):
        down()


SIZES = {
    "instructions": ("    x = exp(x + {i})\n", "6001 instructions; the limit is 4096"),
    "constants": ("    x = x + {i}\n", "3000 different constants; the limit is 1024"),
    "scalar instructions": ("    s = exp(s)\n", "3000 scalar instructions; the limit is 1024"),
}


@pytest.mark.parametrize(("line", "message"), SIZES.values(), ids=SIZES.keys())
def test_programs_over_a_limit(line: str, message: str) -> None:
    lines = "".join(line.format(i=i % 1000 if "exp(x" in line else i) for i in range(3000))
    with pytest.raises(RuleError, match=message):
        nos_ext.compile_rule(f"def f(p, g, *, lr):\n    x = g\n    s = lr\n{lines}    return x * s\n")


def test_long_flat_sums_work() -> None:
    assert len(nos_ext.compile_rule("g" + " + g" * 900)) == 902
    lines = "".join(f"    x = x + m * {i}\n" for i in range(1000))
    assert len(nos_ext.compile_rule(f"def f(p, g, m, *, lr):\n    x = g\n{lines}    return p - x, m\n")) > 1900


def test_sums_that_are_too_long() -> None:
    """Where the limit is depends on Python's parser; it is never a RecursionError."""
    with pytest.raises(RuleError, match=r"too long a sum|more than 16384 operations"):
        nos_ext.compile_rule("g" + "+g" * 20000)


def test_refusal_is_quick() -> None:
    """No text of its size may hold the process for long. CPU time, and a hundred times what any of them takes: what is
    quadratic in such a text takes longer than that."""
    texts = ["g+" * 32000, "(" * 65000, "-" * 65000 + "g", "exp(" * 16000, "[[{(" * 16000, "g.a" * 20000]
    texts += ["9**" * 20000 + "9", "lambda:" * 9000, "f'{" * 20000, "a=" * 30000 + "g", "x\n" * 30000, "g if " * 13000]
    for text in texts:
        start = time.thread_time()
        with pytest.raises(RuleError):
            nos_ext.compile_rule(text)
        assert time.thread_time() - start < 20.0, text[:20]


def test_a_docstring_may_have_backslashes(recwarn: pytest.WarningsRecorder) -> None:
    text = 'def f(p, g, *, lr):\n    """Uses \\d and \N{GREEK SMALL LETTER ETA}."""\n    return p - lr * g\n'
    assert len(nos_ext.compile_rule(text)) == 2
    assert not recwarn.list


def test_errors_survive_pickling() -> None:
    import pickle

    with pytest.raises(RuleError) as caught:
        nos_ext.compile_rule("g * mhat")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.line, copy.column) == (str(caught.value), 1, 5)


@pytest.mark.parametrize("line", ["g * \ud800", "g * \x00", "g * \x1b[2J", "g # \N{RIGHT-TO-LEFT OVERRIDE}\ufeff\n* m"])
def test_messages_can_be_printed(line: str) -> None:
    """A terminal gets no control characters and no lone surrogates; `source_line` has the line as it is."""
    with pytest.raises(RuleError) as caught:
        nos_ext.compile_rule(line)
    assert all(c.isprintable() or c == "\n" for c in str(caught.value))
    assert caught.value.source_line in line.split("\n")


FUNCTION = "def f(p, g, m, *, lr, b=0.9):\n    m = b * m + g\n    return p - lr * m, m\n"
SPELLINGS = {
    "byte order mark": "\ufeff" + FUNCTION,
    "mark and indentation": "\ufeff" + "".join(f"   {line}\n" for line in FUNCTION.splitlines()),
    "CRLF": FUNCTION.replace("\n", "\r\n"),
    "mark and CRLF": "\ufeff" + FUNCTION.replace("\n", "\r\n"),
    "CR": FUNCTION.replace("\n", "\r"),
    "tabs": FUNCTION.replace("    ", "\t"),
    "form feed": "\f" + FUNCTION.replace("\n", "\n\f", 1),
    "no newline": FUNCTION.rstrip(),
    "blank end": FUNCTION + "\n \t\n   ",
    "separators in a comment": f"# a\u2028b\x85c\x0bd\x1ce\n{FUNCTION}",
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_spellings_of_one_text(text: str) -> None:
    assert nos_ext.compile_rule(text) == nos_ext.compile_rule(FUNCTION)
