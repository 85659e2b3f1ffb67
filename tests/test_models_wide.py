"""The larger models: as published, differentiable both ways, and timm's without timm."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from heirmark.errors import BadArtifact, BadConfig, ShapeMismatch
from heirmark.models import MODELS, Net, build, specify
from heirmark.models.from_timm import TimmNet
from heirmark.models.googlenet import STAGES, Inception
from heirmark.models.inner import layers_of
from heirmark.models.mobilenet import InvertedResidual, scaled
from heirmark.models.mobilevit import MobileViTBlock, fold, unfold
from heirmark.models.storage import load_model, save_model
from heirmark.models.vit import Attention, ViT
from heirmark.rehearsal import Thief, choose_derivative, rehearsal_step, student_state
from heirmark.runtime import Runtime, seeded
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe, fit
from heirmark.training.samples import Samples

TIMM = [name for name in MODELS if issubclass(MODELS[name], TimmNet)]
WIDE: dict[str, dict[str, Any]] = {
    "resnet50": {"width": 2},
    "mobilenet-v2": {"width": 0.1},
    "googlenet": {"width": 0.05},
    "vit-s": {"dim": 8, "depth": 2, "heads": 2},
    "mobilevit-s": {"width": 0.1},
}


def narrow(name: str, shape: tuple[int, ...] = (1, 16, 16), classes: int = 4, seed: int = 0) -> nn.Module:
    return build(name, input_shape=shape, classes=classes, seed=seed, **WIDE[name])


def images(count: int, shape: tuple[int, ...] = (1, 16, 16), seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def on_paper(name: str, side: int, classes: int = 1000, **options: Any) -> nn.Module:
    """A model of full size that takes no room."""
    with torch.device("meta"):
        return MODELS[name]((3, side, side), classes, **options)


# ---------------------------------------------------------------- parameters as published


def test_resnet50_has_the_published_number_of_parameters() -> None:
    """By hand; 25,557,032 is the count with the stem of 7x7, which the CIFAR stem of 3x3 replaces."""
    total, inner = 3 * 64 * 9 + 2 * 64, 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        outer = 4 * width
        for number in range(blocks):
            total += inner * width + 2 * width + width * width * 9 + 2 * width + width * outer + 2 * outer
            total += 0 if number else inner * outer + 2 * outer
            inner = outer
    total += inner * 1000 + 1000
    assert count(on_paper("resnet50", 32)) == total == 25_557_032 - 64 * 3 * (49 - 9)


def test_mobilenet_has_the_published_number_of_parameters() -> None:
    """By hand from Table 2; the paper rounds it to 3.4 million. The strides change nothing about it."""
    total, inner = 3 * 32 * 9 + 2 * 32, 32
    rows = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    for expansion, outer, blocks in rows:
        for _ in range(blocks):
            hidden = expansion * inner
            total += (inner * hidden + 2 * hidden) * (expansion > 1)
            total += 9 * hidden + 2 * hidden + hidden * outer + 2 * outer
            inner = outer
    total += 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert count(on_paper("mobilenet-v2", 32)) == total == 3_504_872
    assert total / 1e6 == pytest.approx(3.4, rel=0.04)


def test_the_width_of_a_mobilenet_keeps_the_last_convolution() -> None:
    thin, wide = on_paper("mobilenet-v2", 32, width=0.5), on_paper("mobilenet-v2", 32, width=1.4)
    assert (thin.head.in_features, wide.head.in_features) == (1280, 1792)
    assert [scaled(channels, 0.35) for channels in (32, 16, 24, 64, 96, 160, 320)] == [16, 8, 8, 24, 32, 56, 112]


def test_the_modules_of_googlenet_have_the_published_sizes() -> None:
    """Table 1 of the paper, in units of 1024; some of its figures are up to 8 % off what the widths beside them give."""
    published = [159, 380, 364, 437, 463, 580, 840, 1072, 1388]
    with torch.device("meta"):
        model = MODELS["googlenet"]((3, 32, 32), 1000)
    modules = [part for part in model.modules() if isinstance(part, Inception)]
    assert [part.channels for part in modules] == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    # With the biases that the paper's convolutions have, and ours leave to BatchNorm.
    sizes = [
        sum(conv.weight.numel() + conv.out_channels for conv in part.modules() if isinstance(conv, nn.Conv2d))
        for part in modules
    ]
    assert [size / 1024 for size in sizes] == pytest.approx(published, rel=0.08)
    # The widely used implementation in Caffe has 6,998,552 in all, its stem for large images among them.
    stem = (3 * 64 * 49 + 64) + (64 * 64 + 64) + (64 * 192 * 9 + 192)
    assert sum(sizes) + stem + 1024 * 1000 + 1000 == 6_998_552
    assert len(modules) == sum(map(len, STAGES)) == 9


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        ({}, 22),  # DeiT-S
        ({"dim": 768, "heads": 12}, 86),  # Table 1: Base
        ({"dim": 1024, "heads": 16, "depth": 24}, 307),  # Large
        ({"dim": 1280, "heads": 16, "depth": 32}, 632),  # Huge
    ],
)
def test_vision_transformers_have_the_published_sizes(options: dict[str, int], millions: int) -> None:
    """By hand, for patches of 16 pixels of images of 224."""
    dim, depth = options.get("dim", 384), options.get("depth", 12)
    layer = (dim * 3 * dim + 3 * dim) + (dim * dim + dim) + (2 * 4 * dim * dim + 4 * dim + dim) + 4 * dim
    embedding = 3 * 16 * 16 * dim + dim + dim + 197 * dim
    wanted = embedding + depth * layer + 2 * dim + 1000 * dim + 1000
    assert count(on_paper("vit-s", 224, patch=16, **options)) == wanted
    assert wanted / 1e6 == pytest.approx(millions, rel=0.01)


def test_mobilevit_has_the_published_number_of_parameters() -> None:
    """By hand from Table 4, column S: 5.6 million."""

    def conv(inner: int, outer: int, side: int) -> int:
        return inner * outer * side**2 + 2 * outer

    def inverted(inner: int, outer: int) -> int:
        return conv(inner, 4 * inner, 1) + conv(1, 4 * inner, 3) + conv(4 * inner, outer, 1)

    def transformer(channels: int, dim: int, layers: int) -> int:
        local = conv(channels, channels, 3) + channels * dim
        one = (3 * dim * dim + 3 * dim) + (dim * dim + dim) + (4 * dim * dim + 3 * dim) + 4 * dim
        return local + layers * one + 2 * dim + conv(dim, channels, 1) + conv(2 * channels, channels, 3)

    total = conv(3, 16, 3) + inverted(16, 32) + inverted(32, 64) + 2 * inverted(64, 64)
    total += inverted(64, 96) + transformer(96, 144, 2) + inverted(96, 128) + transformer(128, 192, 4)
    total += inverted(128, 160) + transformer(160, 240, 3) + conv(160, 640, 1) + 640 * 1000 + 1000
    assert count(on_paper("mobilevit-s", 64)) == total
    assert round(total / 1e6, 1) == 5.6


# ---------------------------------------------------------------- architectures as described


@pytest.mark.parametrize(
    ("name", "factor"), [("resnet50", 8), ("mobilenet-v2", 8), ("googlenet", 4), ("mobilevit-s", 8)]
)
@pytest.mark.parametrize("side", [32, 27])
def test_images_shrink_as_the_docstrings_say(name: str, factor: int, side: int) -> None:
    model = narrow(name, (3, side, side)).eval()
    seen: list[tuple[int, ...]] = []
    pool = next(part for part in model.modules() if isinstance(part, nn.AdaptiveAvgPool2d))
    pool.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[2:])))
    with torch.no_grad():
        model(images(1, (3, side, side)))
    assert seen == [(math.ceil(side / factor),) * 2]


def test_an_inverted_residual_is_narrow_linear_and_depthwise() -> None:
    block = InvertedResidual(4, 4, 1, expansion=6).eval()
    middle = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.groups) for c in middle] == [(4, 24, 1), (24, 24, 24), (24, 4, 1)]
    batch = images(2, (4, 6, 6))
    with torch.no_grad():
        assert (block.body(batch) < 0).any(), "the narrow end has no activation"
        assert torch.equal(block(batch), batch + block.body(batch))
        other = InvertedResidual(4, 8, 1, expansion=6).eval()
        assert torch.equal(other(batch), other.body(batch)), "no shortcut between different widths"


def test_inception_joins_four_views_of_the_same_input() -> None:
    module = Inception(3, (1, 2, 3, 4, 5, 6)).eval()
    batch = images(2, (3, 7, 7))
    with torch.no_grad():
        outputs = module(batch)
        assert outputs.shape == (2, 1 + 3 + 5 + 6, 7, 7)
        assert torch.equal(outputs[:, 1:4], module.branches[1](batch))
    sides = [[c.kernel_size[0] for c in branch.modules() if isinstance(c, nn.Conv2d)] for branch in module.branches]
    assert sides == [[1], [1, 3], [1, 5], [1]]


def test_attention_is_the_textbooks() -> None:
    with seeded(0):
        ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight, "out_proj.bias": ours.out.bias,
        }
    )  # fmt: skip
    tokens = images(2, (5, 12))
    torch.testing.assert_close(ours(tokens), theirs(tokens, tokens, tokens)[0], rtol=1e-5, atol=1e-6)


def test_a_vit_knows_places_by_its_positions_alone() -> None:
    model = narrow("vit-s").eval()
    assert isinstance(model, ViT)
    batch = images(2)
    moved = batch.roll(4, dims=3)  # by a patch
    with torch.no_grad():
        assert (model(batch) - model(moved)).abs().max() > 1e-3
        model.get_parameter("features.1.positions").zero_()
        torch.testing.assert_close(model(batch), model(moved), rtol=1e-5, atol=1e-6)


def test_a_vit_sees_the_border_of_images_that_patches_do_not_fill() -> None:
    model = narrow("vit-s", (1, 18, 21)).eval()
    assert model.get_parameter("features.1.positions").shape == (1, 1 + 5 * 6, 8)
    batch = images(1, (1, 18, 21))
    changed = batch.clone()
    changed[..., -1, -1] = 1 - changed[..., -1, -1]
    with torch.no_grad():
        assert not torch.equal(model(batch), model(changed))


def test_the_features_of_a_vit_are_its_normalised_class_token() -> None:
    model = narrow("vit-s").eval()
    with torch.no_grad():
        features = model.features(images(3))  # type: ignore[operator]
    torch.testing.assert_close(features.mean(1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(features.var(1, unbiased=False), torch.ones(3), rtol=1e-2, atol=0)


def test_dropout_is_off_unless_asked_for() -> None:
    batch = images(2)
    for rate, same in ((0.0, True), (0.5, False)):
        model = build("vit-s", input_shape=(1, 16, 16), classes=4, **WIDE["vit-s"], dropout=rate).train()
        with torch.no_grad(), seeded(0):
            assert torch.equal(model(batch), model(batch)) is same


def test_mobilevit_cuts_and_joins_patches() -> None:
    maps = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    tokens = unfold(maps)
    assert tokens.shape == (8, 6, 3)
    assert torch.equal(fold(tokens, (4, 6)), maps)
    assert torch.equal(tokens[1], maps[0, :, 0::2, 1::2].flatten(1).T), "one sequence holds one place of every patch"


@pytest.mark.parametrize("sides", [(6, 6), (7, 5), (1, 1)])
def test_a_mobilevit_block_keeps_the_shape_and_sees_the_whole_image(sides: tuple[int, int]) -> None:
    with seeded(0):
        block = MobileViTBlock(3, 8, 1).double().eval()
    inputs = images(2, (3, *sides)).double().requires_grad_()
    outputs = block(inputs)
    assert outputs.shape == inputs.shape
    (slope,) = torch.autograd.grad(outputs[0, :, 0, 0].sum(), inputs)
    assert (slope[0].abs().sum(0) > 0).all(), "every pixel matters to the first"
    assert (slope[1] == 0).all(), "examples do not mix"


# ---------------------------------------------------------------- what the library asks of a model


@pytest.mark.parametrize("name", WIDE)
def test_memory_format_changes_nothing(name: str) -> None:
    model = narrow(name, (3, 16, 16)).eval()
    batch = images(3, (3, 16, 16))
    with torch.no_grad():
        strided = copy.deepcopy(model).to(memory_format=torch.contiguous_format)(batch)  # type: ignore[call-overload]
        torch.testing.assert_close(model(batch.to(memory_format=torch.channels_last)), strided, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WIDE)
def test_bfloat16_gives_about_the_same(name: str) -> None:
    model = narrow(name).eval()
    batch = images(4)
    with torch.no_grad():
        exact = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            about = model(batch).float()
    assert (about - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("name", WIDE)
def test_feature_sharing_counts_every_parameter_once(name: str) -> None:
    model = narrow(name)
    layers = layers_of(model)
    assert layers[-1][0] == "head"
    assert sum(p.numel() for _, parts in layers for part in parts for p in part.parameters(recurse=False)) == count(
        model
    )


@pytest.mark.parametrize(
    "name", [name if name in ("resnet50", "vit-s") else pytest.param(name, marks=pytest.mark.slow) for name in WIDE]
)
def test_learns_the_tiny_task(name: str, tiny_task: Task, cpu: Runtime) -> None:
    model = narrow(name, classes=tiny_task.num_classes)
    recipe = Recipe(epochs=3, batch_size=32, optimizer="adam", learning_rate=1e-2, weight_decay=0.0)
    owner = tiny_task.owner
    losses = fit(model, owner.inputs, owner.labels, recipe=recipe, seed=0, runtime=cpu)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", ["vit-s", "mobilevit-s"])
def test_an_exported_model_takes_any_batch(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = narrow(name, (1, 18, 18)).eval()
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that tracing fixes, and of its own age
        torch.onnx.export(
            model, (images(2, (1, 18, 18)),), path, dynamo=False,
            input_names=["images"], output_names=["logits"], dynamic_axes={"images": {0: "n"}, "logits": {0: "n"}},
        )  # fmt: skip
    batch = images(5, (1, 18, 18))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": batch.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(batch), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- derivatives


@pytest.mark.parametrize("name", WIDE)
def test_forward_and_reverse_mode_agree(name: str) -> None:
    model = narrow(name).double().train()
    parameters = {key: p.detach() for key, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    along = {key: torch.randn(p.shape, generator=generator, dtype=p.dtype) for key, p in parameters.items()}
    batch = images(5).double()

    def logits(values: dict[str, Tensor]) -> Tensor:
        buffers = {key: b.clone() for key, b in model.named_buffers()}
        result: Tensor = functional_call(model, (values, buffers), (batch,))
        return result

    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # some releases warn of themselves when they load forward mode
        _, there = jvp(logits, (parameters,), (along,))
    wanted = {key: p.requires_grad_() for key, p in parameters.items()}
    back = torch.autograd.grad(logits(wanted), list(wanted.values()), there)
    total = sum((slope * along[key]).sum() for key, slope in zip(wanted, back, strict=True))
    torch.testing.assert_close(total, there.square().sum(), rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("name", WIDE)
def test_a_thief_may_be_of_any_kind(name: str) -> None:
    """The hypergradient of a rehearsal against this student equals double backward."""
    alpha = 0.1
    teacher = build("naivenet", input_shape=(1, 16, 16), classes=4, width=2, hidden=4).double().train()
    student = narrow(name, seed=3).double().train()
    x, triggers = images(6).double(), images(3, seed=1).double()
    y, targets = torch.arange(6) % 4, torch.zeros(3, dtype=torch.int64)
    thief = Thief(skeleton=student, student=student_state(student), rate=alpha)
    assert choose_derivative(thief, x) == ("forward", "")
    step = rehearsal_step(
        teacher,
        thief,
        utility=Samples(inputs=x, targets=y),
        mark=Samples(inputs=triggers, targets=targets),
    )
    assert (step.derivative, step.note) == ("forward", "")

    theta = {key: p.detach().clone().requires_grad_() for key, p in student.named_parameters()}
    buffers = {key: b.clone() for key, b in student.named_buffers()}
    with sdpa_kernel(SDPBackend.MATH):
        answers = teacher(x).log_softmax(1)
        copied = functional_call(student, (theta, buffers), (x,)).log_softmax(1)
        theft = F.kl_div(copied, answers, log_target=True, reduction="batchmean")
        slopes = torch.autograd.grad(theft, list(theta.values()), create_graph=True)
        after = {key: p - alpha * slope for (key, p), slope in zip(theta.items(), slopes, strict=True)}
        student.eval()
        buffers = {key: b.clone() for key, b in buffers.items()}
        mark = F.cross_entropy(functional_call(student, (after, buffers), (triggers,)), targets)
        truth = torch.autograd.grad(mark, list(teacher.parameters()))
    found = torch.cat([step.gradients[0][key].flatten() for key, _ in teacher.named_parameters()])
    exact = torch.cat([slope.flatten() for slope in truth])
    assert exact.norm() > 1e-9
    assert (found - exact).norm() < 1e-7 * exact.norm()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vit-s:heads=5", "cannot share tokens of 384"),
        ("vit-s:patch=17", "does not fit into images of 16 by 16"),
        ("vit-s:depth=65", "more than 64"),
        ("vit-s:dropout=1.5", "cannot be built"),
        ("vit-s:depth=0", "between 1 and 4096"),
        ("mobilenet-v2:width=true", "is a float, not True"),
        ("googlenet:width=-1", "between 0 and 4096"),
        ("mobilevit-s:heads=4", "choose from width"),
        ("densenet121:width=2", "choose from enlarge"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        specify(text, input_shape=(1, 16, 16), classes=4).build(seed=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit-s", {"dim": 4096, "heads": 4096, "depth": 64}),
        ("vit-s", {"depth": 4096}),
        ("mobilevit-s", {"width": 4096}),
        ("mobilenet-v2", {"width": 4096.0}),
        ("googlenet", {"width": 4096.0}),
        ("resnet50", {"width": 4096}),
    ],
)
def test_a_monstrous_description_costs_nothing(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    spec = specify("naivenet:width=2,hidden=4", input_shape=(1, 16, 16), classes=4)
    save_model(Net(model=spec.build(seed=0), spec=spec), tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": name, "options": options}))
    start = time.perf_counter()
    with pytest.raises(BadArtifact):
        load_model(tmp_path)
    assert time.perf_counter() - start < 5


def test_a_vit_is_not_asked_for_more_patches_than_memory_may_hold(tmp_path: Path) -> None:
    tiny = "vit-s:patch=1,dim=4,depth=1,heads=1"
    assert specify(tiny, input_shape=(1, 64, 64), classes=2).build(seed=0)
    with pytest.raises(BadConfig, match="4160 patches, more than 4096: raise patch"):
        specify(tiny, input_shape=(1, 64, 65), classes=2).build(seed=0)
    spec = specify(tiny, input_shape=(1, 16, 16), classes=2)
    save_model(Net(model=spec.build(seed=0), spec=spec), tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "input_shape": [1, 1 << 20, 1 << 20]}))
    with pytest.raises(BadArtifact, match="cannot be built"):
        load_model(tmp_path)


# ---------------------------------------------------------------- timm's

STUB = """
import torch
from torch import nn

COMPUTED = torch.ones(3).tolist()  # on the meta device this would fail
ASKED = []


class Net(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.num_features = 6
        self.body = nn.Sequential(
            nn.Conv2d(channels, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    def forward(self, inputs):
        self.seen = inputs
        return self.body(inputs)


def create_model(name, **options):
    ASKED.append((name, options))
    return Net(options["in_chans"])
"""


@pytest.fixture
def timm_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a package called timm, of the given source, in front of any other."""

    def put(source: str) -> None:
        (tmp_path / "packages" / "timm").mkdir(parents=True)
        (tmp_path / "packages" / "timm" / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path / "packages")

    kept = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "timm"}
    yield put
    sys.modules.pop("timm", None)
    sys.modules.update(kept)


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_a_net_of_timm_is_asked_for_by_its_own_name(
    name: str, shape: tuple[int, int, int], timm_says: Callable[[str], None]
) -> None:
    timm_says(STUB)
    model = build(name, input_shape=shape, classes=5, enlarge=2).eval()
    batch = images(3, shape)
    with torch.no_grad():
        features = model.features(batch)  # type: ignore[operator]
        assert model(batch).shape == (3, 5)
        assert torch.equal(model.head(features), model(batch))
    (asked,) = sys.modules["timm"].ASKED
    assert asked == (
        MODELS[name].timm,
        {"pretrained": False, "in_chans": shape[0], "num_classes": 0, "global_pool": "avg"},
    )
    seen = model.features[-1].seen  # type: ignore[index]
    assert seen.shape[2:] == (2 * shape[1], 2 * shape[2])
    assert -2 <= seen.min() < -1.8
    assert 1.8 < seen.max() <= 2


def test_a_net_of_timm_is_stored_like_any_other(tmp_path: Path, timm_says: Callable[[str], None]) -> None:
    timm_says(STUB)
    spec = specify("densenet161", input_shape=(3, 32, 32), classes=4)
    model = spec.build(seed=1)
    model(images(4, (3, 32, 32)))
    save_model(Net(model=model, spec=spec), tmp_path / "model")
    del sys.modules["timm"]  # as in a fresh process: imported while a model is built without memory
    kept = load_model(tmp_path / "model")
    loaded, found = kept.model, kept.spec
    assert found == spec
    assert sys.modules["timm"].COMPUTED == [1.0, 1.0, 1.0]
    with torch.no_grad():
        assert torch.equal(loaded(images(2, (3, 32, 32))), model.eval()(images(2, (3, 32, 32))))


def test_images_that_are_too_small_for_timm_are_to_be_enlarged(timm_says: Callable[[str], None]) -> None:
    timm_says(STUB)
    with pytest.raises(BadConfig, match="enlarge=2 or more"):
        build("densenet121", input_shape=(1, 28, 28), classes=4)
    build("densenet121", input_shape=(1, 28, 28), classes=4, enlarge=2)
    with pytest.raises(ShapeMismatch, match="at least 8"):
        build("densenet121", input_shape=(1, 7, 7), classes=4, enlarge=8)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import a_module_that_nobody_has", "ModuleNotFoundError"),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "nms does not exist"),
        ("import torch\ntorch.no_such_name", "AttributeError"),
    ],
)
def test_without_timm_the_remedy_is_named(
    source: str, words: str, tmp_path: Path, timm_says: Callable[[str], None]
) -> None:
    timm_says(source)
    for _ in range(2):
        with pytest.raises(BadConfig, match=rf"{words}.*pip install heirmark\[timm\]"):
            build("efficientnet-b0", input_shape=(3, 32, 32), classes=4)
    spec = specify("efficientnet-b0", input_shape=(3, 32, 32), classes=4)
    save_model(Net(model=nn.Linear(1, 1), spec=spec), tmp_path / "model")
    with pytest.raises(BadConfig, match=r"pip install heirmark\[timm\]"):
        load_model(tmp_path / "model")


def test_timm_has_the_published_nets() -> None:
    """Only where timm works: parameters at 1000 classes, in thousands (Huang 2016; Tan & Le 2019, Table 2)."""
    try:
        import timm  # noqa: F401
    except Exception as error:
        pytest.skip(f"timm cannot be imported: {error}")
    sizes = {name: count(on_paper(name, 224)) for name in TIMM}
    assert sizes == {
        "densenet121": 7_978_856,
        "densenet161": 28_681_000,
        "efficientnet-b0": 5_288_548,
        "efficientnet-b2": 9_109_994,
    }
