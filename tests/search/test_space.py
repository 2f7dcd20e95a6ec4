"""Vocabularies, masks, sizes, and the way between tokens and rule text."""

from __future__ import annotations

import itertools

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

import nos_ext
from nos_search.errors import UsageError
from nos_search.space import VOCABULARIES, Options, Space, encode
from nos_search.space.vocabulary import TABLES, rows


@pytest.mark.parametrize(
    ("vocabulary", "groups", "size"),
    [
        ("icml", 1, 154_880),
        ("icml", 2, 27_079_993_600),
        ("icml", 3, 5_308_220_345_472_000),
        ("arxiv", 1, 249_696),
        ("arxiv", 2, 69_898_899_456),
        ("arxiv-decay", 1, 381_024),
        ("arxiv-decay", 2, 159_335_092_224),
    ],
)
def test_sizes_are_the_paper_s(vocabulary: str, groups: int, size: int) -> None:
    """(operands + earlier outputs)^2 * unary^2 * binary per group; two groups give the announced 10^10 and more."""
    assert Space(vocabulary=vocabulary, groups=groups).size() == size


def test_vocabulary_sizes() -> None:
    def sizes(name: str) -> tuple[int, ...]:
        return tuple(len(rows(name, kind)) for kind in ("operand", "unary", "binary"))

    assert {name: sizes(name) for name in VOCABULARIES} == {
        "icml": (16, 11, 5),
        "arxiv": (17, 12, 6),
        "arxiv-decay": (21, 12, 6),
    }


def test_every_token_is_a_rule_of_the_engine() -> None:
    for options in (Options(), Options(bias_correction=False, drop_rescale=True, noise_variance=True)):
        space = Space(vocabulary="arxiv-decay", groups=1, options=options)
        for kind, tokens in TABLES.items():
            for token in tokens:
                text = space.token_text(token).format("(g)", "(v)")
                assert nos_ext.compile_rule(text), (kind, text)


def test_token_names_are_unique() -> None:
    for tokens in TABLES.values():
        names = [token.name for token in tokens]
        assert len(set(names)) == len(names)


def test_masked_size_is_what_brute_force_counts() -> None:
    """Counted for one group in full, and for the operands and binaries of two groups (unary functions are free)."""
    for options in (
        Options(),
        Options(distinct_operands=False),
        Options(last_not_add=False),
        Options(use_earlier=False),
    ):
        one = Space(vocabulary="icml", groups=1, options=options)
        unary = len(rows("icml", "unary"))
        for space in (one, Space(vocabulary="icml", groups=2, options=options)):
            per_group = []
            for group in range(space.groups):
                prefix = [0, 1, 0, 0, 0] * group
                positions = space.positions[5 * group :]
                pairs = sum(
                    space.mask([*prefix, a])[b]
                    for a, b in itertools.product(range(len(positions[0].tokens)), repeat=2)
                    if space.mask(prefix)[a]
                )
                per_group.append(pairs * unary**2 * sum(space.mask([*prefix, 0, 1, 0, 0])))
            product = 1
            for count in per_group:
                product *= count
            assert space.size(masked=True) == product


def test_masks() -> None:
    space = Space(groups=2)
    names = space.positions[0].names
    assert not space.mask([names.index("g")])[names.index("g")]  # left and right operand differ
    first = [0, 3, 0, 0, 0]
    right = space.mask([*first, names.index("g")])  # a plain left operand: the right one must be the earlier output
    assert [space.positions[6].names[k] for k, ok in enumerate(right) if ok] == ["out1"]
    out1 = space.positions[5].names.index("out1")
    assert sum(space.mask([*first, out1])) == 17  # and the other way round anything but itself
    assert space.mask(first[:4]) == [True] * 6  # a sum is fine in an inner group ...
    last = space.mask([*first, out1, 0, 0, 0])
    assert [space.positions[9].names[k] for k, ok in enumerate(last) if not ok] == ["+"]  # ... but not in the last


def test_check_names_the_position() -> None:
    space = Space(groups=1)
    assert space.check([0, 3, 0, 0, 2]) == (0, 3, 0, 0, 2)
    with pytest.raises(UsageError, match=r"'g' is masked at op2\.1"):
        space.check([0, 0, 0, 0, 2])
    with pytest.raises(UsageError, match=r"99 at u1.1 is outside 0..11"):
        space.check([0, 3, 99, 0, 2])
    with pytest.raises(UsageError, match="4 given, this space has strings of 5"):
        space.check([0, 3, 0, 0])


def test_wrong_spaces_are_refused() -> None:
    with pytest.raises(UsageError, match="vocabulary 'cvpr' is not known; choose one of: icml, arxiv, arxiv-decay"):
        Space(vocabulary="cvpr")
    with pytest.raises(UsageError, match=r"groups 5 is outside 1..4"):
        Space(groups=5)


def test_config_round_trip() -> None:
    space = Space(vocabulary="icml", groups=3, options=Options(drop_rescale=True, last_not_add=False))
    assert Space.from_config(space.config()).config() == space.config()


def test_text_of_known_strings() -> None:
    space = Space(groups=2)
    powersign = (6, 7, 0, 0, 2, 0, 17, 0, 2, 2)
    assert space.names(powersign)[:5] == ("sign(g)", "sign(m_hat)", "x", "x", "*")
    assert space.text(powersign) == "g * exp(sign(g) * sign(m_hat))"
    plain = Space(groups=2, options=Options(bias_correction=False))
    assert plain.text(powersign) == "g * exp(sign(g) * sign(m))"
    one = Space(groups=1, options=Options(drop_rescale=True, noise_variance=True))
    assert one.text((10, 12, 9, 3, 3)) == "drop(normal(0.1), 0.3) / 0.7 / (log(abs(0.001 * w)) + 1e-08)"


# The rules found in the paper, as far as two groups can write them.
FOUND = [
    "g",
    "adam",
    "rmsprop",
    "sign(adam)",
    "g * exp(sign(g) * sign(m_hat))",
    "m_hat * exp(v_hat)",
    "clip(m_hat, 1e-4) * exp(v_hat)",
    "m_hat * exp(g**2)",
    "m_hat * exp(square(g))",
    "drop(g, 0.3) * exp(sign(g) * sign(m_hat))",
    "drop(m_hat, 0.1) / (exp(g**2) + 1e-8)",
    "adam * exp(sign(g) * sign(m_hat))",
    "adam * exp(m_hat)",
    "drop(m_hat, 0.1) * exp(g**3)",
    "g - clip(g**2, 1e-4)",
    "exp(g) - exp(m_hat)",
    "drop(m_hat, 0.3) * exp(1e-3 * w)",
    "log(abs(g)) ** sqrt(abs(w * 0.1))",
]


@pytest.mark.parametrize("text", FOUND[:-1])
def test_found_rules_can_be_written(text: str) -> None:
    space = Space(groups=2)
    tokens = space.check(encode(space, text))
    assert nos_ext.compile_rule(space.text(tokens)) == nos_ext.compile_rule(text)


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be written in the space 'arxiv' with 1 group"):
        encode(Space(groups=1), "g * exp(sign(g) * sign(m_hat))")
    with pytest.raises(UsageError, match="cannot be written"):
        encode(Space(), FOUND[-1])  # the space says 0.1 * w
    with pytest.raises(UsageError, match="not an expression"):
        encode(Space(), "g +")


@hypothesis.given(st.integers(0, 2**32), st.sampled_from(sorted(VOCABULARIES)), st.integers(1, 3))
@hypothesis.settings(max_examples=60, derandomize=True)
def test_text_and_back(seed: int, vocabulary: str, groups: int) -> None:
    """Decoding what was encoded gives the same text, though dead parts of the string may differ."""
    space = Space(vocabulary=vocabulary, groups=groups)
    tokens = space.check(space.sample(torch.Generator().manual_seed(seed)))
    text = space.text(tokens)
    if groups == 3:
        try:
            found = encode(space, text)
        except UsageError:
            return  # a string that is not a chain; documented
    else:
        found = encode(space, text)
    assert space.text(space.check(found)) == text


def test_live_positions() -> None:
    space = Space(groups=2)
    left = space.positions[4].names.index("left")
    assert space.live((6, 7, 0, 0, 2, 0, 17, 0, 2, 2)) == [True] * 10
    # keep-left of g: the right side, and with it the whole first group, is dead
    assert space.live((6, 7, 0, 0, 2, 0, 17, 0, 2, left)) == [False] * 5 + [True, False, True, False, True]
    # keep-left of out1
    assert space.live((6, 7, 0, 0, 2, 17, 0, 0, 2, left)) == [True] * 5 + [True, False, True, False, True]


def test_gradient_is_looked_for_in_live_parts_only() -> None:
    space = Space(groups=2)
    names = space.positions[0].names
    one, noise, g = (names.index(name) for name in ("1", "noise", "g"))
    left, out1 = space.positions[4].names.index("left"), 17
    assert not space.uses_gradient((g, one, 0, 0, 2, noise, out1, 0, 0, left))
    assert space.uses_gradient((g, one, 0, 0, 2, out1, noise, 0, 0, left))
    assert not space.uses_gradient((noise, g, 0, 0, left, out1, one, 0, 0, 2))
