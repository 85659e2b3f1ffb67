"""The built-in models, a user's own, and what a stranger's folder may do when it is loaded."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from heirmark.errors import BadArtifact, BadConfig, ShapeMismatch
from heirmark.models import (
    CUSTOM,
    MODELS,
    HasFeatures,
    ModelSpec,
    Net,
    build,
    factory_of,
    features_of,
    specify,
)
from heirmark.models.from_timm import TimmNet
from heirmark.models.layers import Projection
from heirmark.models.storage import load_model, load_spec, save_model
from heirmark.querying.layout import takes_stored
from heirmark.tasks.storing import decode

SHAPES = [(1, 28, 28), (3, 32, 32)]
# Those of timm have tests of their own, which do without it; so have those for sound.
BUILT_IN = [name for name in MODELS if not issubclass(MODELS[name], TimmNet) and MODELS[name].dimensions == 3]
# Narrow options, so that the widest net builds in milliseconds; a model that is not named here is built as it is.
NARROW: dict[str, dict[str, Any]] = {
    "naivenet": {"width": 3, "hidden": 7, "batch_norm": True},
    "vgg-like": {"width": 3, "hidden": 7},
    "alexnet": {"width": 3, "hidden": 7},
    "resnet18": {"width": 4},
    "wrn-16-4": {"factor": 1},
    "resnet50": {"width": 2},
    "mobilenet-v2": {"width": 0.1},
    "googlenet": {"width": 0.05},
    "vit-s": {"dim": 8, "depth": 2, "heads": 2},
    "mobilevit-s": {"width": 0.1},
}


def narrow(name: str, shape: tuple[int, ...] = (1, 28, 28), classes: int = 5, seed: int = 0) -> nn.Module:
    return build(name, input_shape=shape, classes=classes, seed=seed, **NARROW.get(name, {}))


def images(count: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def of_kind(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(part, kind) for part in model.modules())


def same_state(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(tensor, right[name]) for name, tensor in left.items())


# ---------------------------------------------------------------- every model


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", BUILT_IN)
def test_logits_are_the_head_of_the_features(name: str, shape: tuple[int, int, int]) -> None:
    model = narrow(name, shape).eval()
    batch = images(3, shape)
    with torch.no_grad():
        logits, features = model(batch), features_of(model)(batch)
        assert logits.shape == (3, 5)
        assert features.ndim == 2
        assert len(features) == 3
        assert torch.equal(model.head(features), logits)  # type: ignore[operator]
    assert isinstance(model, HasFeatures)
    assert bool(torch.isfinite(logits).all())
    assert logits.std() > 0, "the model says the same to everything"


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_net_takes_images_as_they_are_stored(name: str) -> None:
    model = narrow(name).eval()
    stored = images(3, (1, 28, 28)).mul(255).round().to(torch.uint8)
    floats = decode(stored)
    assert takes_stored(model)
    with torch.no_grad():
        assert torch.equal(model(stored), model(floats))
        assert torch.equal(model(stored.contiguous(memory_format=torch.channels_last)), model(floats))
        assert torch.equal(features_of(model)(stored), features_of(model)(floats))
    assert all("features.0." not in weight for weight in model.state_dict()), "the door has no weights"


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_parameter_takes_part(name: str) -> None:
    model = narrow(name)
    model(images(4, (1, 28, 28))).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert not idle


@pytest.mark.parametrize("name", BUILT_IN)
def test_normalisation_is_inside_the_model(name: str) -> None:
    # A grey image is the middle of the range: after 4x - 2 it is zero, so the first convolution sees only its bias.
    model = narrow(name).eval()
    seen: list[Tensor] = []
    first = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.stack([torch.full((1, 28, 28), value) for value in (0.0, 0.5, 1.0)]))
    assert [float(x.unique()) for x in seen[0]] == [-2.0, 0.0, 2.0]


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_seed_alone_decides_the_start(name: str, unchanged_globals: Callable[[], Any]) -> None:
    with unchanged_globals():
        one = narrow(name, seed=1)
    torch.rand(7)  # moves the global generator on
    assert same_state(one, narrow(name, seed=1))
    assert not same_state(one, narrow(name, seed=2))


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_smallest_side_is_enough_and_one_less_is_refused(name: str) -> None:
    side = MODELS[name].smallest
    assert narrow(name, (1, side, side)).eval()(images(2, (1, side, side))).shape == (2, 5)
    for shape in ((1, side - 1, side), (1, side, side - 1), (side, side)):
        with pytest.raises(ShapeMismatch, match=f"at least {side}.*choose another model"):
            narrow(name, shape)


@pytest.mark.parametrize("name", BUILT_IN)
def test_sides_need_not_be_equal(name: str) -> None:
    side = MODELS[name].smallest
    shape = (2, side + 5, side + 2)
    assert narrow(name, shape).eval()(images(2, shape)).shape == (2, 5)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_options_of_a_narrow_model_are_known_here(name: str) -> None:
    assert name in NARROW, f"add narrow options for {name!r} to NARROW in {Path(__file__).name}"
    assert count(narrow(name)) < 200_000


# ---------------------------------------------------------------- architectures as published


def test_resnet18_has_the_published_number_of_parameters() -> None:
    """By hand: a 3x3 stem, eight blocks of two 3x3 convolutions, 1x1 shortcuts where the width changes, one head."""

    def convolution(inner: int, outer: int, side: int) -> int:
        return inner * outer * side * side + 2 * outer  # with the weight and bias of its BatchNorm

    total, inner = convolution(3, 64, 3), 64
    for outer in (64, 128, 256, 512):
        total += convolution(inner, outer, 3) + 3 * convolution(outer, outer, 3)
        total += convolution(inner, outer, 1) if inner != outer else 0
        inner = outer
    total += 512 * 10 + 10
    assert total == 11_173_962
    model = build("resnet18", input_shape=(3, 32, 32), classes=10)
    assert count(model) == total
    # 18 layers: the stem, 16 in the blocks and the head; and three shortcuts.
    assert of_kind(model, nn.Conv2d) == 17 + 3
    assert of_kind(model, nn.Linear) == 1


def test_wide_resnet_has_the_published_number_of_parameters() -> None:
    """By hand: BatchNorm stands before each convolution (pre-activation), and once more before the pooling."""

    def block(inner: int, outer: int) -> int:
        shortcut = inner * outer if inner != outer else 0
        return 2 * inner + 9 * inner * outer + 2 * outer + 9 * outer * outer + shortcut

    total, inner = 3 * 16 * 9, 16
    for outer in (64, 128, 256):
        total += block(inner, outer) + block(outer, outer)
        inner = outer
    total += 2 * 256 + 256 * 10 + 10
    assert total == 2_748_890  # "2.7M" of arXiv 1605.07146
    model = build("wrn-16-4", input_shape=(3, 32, 32), classes=10)
    assert count(model) == total
    # Depth 16 counts the stem, 12 in the blocks, three shortcuts; the head is not counted.
    assert of_kind(model, nn.Conv2d) == 16


def test_small_nets_have_the_layers_that_the_papers_name() -> None:
    naive, vgg = (build(name, input_shape=(3, 32, 32), classes=10) for name in ("naivenet", "vgg-like"))
    assert (of_kind(naive, nn.Conv2d), of_kind(naive, nn.Linear)) == (2, 2)
    assert (of_kind(vgg, nn.Conv2d), of_kind(vgg, nn.Linear)) == (4, 3)
    assert of_kind(vgg, nn.Dropout) == 2
    for model in (naive, vgg):
        assert of_kind(model, nn.BatchNorm2d) == 0
    assert of_kind(build("naivenet", input_shape=(1, 28, 28), classes=10, batch_norm=True), nn.BatchNorm2d) == 2


@pytest.mark.parametrize(("padded", "side"), [(False, 4), (True, 7)])
def test_padding_keeps_the_border(padded: bool, side: int) -> None:
    model = build("naivenet", input_shape=(1, 28, 28), classes=10, padded=padded)
    assert {layer.in_features for layer in model.modules() if isinstance(layer, nn.Linear)} == {64 * side**2, 128}
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_a_residual_net_shrinks_its_images_to_an_eighth_or_a_quarter() -> None:
    for name, factor in (("resnet18", 8), ("wrn-16-4", 4)):
        model = narrow(name, (3, 32, 32)).eval()
        sides: list[int] = []
        pool = next(part for part in model.modules() if isinstance(part, nn.AdaptiveAvgPool2d))
        pool.register_forward_pre_hook(lambda module, inputs, sides=sides: sides.append(inputs[0].shape[-1]))
        model(images(1, (3, 32, 32)))
        assert sides == [32 // factor]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("inner", [1, 4, 8, 15, 16, 24])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_projection_and_its_gradients_are_a_strided_convolutions(
    inner: int, stride: int, channels_last: bool
) -> None:
    layer = Projection(inner, 8, stride)
    inputs = images(24, (inner, 15, 16))
    if channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    inputs.requires_grad_()
    reference = torch.einsum("oi,nihw->nohw", layer.weight[:, :, 0, 0], inputs[:, :, ::stride, ::stride])
    weights = images(24, tuple(reference.shape[1:]), seed=1)
    expected = torch.autograd.grad((reference * weights).sum(), [inputs, layer.weight])
    outputs = layer(inputs)
    found = torch.autograd.grad((outputs * weights).sum(), [inputs, layer.weight])
    torch.testing.assert_close(outputs, reference)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_net_asks_for_the_gradient_that_overruns_its_buffer(name: str) -> None:
    # The overrun itself is silent more often than not, so what is looked at is what would be called.
    loss = narrow(name)(images(2, (1, 28, 28))).sum()
    seen, waiting = set(), [loss.grad_fn]
    strides = []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [child for child, _ in node.next_functions]
        if node.name().startswith("ConvolutionBackward"):
            strides.append((tuple(node._saved_weight.shape[1:]), max(node._saved_stride)))
    assert strides
    assert not [shape for shape, stride in strides if shape[1:] == (1, 1) and stride > 1 and shape[0] < 16]


# ---------------------------------------------------------------- names and options


def test_a_name_carries_options() -> None:
    spec = specify("vgg-like:hidden=9, width=3,dropout=0.25", input_shape=(1, 28, 28), classes=4)
    assert spec == ModelSpec(
        name="vgg-like", input_shape=(1, 28, 28), classes=4, options=(("dropout", 0.25), ("hidden", 9), ("width", 3))
    )
    assert same_state(
        spec.build(seed=3), build("vgg-like", input_shape=(1, 28, 28), classes=4, seed=3, **dict(spec.options))
    )
    assert hash(spec) == hash(specify("vgg-like:width=3,dropout=0.25,hidden=9", input_shape=(1, 28, 28), classes=4))
    assert factory_of("naivenet") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonet", "unknown model 'nonet': choose one of naivenet"),
        ("naivenet:depth=3", "no option 'depth': choose from width, hidden, batch_norm, padded"),
        ("naivenet:classes=3", "no option 'classes'"),
        ("naivenet:self=3", "no option 'self'"),
        ("naivenet:width", "has no value: write name:option=value"),
        ("naivenet:width=wide", r"width: expected true.false.int.float"),
        ("naivenet:width=4.5", "'width' .* is a int, not 4.5"),
        ("naivenet:width=true", "'width' .* is a int, not True"),
        ("naivenet:batch_norm=1", "'batch_norm' .* is a bool, not 1"),
        ("naivenet:width=0", "between 1 and 4096, not 0"),
        ("naivenet:hidden=-1", "between 1 and 4096"),
        ("naivenet:width=5000", "between 1 and 4096"),
        ("resnet18:width=0", "between 1 and 4096"),
        ("wrn-16-4:factor=0", "between 1 and 4096"),
        ("vgg-like:dropout=nan", "expected .*float.* not .nan"),
        ("vgg-like:dropout=inf", "expected .*float.* not .inf"),
        ("vgg-like:dropout=1.5", "cannot be built"),
    ],
)
def test_a_wrong_name_or_option_is_named(text: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        specify(text, input_shape=(1, 28, 28), classes=3).build(seed=0)


@pytest.mark.parametrize(("shape", "classes"), [((1, 28, 28), 1), ((), 3), ((1, 0, 28), 3), ((-1, 28, 28), 3)])
def test_a_model_needs_classes_and_a_shape(shape: tuple[int, ...], classes: int) -> None:
    with pytest.raises(BadConfig, match=r"ModelSpec\.(input_shape|classes).*: expected int"):
        ModelSpec(name="naivenet", input_shape=shape, classes=classes)


# ---------------------------------------------------------------- a user's own model


class Perceptron(nn.Module):
    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.flat, self.layer = nn.Flatten(), nn.Linear(size, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.layer(self.flat(inputs))
        return logits


def perceptron(spec: ModelSpec) -> nn.Module:
    return Perceptron(int(torch.tensor(spec.input_shape).prod()), spec.classes)


def refusing(spec: ModelSpec) -> nn.Module:
    raise ValueError("no such net")


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 4), (9,)])
def test_a_users_factory_is_taken_wherever_a_name_is(shape: tuple[int, ...], unchanged_globals: Any) -> None:
    spec = specify(perceptron, input_shape=shape, classes=3)
    assert spec.name == CUSTOM
    with unchanged_globals():
        model = spec.build(seed=4, factory=factory_of(perceptron))
    assert model(images(2, shape)).shape == (2, 3)
    assert same_state(model, spec.build(seed=4, factory=perceptron))
    assert not same_state(model, spec.build(seed=5, factory=perceptron))
    batch = images(2, shape)
    assert torch.equal(features_of(model)(batch), batch.flatten(1))  # what its last linear layer is given
    with pytest.raises(BadConfig, match=r"Flatten has neither a callable \.features nor a linear layer"):
        features_of(nn.Flatten())


def test_a_custom_model_needs_its_factory_and_a_factory_may_refuse() -> None:
    spec = specify(perceptron, input_shape=(1, 6, 6), classes=3)
    with pytest.raises(BadConfig, match="give the factory"):
        spec.build(seed=0)
    with pytest.raises(BadConfig, match=r"cannot be built.*no such net"):
        spec.build(seed=0, factory=refusing)


# ---------------------------------------------------------------- on disk and back


def stored(folder: Path, text: str = "naivenet:width=3,hidden=6,batch_norm=true") -> tuple[nn.Module, ModelSpec]:
    spec = specify(text, input_shape=(1, 16, 16), classes=4)
    model = spec.build(seed=0)
    model(images(8, (1, 16, 16)))  # moves the running statistics off their start
    save_model(Net(model=model, spec=spec), folder)
    return model, spec


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_model_comes_back_bit_for_bit(name: str, tmp_path: Path, unchanged_globals: Any) -> None:
    shape = (3, 16, 16)
    spec = ModelSpec(name=name, input_shape=shape, classes=4, options=tuple(sorted(NARROW.get(name, {}).items())))
    model = spec.build(seed=1).train()
    model(images(8, shape))
    model.requires_grad_(False)
    with unchanged_globals():
        save_model(Net(model=model, spec=spec), tmp_path / "deep" / "folder")
        kept = load_model(tmp_path / "deep" / "folder")
        loaded, found = kept.model, kept.spec
    assert found == spec == load_spec(tmp_path / "deep" / "folder")
    assert same_state(model, loaded)
    assert not any(part.training for part in loaded.modules())
    assert all(p.requires_grad and p.is_leaf and p.device.type == "cpu" for p in loaded.parameters())
    assert model.training, "saving changed the mode"
    batch = images(3, shape, seed=2)
    with torch.no_grad():
        assert torch.equal(model.eval()(batch), loaded(batch))
    loaded.train()(batch).sum().backward()  # and it can learn on


def test_saving_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        stored(tmp_path / folder)
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_another_width_are_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    model, _ = stored(tmp_path)
    change_weights(
        tmp_path, lambda weights: {n: w.to(dtype) if w.is_floating_point() else w for n, w in weights.items()}
    )
    loaded = load_model(tmp_path).model
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == model.state_dict()[name].dtype
        torch.testing.assert_close(tensor, model.state_dict()[name].to(dtype).to(tensor.dtype))


def test_a_custom_model_is_loaded_by_its_factory_only(tmp_path: Path) -> None:
    spec = specify(perceptron, input_shape=(1, 6, 6), classes=3)
    model = spec.build(seed=1, factory=perceptron)
    save_model(Net(model=model, spec=spec), tmp_path)
    with pytest.raises(BadConfig, match="custom model: name the factory"):
        load_model(tmp_path)
    kept = load_model(tmp_path, factories=[perceptron])
    loaded, found = kept.model, kept.spec
    assert found == spec
    assert same_state(model, loaded)
    with pytest.raises(BadArtifact, match="do not fit"):
        load_model(
            tmp_path,
            factories=[lambda spec: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Linear(5, spec.classes))],
        )
    assert found.factory.endswith(":perceptron")
    with pytest.raises(BadConfig, match=r"it was made by .*:perceptron"):
        load_model(tmp_path, factories=[refusing, refusing])
    again = load_model(tmp_path, factories=[refusing, perceptron])
    assert same_state(model, again.model)


def test_a_factory_is_not_asked_for_a_built_in_name(tmp_path: Path) -> None:
    model, _ = stored(tmp_path)
    assert same_state(model, load_model(tmp_path, factories=[refusing]).model)


# ---------------------------------------------------------------- a stranger's folder


def change_record(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / "model.safetensors"
    weights = change(load_file(path))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"width": 4096, "hidden": 4096}},  # 3 GB, were it allocated
        {"options": {"width": 4096, "hidden": 4096}, "input_shape": [1 << 20, 1 << 20, 1 << 20]},
        {"options": {"width": 10**30}},
        {"options": {"width": 0}},
        {"options": {"width": True}},
        {"options": {"width": 4.0}},
        {"options": {"width": "4"}},
        {"options": {"width": [4]}},
        {"options": {"width": None}},
        {"options": {"unknown": 4}},
        {"options": {"classes": 4}},
        {"options": []},
        {"options": None},
        {"name": "vgg-like", "options": {"dropout": 3.0}},
        {"name": "resnet18", "options": {"width": 4096}},
        {"name": "wrn-16-4", "options": {"factor": 4096}},
        {"name": "vgg-like", "options": {}},
        {"name": "nonet"},
        {"name": 3},
        {"name": None},
        {"name": "__init__"},
        {"classes": 1 << 20},
        {"classes": 1 << 40},
        {"classes": True},
        {"classes": 4.0},
        {"classes": "4"},
        {"classes": 1},
        {"classes": 5},
        {"input_shape": []},
        {"input_shape": {}},
        {"input_shape": 16},
        {"input_shape": "16"},
        {"input_shape": [1, 16]},
        {"input_shape": [1, 16, 16.0]},
        {"input_shape": [1, -16, 16]},
        {"input_shape": [3, 16, 16]},
        {"input_shape": [1, 32, 32]},
        {"input_shape": [1, 8, 8]},
        {"format": "heirmark-model-2"},
        {"format": None},
    ],
    ids=str,
)
def test_a_hostile_description_is_refused_at_no_cost(changes: dict[str, Any], tmp_path: Path) -> None:
    stored(tmp_path)
    change_record(tmp_path, **changes)
    before, start = peak_bytes(), time.perf_counter()
    with pytest.raises(BadArtifact) as caught:
        load_model(tmp_path)
    assert time.perf_counter() - start < 5
    assert peak_bytes() - before < 200 * 2**20
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", '"text"', "{}", "{", '{"format": NaN}', "[" * 10_000, "\x00"])
def test_a_description_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    stored(tmp_path)
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(BadArtifact):
        load_model(tmp_path)


def test_a_monstrous_description_is_not_read(tmp_path: Path) -> None:
    stored(tmp_path)
    with (tmp_path / "model.json").open("ab") as file:
        file.truncate(1 << 34)  # sparse: takes no room
    before = peak_bytes()
    with pytest.raises(BadArtifact, match="larger than"):
        load_model(tmp_path)
    assert peak_bytes() - before < 200 * 2**20


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"no model\.json.*give a folder"):
        load_model(tmp_path / "nowhere")
    stored(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BadArtifact, match=r"model\.safetensors is missing"):
        load_model(tmp_path)
    (tmp_path / "model.json").unlink()
    (tmp_path / "model.json").mkdir()
    with pytest.raises(BadArtifact):
        load_model(tmp_path)


def spoil(change: Callable[[Tensor], Tensor], *, floats_only: bool = True) -> Callable[[Any], dict[str, Tensor]]:
    return lambda weights: {
        name: change(w) if w.is_floating_point() or not floats_only else w for name, w in weights.items()
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (spoil(lambda w: w * float("nan")), "not finite"),
        (spoil(lambda w: w + float("inf")), "not finite"),
        (spoil(lambda w: w.double() + 1e300), "not finite"),  # finite where it lies, infinite in float32
        (spoil(lambda w: (w * float("nan")).to(torch.float8_e4m3fn)), "not finite"),
        (spoil(lambda w: w.to(torch.complex64)), "do not fit"),
        (spoil(lambda w: w > 0), "do not fit"),
        (spoil(lambda w: w.long()), "do not fit"),
        (spoil(lambda w: w.double(), floats_only=False), "do not fit"),  # the counter of batches is no float
        (spoil(lambda w: w[..., None]), "do not fit"),
        (spoil(lambda w: w[:0]), "do not fit"),
        (lambda weights: {}, "do not fit"),
        (lambda weights: {**weights, "extra": torch.ones(1)}, "do not fit its model.json at 'extra'"),
        (lambda weights: {n: w for n, w in weights.items() if n != "head.bias"}, "do not fit its model.json at 'head"),
    ],
)
def test_hostile_weights_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    stored(tmp_path)
    change_weights(tmp_path, change)
    with pytest.raises(BadArtifact, match=words):
        load_model(tmp_path)


def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    for folder, text in (("a", "naivenet:width=3,hidden=6"), ("b", "naivenet:width=3,hidden=7"), ("c", "wrn-16-4")):
        stored(tmp_path / folder, text)
    for other in ("b", "c"):
        (tmp_path / "a" / "model.safetensors").write_bytes((tmp_path / other / "model.safetensors").read_bytes())
        with pytest.raises(BadArtifact, match="mixes two models"):
            load_model(tmp_path / "a")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_truncated_and_flipped_files_are_refused_or_harmless(data: st.DataObject, tmp_path: Path) -> None:
    stored(tmp_path)
    file = tmp_path / data.draw(st.sampled_from(["model.json", "model.safetensors"]))
    whole = file.read_bytes()
    # The header is where damage does most, so half of the places lie there.
    place = data.draw(st.integers(0, min(len(whole), 1500) - 1) | st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        file.write_bytes(whole[:place])
    else:
        file.write_bytes(whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :])
    try:
        kept = load_model(tmp_path)
        loaded, found = kept.model, kept.spec
    except BadArtifact:
        return
    assert all(bool(torch.isfinite(tensor).all()) for tensor in loaded.state_dict().values())
    assert loaded(images(2, found.input_shape)).shape == (2, found.classes)
