"""The networks: shapes, seeds, that the fast forms compute what the plain ones do, and that no network looks ahead."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from nos_search.errors import UsageError
from nos_search.net import NETS, ConvNet, Inputs, Net, Spec, build, fitting, parse
from nos_search.net.transformer import positions

INPUTS = {
    "image": Inputs("image", channels=3, size=(16, 16)),
    "pixels": Inputs("pixels", channels=3, size=(16, 16)),
    "context": Inputs("context", vocabulary=11, length=9),
    "text": Inputs("text", vocabulary=11, length=9),
    "pair": Inputs("pair", vocabulary=12, length=6, source=7, source_vocabulary=10),
}
SMALL = {"convnet": (2, 4), "wrn": (10, 1), "mlp": (2, 8), "gru": (2, 8), "transformer": (2, 8), "autoencoder": (2, 8)}
CASES = [(name, kind) for name in NETS for kind in INPUTS if kind in NETS[name].build]


def make(name: str, kind: str, classes: int = 5) -> Net:
    return build(Spec(name, *SMALL[name]), INPUTS[kind], classes)  # type: ignore[arg-type]


def batch(kind: str, n: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    if kind in ("image", "pixels"):
        return torch.randn(n, 3, 16, 16, generator=generator)
    if kind in ("context", "text"):
        return torch.randint(0, 11, (n, 9), generator=generator)
    x = torch.randint(1, 10, (n, 13), generator=generator)
    x[:, 5:7] = 0  # two padded places of the source
    return x


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_shapes_seeds_and_gradients(name: str, kind: str) -> None:
    net, x = make(name, kind), batch(kind)
    weights = net.init(torch.Generator().manual_seed(1))
    out = net.logits(weights, x, training=True)
    answers = {"image": (), "pixels": (768,), "context": (), "text": (9,), "pair": (6,)}[kind]
    assert out.shape == (4, *answers, 5)
    grads = torch.autograd.grad(out.square().sum(), weights.params)  # every parameter has a part
    assert all(g.abs().max() > 0 for g in grads)
    again = net.init(torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(weights.params, again.params, strict=True))
    other = net.init(torch.Generator().manual_seed(2))
    assert any(not torch.equal(a, b) for a, b in zip(weights.params, other.params, strict=True))
    assert 0.02 < out.std() < 20


def test_grey_convolution_is_conv2d() -> None:
    """The first kernels as a matrix product; with two channels of which one is empty, conv2d does the same sums."""
    grey = ConvNet(channels=1, size=(8, 6), width=5, classes=3)
    pair = ConvNet(channels=2, size=(8, 6), width=5, classes=3)
    one, two = (net.init(torch.Generator().manual_seed(1)) for net in (grey, pair))
    two.params[1:] = one.params[1:]
    two.params[0] = torch.cat([one.params[0], torch.zeros_like(one.params[0])], 1)
    x = torch.randn(4, 1, 8, 6, generator=torch.Generator().manual_seed(2))
    a = grey.logits(one, x, training=True)
    b = pair.logits(two, torch.cat([x, torch.zeros_like(x)], 1), training=True)
    assert torch.allclose(a, b, atol=1e-5)
    kernel = torch.autograd.grad(a.square().sum(), one.params[0], retain_graph=True)[0]
    shared = torch.autograd.grad(b.square().sum(), one.params[0])[0]
    assert torch.allclose(kernel, shared, atol=1e-4 * float(kernel.abs().max()))


def test_convnet_against_modules() -> None:
    net = ConvNet(channels=3, size=(8, 8), width=4, classes=3)
    weights = net.init(torch.Generator().manual_seed(1))
    layers: list[torch.nn.Module] = []
    for block in range(2):
        layers += [
            torch.nn.Conv2d(3 if block == 0 else 4, 4, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.BatchNorm2d(4),
            torch.nn.MaxPool2d(2),
        ]
    module = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(16, 3))
    with torch.no_grad():
        for mine, theirs in zip(weights.params, module.parameters(), strict=True):
            theirs.copy_(mine)
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(net.logits(weights, x, training=True), module(x), atol=1e-5)


def test_autoencoder_against_modules() -> None:
    """A code of six numbers, which has no ReLU; the classes of a pixel stand side by side."""
    net = build(Spec("autoencoder", 1, 6), Inputs("pixels", channels=1, size=(3, 4)), 5)
    weights = net.init(torch.Generator().manual_seed(1))
    module = torch.nn.Sequential(
        torch.nn.Linear(12, 24),
        torch.nn.ReLU(),
        torch.nn.Linear(24, 6),
        torch.nn.Linear(6, 24),
        torch.nn.ReLU(),
        torch.nn.Linear(24, 60),
    )
    with torch.no_grad():
        for mine, theirs in zip(weights.params, module.parameters(), strict=True):
            theirs.copy_(mine)
    x = torch.randn(7, 1, 3, 4, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(net.logits(weights, x, training=True).flatten(1), module(x.flatten(1)), atol=1e-5)


def test_wide_resnet_has_the_size_that_it_is_known_for() -> None:
    """Zagoruyko and Komodakis: WRN-40-1 0.6 M, WRN-16-4 2.75 M, WRN-28-10 36.5 M parameters on CIFAR-10."""
    for spec, millions in (("wrn-40-1", 0.56), ("wrn-16-4", 2.75), ("wrn-28-10", 36.5)):
        net = build(parse(spec, "image"), Inputs("image", channels=3, size=(32, 32)), 10)
        count = sum(p.numel() for p in net.init(torch.Generator().manual_seed(1)).params)
        assert count / 1e6 == pytest.approx(millions, abs=0.05), spec


def test_wide_resnet_halves_twice_and_evaluates_with_running_statistics() -> None:
    net = make("wrn", "image")
    weights = net.init(torch.Generator().manual_seed(1))
    x = batch("image", 32)
    trained = net.logits(weights, x, training=True)  # the first batch is the whole average
    variance = 1e-1  # of n against n - 1 in the running variance
    assert torch.allclose(net.logits(weights, x, training=False), trained, atol=variance)
    before = [running.clone() for running in weights.running]
    net.logits(weights, x, training=False)
    assert all(torch.equal(a, b) for a, b in zip(before, weights.running, strict=True))


@pytest.mark.parametrize("kind", ["text", "pair"])
@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_nobody_looks_ahead(name: str, kind: str) -> None:
    """Another token at a place changes the outputs from there on and none before."""
    net, x = make(name, kind), batch(kind)
    weights = net.init(torch.Generator().manual_seed(1))
    place = 4
    changed = x.clone()
    changed[:, place + (7 if kind == "pair" else 0)] = (x[:, place + (7 if kind == "pair" else 0)] + 1) % 9 + 1
    a, b = (net.logits(weights, z, training=False) for z in (x, changed))
    assert torch.allclose(a[:, :place], b[:, :place], atol=1e-6)
    assert (a[:, place:] - b[:, place:]).abs().amax((0, 2)).min() > 1e-5


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_decoders_see_the_source_but_not_its_padding(name: str) -> None:
    net, x = make(name, "pair"), batch("pair")
    weights = net.init(torch.Generator().manual_seed(1))
    out = net.logits(weights, x, training=False)
    changed = x.clone()
    changed[:, 2] = x[:, 2] % 9 + 1
    assert (net.logits(weights, changed, training=False) - out).abs().max() > 1e-4
    if name == "transformer":  # a recurrent encoder reads what stands after the sentence, too
        shorter = torch.cat([x[:, :5], x[:, 7:]], 1)
        trimmed = build(
            Spec(name, *SMALL[name]), Inputs("pair", vocabulary=12, length=6, source=5, source_vocabulary=10), 5
        )
        assert torch.allclose(trimmed.logits(weights, shorter, training=False), out, atol=1e-5)


@pytest.mark.parametrize("kind", ["text", "pair"])
def test_unrolled_gru_is_torch_gru(kind: str) -> None:
    net, x = make("gru", kind), batch(kind)
    weights = net.init(torch.Generator().manual_seed(1))
    a, b = net.logits(weights, x, training=True), net.stackable().logits(weights, x, training=True)
    assert torch.allclose(a, b, atol=1e-6)


def test_gru_against_module() -> None:
    net, x = make("gru", "text"), batch("text")
    weights = net.init(torch.Generator().manual_seed(1))
    module = torch.nn.GRU(8, 8, 2, batch_first=True)
    with torch.no_grad():
        for mine, theirs in zip(weights.params[1:9], module.parameters(), strict=True):
            theirs.copy_(mine)
    want = F.linear(module(F.embedding(x, weights.params[0]))[0], *weights.params[-2:])
    assert torch.allclose(net.logits(weights, x, training=True), want, atol=1e-6)


def test_perceptron_of_tokens_against_modules() -> None:
    net, x = make("mlp", "context"), batch("context")
    weights = net.init(torch.Generator().manual_seed(1))
    module = torch.nn.Sequential(
        torch.nn.Embedding(11, 16), torch.nn.Flatten(), torch.nn.Linear(9 * 16, 8), torch.nn.ReLU(),
        torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5),
    )  # fmt: skip
    with torch.no_grad():
        for mine, theirs in zip(weights.params, module.parameters(), strict=True):
            theirs.copy_(mine)
    assert torch.allclose(net.logits(weights, x, training=True), module(x), atol=1e-6)


def test_positions() -> None:
    """sin and cos of place / 10000^(2k / width), as in the paper."""
    table = positions(5, 6, torch.zeros(1, dtype=torch.float64))
    for place in range(5):
        for k in range(3):
            angle = place / 10000 ** (2 * k / 6)
            assert table[place, 2 * k].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[place, 2 * k + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_names() -> None:
    assert fitting("image") == ("convnet", "wrn", "mlp")
    assert fitting("context") == ("mlp",)
    assert fitting("text") == fitting("pair") == ("gru", "transformer")
    assert str(parse("wrn-16-4", "image")) == "wrn-16-4"
    assert str(parse("gru", "text")) == "gru-1-96"
    with pytest.raises(UsageError, match="--net 'resnet' is not known; choose one of: convnet, wrn, mlp"):
        parse("resnet", "image")
