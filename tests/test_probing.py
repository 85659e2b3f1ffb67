"""The inputs of a net's decision, found in nets of all kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from heirmark.errors import BadConfig
from heirmark.models import CUSTOM, ModelSpec, features_of
from heirmark.models.front import Fronted
from heirmark.models.probing import WIDEST, _folded, decision_inputs, probe_of
from heirmark.querying.asking import predict
from heirmark.querying.layout import fitted
from heirmark.runtime import Runtime
from heirmark.tasks.storing import decode
from own_nets import Ended, group_norms, layer_norms
from test_models import BUILT_IN, images, narrow
from test_own_models import softmaxed, viewing

SPEC = ModelSpec(name=CUSTOM, input_shape=(1, 16, 16), classes=6)
EXACT = Runtime(device="cpu", precision="float32")
STORED = images(40, SPEC.input_shape)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def found(model: nn.Module, inputs: Tensor = STORED, **options: Any) -> tuple[str, Tensor]:
    probe = probe_of(model, inputs, runtime=EXACT, **options)
    blocks = torch.cat([*probe.blocks(inputs, runtime=EXACT)])
    assert blocks.dtype == torch.float32
    assert blocks.shape == (len(inputs), probe.width)
    assert not blocks.requires_grad
    return probe.place, blocks


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_net_says_itself(name: str) -> None:
    model = narrow(name).eval()
    stored = images(10, (1, 28, 28))
    place, blocks = found(model, stored)
    with torch.no_grad():
        plain = features_of(model)(stored).flatten(1)
    assert place == "features"
    torch.testing.assert_close(blocks, plain)


@pytest.mark.parametrize("make", [layer_norms, group_norms])
@pytest.mark.parametrize("entry", [False, True])
def test_a_users_net_need_not_say_anything(make: Any, entry: bool) -> None:
    model = make(SPEC).train()
    if entry:
        model = fitted(model, SPEC.input_shape).train()
    place, blocks = found(model)
    assert all(module.training for module in model.modules())  # its modes are back
    with torch.no_grad():
        plain = model.eval().inner(decode(STORED))
    assert place == "linear"
    torch.testing.assert_close(blocks, plain)
    torch.testing.assert_close(model.classifier(blocks), predict(model, STORED, runtime=EXACT))


@pytest.mark.parametrize(
    ("end", "place"),
    [
        ("function", "linear"),
        ("product", "linear"),
        ("temperature", "linear"),
        ("softmax", "linear"),
        ("distance", "logits"),
    ],
)
def test_a_net_may_end_in_a_function(end: str, place: str) -> None:
    model = Ended(SPEC, end).eval()
    where, blocks = found(model)
    assert where == place
    with torch.no_grad():
        torch.testing.assert_close(blocks, (model.inner if place == "linear" else model)(decode(STORED)))


def test_features_alone_are_better_than_logits() -> None:
    class Telling(Ended):
        def features(self, inputs: Tensor) -> Tensor:
            return self.inner(inputs)

    model = Telling(SPEC, "distance").eval()
    place, blocks = found(model)
    assert place == "features"
    with torch.no_grad():
        torch.testing.assert_close(blocks, model.inner(decode(STORED)))


def test_features_that_the_head_does_not_decide_by_are_passed_over() -> None:
    class Misleading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 6)
            self.classifier = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.classifier(self.features(inputs).mean((2, 3)))
            return logits

    model = Misleading().eval()
    place, blocks = found(model)
    assert (place, blocks.shape[1]) == ("linear", 8)
    torch.testing.assert_close(model.classifier[2](blocks), predict(model, STORED, runtime=EXACT))


def test_a_parametrised_layer_is_one_of_several_with_as_many_outputs() -> None:
    last = parametrizations.weight_norm(nn.Linear(6, 6))
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 6), nn.ReLU(), last).eval()
    place, blocks = found(model)
    assert place == "linear"
    with torch.no_grad():
        torch.testing.assert_close(blocks, model[:3](decode(STORED)))


@pytest.mark.parametrize(
    "end",
    [
        [nn.Conv2d(4, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        [nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 6, 1), nn.Flatten()],
        [nn.Conv2d(4, 6, 14), nn.Flatten()],
    ],
    ids=["averaged", "one position", "as wide as the map"],
)
def test_a_convolution_may_decide(end: list[nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), *end).eval()
    place, blocks = found(model)
    assert place == "linear"
    layer = next(module for module in end if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        said = blocks @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(said, predict(model, STORED, runtime=EXACT), rtol=1e-4, atol=1e-5)


def test_a_convolution_behind_which_more_comes_does_not_decide() -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert found(model)[0] == "logits"


def test_a_net_that_takes_one_layout_or_gives_probabilities_is_asked_as_predict_asks() -> None:
    assert found(viewing(SPEC))[0] == "linear"
    assert found(softmaxed(SPEC))[0] == "linear"  # and no warning: nobody takes them for logits
    assert found(Fronted(narrow("naivenet", SPEC.input_shape, 6), (("bits", 4.0),)))[0] == "features"


def test_many_numbers_are_folded_and_keep_their_inner_products() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 3000), nn.ReLU(), nn.Linear(3000, 6))
    place, blocks = found(model)
    assert (place, blocks.shape[1]) == ("linear", WIDEST)
    assert found(model, widest=7)[1].shape == (40, 7)
    with torch.no_grad():
        plain = model[:3](decode(STORED))
    torch.testing.assert_close(blocks @ blocks.T, plain @ plain.T, rtol=0.15, atol=0.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12))
def test_folding_adds_up_every_number_once(width: int, widest: int) -> None:
    folded = _folded(torch.eye(width), widest=widest)
    assert folded.shape == (width, widest)
    assert torch.equal(folded.abs().sum(1), torch.ones(width))  # each goes to one place, with a sign
    assert int(folded.abs().sum(0).max()) <= -(-width // widest)


def test_blocks_are_the_whole_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    import heirmark.models.probing as probing

    model = layer_norms(SPEC)
    whole = decision_inputs(model, STORED, runtime=EXACT)
    monkeypatch.setattr(probing, "batch_for", lambda inputs: 1)
    parts = [*probe_of(model, STORED, runtime=EXACT).blocks(STORED, runtime=EXACT)]
    assert [len(part) for part in parts] == [16, 16, 8]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert [*probe_of(model, STORED).blocks(STORED[:0])] == []


def test_what_cannot_be_probed_is_told() -> None:
    with pytest.raises(BadConfig, match="at least one input"):
        probe_of(layer_norms(SPEC), STORED[:0])
    with pytest.raises(BadConfig, match="room for one number"):
        probe_of(layer_norms(SPEC), STORED, widest=0)

    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(256, 6)

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.linear(inputs.flatten(1)) if len(inputs) == 8 else inputs.flatten(1)[:, :6]
            return logits

    with pytest.raises(BadConfig, match="other layers for some inputs"):
        decision_inputs(Choosy(), STORED)
