"""The built-in nets for texts: shapes, what they read, and how they are differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heirmark.errors import ShapeMismatch
from heirmark.models import MODELS, HasFeatures, build, features_of
from heirmark.rehearsal import Thief, choose_derivative, student_state
from heirmark.runtime import Runtime
from heirmark.tasks.space import UNKNOWN
from heirmark.training.fitting import Recipe, fit

NARROW: dict[str, dict[str, Any]] = {
    "lstm": {"width": 8, "hidden": 12, "vocabulary": 50},
    "text-cnn": {"width": 8, "maps": 6, "vocabulary": 50},
    "fast-text": {"width": 8, "hidden": 12, "vocabulary": 50},
}
NAMES = list(NARROW)


def ids(count: int, length: int = 9, seed: int = 0, vocabulary: int = 50) -> Tensor:
    """Texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(1, vocabulary, (count, length), generator=generator)
    ends = torch.randint(1, length + 1, (count, 1), generator=generator)
    return drawn.masked_fill(torch.arange(length)[None] >= ends, 0).to(torch.int32)


def narrow(name: str, length: int = 9, seed: int = 0) -> nn.Module:
    return build(name, input_shape=(length,), classes=5, seed=seed, **NARROW[name])


def test_these_are_all() -> None:
    named = [name for name in MODELS if MODELS[name].dimensions == 1]
    assert set(NAMES) <= set(named)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_head_of_the_features(name: str) -> None:
    model = narrow(name).eval()
    with torch.no_grad():
        logits, features = model(ids(3)), features_of(model)(ids(3))
        assert logits.shape == (3, 5)
        assert features.ndim == 2
        assert torch.equal(model.head(features), logits)  # type: ignore[operator]
        assert torch.equal(model(ids(3).long()), logits)
    assert isinstance(model, HasFeatures)
    assert logits.std() > 0


@pytest.mark.parametrize("name", NAMES)
def test_padding_behind_says_nothing_but_to_windows_over_it(name: str) -> None:
    model = narrow(name).eval()
    few = ids(4)
    few[:, 6:] = 0
    with torch.no_grad():
        alone = torch.cat([model(row[None]) for row in few])
        torch.testing.assert_close(alone, model(few))
        if name != "text-cnn":  # a window may begin with the last words and end in padding
            wider = torch.cat([few, few.new_zeros(4, 5)], 1)
            torch.testing.assert_close(model(wider), model(few))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_beyond_the_vocabulary_is_unknown(name: str) -> None:
    model = narrow(name).eval()
    rare = ids(4, vocabulary=90)
    with torch.no_grad():
        assert torch.equal(model(rare), model(torch.where(rare < 50, rare, UNKNOWN)))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_takes_part_and_the_seed_decides_the_start(
    name: str, unchanged_globals: Callable[[], Any]
) -> None:
    with unchanged_globals():
        model, same, other = narrow(name, seed=1), narrow(name, seed=1), narrow(name, seed=2)
    model(ids(4)).square().sum().backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None]
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_rehearsal_differentiates_it_forwards(name: str) -> None:
    model = narrow(name).train()
    thief = Thief(skeleton=model, student=student_state(model), rate=0.1)
    assert choose_derivative(thief, ids(6)) == ("forward", "")


def test_the_recurrence_is_that_of_torch() -> None:
    model = narrow("lstm").eval()
    recurrence = model.features.recurrence
    known = nn.LSTM(8, 12, batch_first=True)
    with torch.no_grad():
        known.weight_ih_l0.copy_(recurrence.inner.weight)  # both have the gates in the order i, f, g, o
        known.bias_ih_l0.copy_(recurrence.inner.bias)
        known.weight_hh_l0.copy_(recurrence.outer.weight)
        known.bias_hh_l0.zero_()
        some = ids(5)
        vectors = model.features.words(some)
        lengths = (some != 0).sum(1)
        wanted = torch.stack([known(vectors[row : row + 1, : lengths[row]])[0][0, -1] for row in range(5)])
        torch.testing.assert_close(recurrence(vectors, some != 0), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ShapeMismatch, match=r"takes texts of shape \(L,\)"):
        build(name, input_shape=(3, 32, 32), classes=5)
    with pytest.raises(ShapeMismatch, match="takes images"):
        build("naivenet", input_shape=(9,), classes=5)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_to_find_a_word(name: str, cpu: Runtime) -> None:
    labels = torch.arange(150) % 3
    inputs = ids(150)
    inputs[inputs < 5] = 7
    places = (inputs != 0).sum(1) // 2
    inputs[torch.arange(150), places] = (2 + labels).to(torch.int32)
    model = narrow(name)
    recipe = Recipe(epochs=12, batch_size=20, optimizer="adam", learning_rate=2e-2, weight_decay=0.0)
    fit(model, inputs[:120], labels[:120], recipe=recipe, seed=0, runtime=cpu)
    with torch.no_grad():
        said = model.eval()(inputs[120:]).argmax(1)
    assert float((said == labels[120:]).float().mean()) > 0.7
