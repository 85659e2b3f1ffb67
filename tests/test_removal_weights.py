"""Pruning and quantisation reach all weights of a net, of whatever layers and however parametrised, or refuse."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from heirmark.attacks.removal.pruning import Pruning
from heirmark.attacks.removal.quantisation import Quantisation, quantise
from heirmark.attacks.removal.weights import weights_of
from heirmark.errors import BadConfig
from heirmark.models import CUSTOM, ModelSpec, Net, build
from heirmark.models.storage import load_model, save_model
from heirmark.runtime import seeded
from heirmark.tasks.task import Split

# PyTorch says so once a process; nothing is wrong.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

SHAPE = (5, 6)
SPEC = ModelSpec(name=CUSTOM, input_shape=SHAPE, classes=3)


def split_of(shape: tuple[int, ...]) -> Split:
    return Split(inputs=torch.rand(6, *shape, generator=torch.Generator().manual_seed(1)), labels=torch.arange(6) % 3)


def applied(attack: Pruning | Quantisation, model: nn.Module, spec: ModelSpec = SPEC) -> nn.Module:
    return attack(Net(model=model, spec=spec), split_of(spec.input_shape), seed=0).model


def share_of_zeros(model: nn.Module) -> tuple[int, int]:
    numbers = torch.cat([weight.values.flatten() for weight in weights_of(model)])
    return int((numbers == 0).sum()), numbers.numel()


def paths(model: nn.Module) -> list[str]:
    return [weight.path for weight in weights_of(model)]


class Sequences(nn.Module):
    """A recurrent layer and a head."""

    def __init__(self, recurrent: nn.RNNBase) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear((recurrent.proj_size or recurrent.hidden_size) * (1 + recurrent.bidirectional), 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.recurrent(inputs)[0].mean(1))
        return logits


class Tokens(nn.Module):
    """A transformer over tokens that are its inputs."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.cross = nn.MultiheadAttention(6, 2, kdim=4, vdim=5, add_bias_kv=True, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(inputs)
        mixed: Tensor = self.cross(tokens, tokens[..., :4], tokens[..., :5])[0]
        logits: Tensor = self.head(mixed.mean(1))
        return logits


class Words(nn.Module):
    """Word vectors that serve at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.mix = nn.Bilinear(4, 4, 4)
        self.back = nn.Linear(4, 7, bias=False)
        self.back.weight = self.words.weight
        self.head = nn.Linear(7, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        vectors: Tensor = self.words((inputs * 7).long().clamp(0, 6).flatten(1)).mean(1)
        logits: Tensor = self.head(self.back(self.mix(vectors, vectors)))
        return logits


class Own(nn.Module):
    """A user's own layer, with one parameter of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(6, 3))
        self.experts = nn.ParameterList([torch.randn(2, 3, 3)])
        self.scale = nn.Parameter(torch.rand(5, 1))
        self.position = nn.Parameter(torch.randn(1, 5, 6))
        self.relative_position_bias = nn.Parameter(torch.randn(5, 6))
        self.shift = nn.Parameter(torch.randn(3))
        self.norm = nn.LayerNorm(SHAPE)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.norm(inputs * self.scale + self.position + self.relative_position_bias)
        return (tokens @ self.matrix).mean(1) @ self.experts[0].sum(0) + self.shift


NETS: dict[str, Callable[[], nn.Module]] = {
    "gru": lambda: Sequences(nn.GRU(6, 4, num_layers=2, bidirectional=True, batch_first=True)),
    "lstm": lambda: Sequences(nn.LSTM(6, 5, proj_size=3, batch_first=True)),
    "transformer": Tokens,
    "words": Words,
    "own": Own,
}
REACHED = {
    "gru": [f"recurrent.weight_{kind}_l{n}{way}" for n in (0, 1) for way in ("", "_reverse") for kind in ("ih", "hh")],
    "lstm": ["recurrent.weight_ih_l0", "recurrent.weight_hh_l0", "recurrent.weight_hr_l0"],
    "transformer": [
        *(
            f"encoder.layers.{n}.{name}"
            for n in (0, 1)
            for name in ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
        ),
        *(f"cross.{name}" for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")),
    ],
    "words": ["words.weight", "mix.weight"],
    "own": ["matrix", "experts.0"],
}  # fmt: skip


def weight_norm(module: nn.Module, name: str = "weight") -> None:
    parametrizations.weight_norm(module, name)


def whole_weight_norm(module: nn.Module, name: str = "weight") -> None:
    parametrizations.weight_norm(module, name, dim=None)  # type: ignore[arg-type]


def spectral_norm(module: nn.Module, name: str = "weight") -> None:
    parametrizations.spectral_norm(module, name)


def old_weight_norm(module: nn.Module, name: str = "weight") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(module, name)


def old_spectral_norm(module: nn.Module, name: str = "weight") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.spectral_norm(module, name)


def masked(module: nn.Module, name: str = "weight") -> None:
    prune.l1_unstructured(module, name, amount=0.2)


NORMED = {
    "weight-norm": weight_norm,
    "whole-weight-norm": whole_weight_norm,
    "spectral-norm": spectral_norm,
    "old-weight-norm": old_weight_norm,
    "old-spectral-norm": old_spectral_norm,
    "masked": masked,
}


class Normed(nn.Module):
    """A transposed convolution, a recurrent layer and a head, each with a parametrised weight."""

    def __init__(self, norm: Callable[..., None]) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(5, 4, 3)
        self.recurrent = nn.GRU(8, 4, batch_first=True)
        self.head = nn.Linear(4, 3)
        norm(self.up)
        norm(self.recurrent, "weight_hh_l0")
        norm(self.head)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.recurrent(self.up(inputs).relu())[0][:, -1])
        return logits


def plain_copy(model: nn.Module) -> nn.Module:
    """A net without parametrisations that has the same weights."""
    plain = Normed(lambda module, name="weight": None)
    for weight, own in zip(weights_of(plain), sorted_like(plain, model), strict=True):
        weight.values.copy_(own)
    biases = {name: value for name, value in model.state_dict().items() if "bias" in name}
    assert not plain.load_state_dict(biases, strict=False).unexpected_keys
    return plain.eval()


def sorted_like(plain: nn.Module, model: nn.Module) -> list[Tensor]:
    values = {weight.path: weight.values for weight in weights_of(model)}
    return [values[path] for path in paths(plain)]


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    with seeded(3):
        return request.param, NETS[request.param]().eval()


def normed(norm: Callable[..., None], *, seed: int = 3) -> nn.Module:
    with seeded(seed):
        return Normed(norm).eval()


# ---------------------------------------------------------------- which weights there are


def test_every_weight_is_found_once_and_in_order(net: tuple[str, nn.Module]) -> None:
    name, model = net
    assert paths(model) == REACHED[name] + ["head.weight"] * (name != "own")


def test_the_output_channels_of_a_transposed_convolution_come_second() -> None:
    model = nn.ModuleList([nn.Conv1d(2, 3, 1), nn.ConvTranspose1d(2, 3, 1), nn.Linear(2, 3), nn.LSTMCell(2, 3)])
    assert [(weight.path, weight.axis) for weight in weights_of(model)] == [
        ("0.weight", 0), ("1.weight", 1), ("2.weight", 0), ("3.weight_ih", 0), ("3.weight_hh", 0),
    ]  # fmt: skip


def test_tokens_and_positions_of_a_vision_transformer_are_left_alone() -> None:
    options: dict[str, Any] = {"dim": 8, "depth": 1, "heads": 2}
    spec = ModelSpec(name="vit-s", input_shape=(1, 8, 8), classes=3, options=tuple(sorted(options.items())))
    model = spec.build(seed=0).eval()
    linear = [name for name, part in model.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))]
    assert paths(model) == [f"{name}.weight" for name in linear]
    for attack in (Pruning(rate=0.9), Quantisation(bits=1)):
        after = applied(attack, model, spec)
        for name in ("features.1.first", "features.1.positions"):
            assert torch.equal(after.get_parameter(name), model.get_parameter(name))


def test_a_weight_that_is_frozen_as_a_buffer_is_one() -> None:
    layer = nn.Linear(3, 4)
    values = layer.weight.detach()
    del layer.weight
    layer.register_buffer("weight", values)
    assert paths(nn.Sequential(layer)) == ["0.weight"]


# ---------------------------------------------------------------- pruning


@pytest.mark.parametrize("rate", [0.3, 0.9])
def test_the_pruned_share_is_exact_over_all_weights(rate: float, net: tuple[str, nn.Module]) -> None:
    model = net[1]
    before = copy.deepcopy(model.state_dict())
    pruned = applied(Pruning(rate=rate), model)
    none, total = share_of_zeros(pruned)
    assert none == round(rate * total)
    for old, new in zip(weights_of(model), weights_of(pruned), strict=True):
        assert torch.equal(new.values[new.values != 0], old.values[new.values != 0])
    after = pruned.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    weights = {*paths(model), "back.weight"}
    assert all(torch.equal(after[name], before[name]) for name in before if name not in weights)
    assert not torch.equal(pruned(split_of(SHAPE).inputs), model(split_of(SHAPE).inputs))


def test_pruning_by_layer_takes_the_same_share_of_every_weight(net: tuple[str, nn.Module]) -> None:
    for weight in weights_of(applied(Pruning(rate=0.4, kind="layer-magnitude"), net[1])):
        assert int((weight.values == 0).sum()) == round(0.4 * weight.values.numel())


@pytest.mark.parametrize("kind", ["global-magnitude", "layer-magnitude"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_nets_of_convolutions_are_pruned_as_by_pytorch(kind: Any, layout: torch.memory_format) -> None:
    with seeded(0):
        model = build("naivenet", input_shape=(1, 16, 16), classes=3, width=4, hidden=8, batch_norm=True).eval()
    with torch.no_grad():  # with many ties, of which some go and some stay
        for weight in weights_of(model):
            weight.values.mul_(20).round_().div_(20)
    expected = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    places = [(part, "weight") for part in expected.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    if kind == "global-magnitude":
        prune.global_unstructured(places, pruning_method=prune.L1Unstructured, amount=0.7)
    else:
        for place in places:
            prune.l1_unstructured(*place, amount=0.7)
    for place in places:
        prune.remove(*place)
    spec = ModelSpec(name=CUSTOM, input_shape=(1, 16, 16), classes=3)
    pruned = applied(Pruning(rate=0.7, kind=kind), model.to(memory_format=layout), spec).state_dict()  # type: ignore[call-overload]
    wanted = expected.state_dict()
    for name in pruned:
        ours, theirs = (state[name].contiguous() for state in (pruned, wanted))
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()


# ---------------------------------------------------------------- quantisation


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_two_bits_leave_three_levels_in_every_weight(per: Any, net: tuple[str, nn.Module]) -> None:
    model = net[1]
    quantised = applied(Quantisation(bits=2, per=per), model)
    for old, new in zip(weights_of(model), weights_of(quantised), strict=True):
        before, after = (one.values.movedim(one.axis, 0) for one in (old, new))
        if per == "tensor":
            before, after = before[None], after[None]
        assert torch.equal(after, quantise(before, 2))
        for row in after:
            assert len(row.unique()) <= 3
    known = {weight.path for weight in weights_of(model)} | {"back.weight"}
    for name, parameter in model.named_parameters():
        if name not in known:
            assert torch.equal(quantised.get_parameter(name), parameter)


# ---------------------------------------------------------------- parametrised weights


@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize("kind", ["global-magnitude", "layer-magnitude"])
def test_of_parametrised_weights_those_are_pruned_that_the_net_works_with(name: str, kind: Any) -> None:
    model = normed(NORMED[name])
    plain = plain_copy(model)
    inputs = split_of(SHAPE).inputs
    assert torch.allclose(plain(inputs), model(inputs), atol=1e-6)
    pruned = applied(Pruning(rate=0.6, kind=kind), model)
    none, total = share_of_zeros(pruned)
    assert none == (round(0.6 * total) if kind == "global-magnitude" else sum(
        round(0.6 * weight.values.numel()) for weight in weights_of(model)
    ))  # fmt: skip
    assert list(pruned.state_dict()) == list(model.state_dict())
    assert [(p.requires_grad, p.is_leaf) for p in pruned.parameters()] == [(True, True)] * len([*model.parameters()])
    values = dict(zip(paths(plain), sorted_like(plain, pruned), strict=True))
    wanted = dict(zip(paths(plain), sorted_like(plain, model), strict=True))
    for path, value in values.items():
        assert torch.allclose(value, torch.where(value == 0, 0, wanted[path]), atol=1e-6)
    assert torch.allclose(plain_copy(pruned)(inputs), pruned(inputs), atol=1e-6)


@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize(
    "attack", [Quantisation(bits=2), Quantisation(bits=3, per="channel", symmetric=False), Quantisation(bits=1)]
)
def test_of_parametrised_weights_those_are_quantised_that_the_net_works_with(name: str, attack: Quantisation) -> None:
    model = normed(NORMED[name])
    quantised = applied(attack, model)
    inputs = split_of(SHAPE).inputs
    for old, new in zip(weights_of(model), weights_of(quantised), strict=True):
        rows = old.values.transpose(0, old.axis) if attack.per == "channel" else old.values[None]
        wanted = quantise(rows, attack.bits, symmetric=attack.symmetric)
        got = new.values.transpose(0, new.axis) if attack.per == "channel" else new.values[None]
        assert torch.allclose(got, wanted, atol=1e-6)
        assert torch.equal(got == 0, wanted == 0)
    assert torch.allclose(plain_copy(quantised)(inputs), quantised(inputs), atol=1e-6)


@pytest.mark.parametrize("name", NORMED)
def test_a_parametrised_net_that_was_pruned_is_loaded_from_its_factory(name: str, tmp_path: Path) -> None:
    model = normed(NORMED[name])
    pruned = applied(Pruning(rate=0.6), model)
    save_model(Net(model=pruned, spec=SPEC), tmp_path)
    loaded = load_model(tmp_path, factories=[lambda spec: Normed(NORMED[name])]).model
    inputs = split_of(SHAPE).inputs
    assert torch.equal(loaded(inputs), pruned(inputs))
    assert share_of_zeros(loaded) == share_of_zeros(pruned)


def test_a_row_of_zeros_has_no_norm_and_stays_zero() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 3)).eval()
    with torch.no_grad():
        model.get_parameter("1.weight")[1].mul_(1e-6)
    weight_norm(model[1])
    pruned = applied(Pruning(rate=0.5), model)
    assert not pruned[1].weight[1].any()  # type: ignore[index, union-attr]
    assert torch.isfinite(pruned(split_of(SHAPE).inputs)).all()


def test_a_spectral_norm_counts_again_as_soon_as_one_trains() -> None:
    pruned = applied(Pruning(rate=0.6), normed(spectral_norm)).train()
    for _ in range(30):
        pruned(split_of(SHAPE).inputs)
    head: Any = pruned.eval().get_submodule("head")
    assert float(torch.linalg.matrix_norm(head.weight.detach(), 2)) == pytest.approx(1, rel=1e-3)


def test_a_net_that_hooks_have_just_made_weights_for_can_be_copied() -> None:
    model = normed(old_weight_norm).train()
    model(split_of(SHAPE).inputs).sum().backward()
    head: Any = model.get_submodule("head")
    assert head.weight.requires_grad
    assert share_of_zeros(applied(Pruning(rate=0.5), model))[0] > 0


class Halved(nn.Module):
    """A parametrisation that can be undone."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight * 2


class UnitNorm(Halved):
    """One that fixes the size of the whole weight."""

    def forward(self, weight: Tensor) -> Tensor:
        return F.normalize(weight.flatten(), dim=0).view_as(weight)


class Positive(Halved):
    """One that holds zero at minus infinity alone."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.exp()

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.log()


class Doubled(nn.Module):
    """One that does not say how it is undone."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def with_head(part: nn.Module) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 3))
    with torch.no_grad():
        model.get_parameter("1.weight").abs_()
    parametrize.register_parametrization(model[1], "weight", part)
    return model.eval()


def test_a_parametrisation_of_ones_own_is_set_through_its_inverse() -> None:
    model = with_head(Halved())
    for attack in (Pruning(rate=0.5), Quantisation(bits=4)):
        changed: Any = applied(attack, model)
        assert torch.equal(changed[1].parametrizations.weight.original, 2 * changed[1].weight)
    assert share_of_zeros(applied(Pruning(rate=0.5), model)) == (45, 90)


def test_a_parametrisation_may_keep_the_size_of_a_weight() -> None:
    model = with_head(UnitNorm())
    before, after = (weights_of(one)[0].values for one in (model, applied(Pruning(rate=0.5), model)))
    kept = after != 0
    assert int(kept.sum()) == 45
    assert torch.allclose(after[kept], before[kept] / before[kept].norm())


@pytest.mark.parametrize("part", [Positive, Doubled])
def test_what_a_parametrisation_cannot_hold_is_refused(part: type[nn.Module]) -> None:
    with pytest.raises(BadConfig, match=r"parametrisation of 1\.weight cannot hold"):
        applied(Pruning(rate=0.5), with_head(part()))


def test_orthogonal_weights_are_refused(unchanged_globals: Callable[[], Any]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 4), nn.Linear(4, 3))
    parametrizations.orthogonal(model[1])
    model.eval()
    for attack in (Pruning(rate=0.5), Quantisation(bits=2)):
        with unchanged_globals(), pytest.raises(BadConfig, match=r"parametrisation of 1\.weight cannot hold"):
            applied(attack, model)
    assert torch.equal(weights_of(applied(Pruning(rate=0.0), model))[0].values, weights_of(model)[0].values)


def test_a_spectral_norm_of_nothing_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 8), nn.Linear(8, 3)).eval()
    spectral_norm(model[2])
    with torch.no_grad():
        model.get_parameter("1.weight").add_(50)
    with pytest.raises(BadConfig, match=r"2\.weight cannot hold"):
        applied(Pruning(rate=0.2), model)


# ---------------------------------------------------------------- what is refused


def test_weights_that_are_no_real_numbers_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 3))
    model.register_module("waves", nn.ParameterList([nn.Parameter(torch.randn(4, 3, dtype=torch.complex64))]))
    model.register_parameter("table", nn.Parameter(torch.ones(3, 3, dtype=torch.int8), requires_grad=False))
    for attack in (Pruning(), Quantisation()):
        with pytest.raises(BadConfig, match=r"left as they are: table \(int8\), waves\.0 \(complex64\); make them"):
            applied(attack, model)


def test_weights_that_are_made_in_unknown_ways_are_refused_by_name() -> None:
    twice = nn.Linear(3, 3)
    old_weight_norm(twice)
    prune.identity(twice, "weight_v")
    own = nn.Linear(3, 3)
    values = own.weight.detach()
    del own.weight
    own.weight = values  # type: ignore[assignment]
    with pytest.raises(BadConfig, match=r"twice\.weight \(made of what is made itself\), own\.weight \(no parameter\)"):
        weights_of(nn.ModuleDict({"twice": twice, "own": own}))


def test_packed_integers_are_refused_by_name() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = pytest.importorskip("torch.ao.nn.quantized.dynamic")
        packed = quantized.Linear(4, 3)
    with pytest.raises(BadConfig, match=r"1 \(packed integers\)"):
        weights_of(nn.Sequential(nn.Linear(4, 4), packed))


def test_a_net_without_weights_is_refused() -> None:
    for attack in (Pruning(), Quantisation()):
        with pytest.raises(BadConfig, match="Sequential has no weights, such as"):
            applied(attack, nn.Sequential(nn.Flatten(), nn.LayerNorm(30)))
