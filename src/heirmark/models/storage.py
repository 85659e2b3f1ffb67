"""Models on disk: ``model.safetensors`` beside ``model.json``. No code is in either, so a stranger's model may be loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from heirmark.errors import BadArtifact, BadConfig, BadData, HeirmarkError, printable
from heirmark.files import GIB, atomic_write_bytes, atomic_write_json, atomic_write_tensors, read_json, read_tensors
from heirmark.models import CUSTOM, MODELS, Factory, ModelSpec, Net, name_of
from heirmark.models.front import behind
from heirmark.querying.layout import in_channels_last

FORMAT = "heirmark-model-1"
ONNX = "model.onnx"
"""A model that PyTorch does not run (real int8), in place of the other two files."""
LARGEST = 16 * GIB
"""Weights larger than this are not read."""


def save_model(net: Net, folder: Path) -> None:
    """Write a model's weights and specification, or its ONNX file; atomic a file, the specification last.

    Args:
        net: the model.
        folder: made when missing.
    """
    spec = net.spec
    folder.mkdir(parents=True, exist_ok=True)
    if net.onnx is not None:
        atomic_write_bytes(folder / ONNX, net.onnx)
        return
    weights = net.model.state_dict()
    atomic_write_tensors(
        folder / "model.safetensors",
        {name: each.to(net.stored.get(name, each.dtype)) for name, each in weights.items()},
    )
    record: dict[str, object] = {
        "format": FORMAT,
        "name": spec.name,
        "input_shape": list(spec.input_shape),
        "classes": spec.classes,
        "options": dict(spec.options),
    }
    if spec.front:  # most models have none, and their files stay as they were before there were any
        record["front"] = [list(item) for item in spec.front]
    for name in ("factory", "config", "source"):
        if value := getattr(spec, name):
            record[name] = value
    atomic_write_json(folder / "model.json", record)


def onnx_in(folder: Path) -> Path | None:
    """The ONNX file that a folder holds in place of a model of PyTorch's; None without one."""
    found = folder / ONNX
    return found if found.is_file() and not (folder / "model.json").is_file() else None


def load_spec(folder: Path) -> ModelSpec:
    """Read a model's specification alone.

    Raises:
        BadArtifact: when there is no model here, or its description is foreign.
    """
    path = folder / "model.json"
    if onnx_in(folder) is not None:
        raise BadArtifact(
            f"{folder} holds an ONNX file, which can be asked and no more: give the model that it was made of, or verify it"
        )
    if not path.is_file():
        raise BadArtifact(f"{folder} holds no model (no model.json): give a folder that heirmark embed or steal wrote")
    record = read_json(path, max_bytes=1 << 22)
    try:
        if not isinstance(record, dict):
            raise ValueError("no mapping")
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']!r}")
        return ModelSpec(
            name=record["name"],
            input_shape=tuple(record["input_shape"]),
            classes=record["classes"],
            options=tuple(sorted(record["options"].items())),
            front=tuple(tuple(item) for item in record.get("front", [])),
            **{name: record.get(name, "") for name in ("factory", "config", "source")},
        )
    except (AttributeError, KeyError, TypeError, ValueError, HeirmarkError) as error:
        raise BadArtifact(f"{path} does not describe a model that this version of heirmark knows: {error}") from error


def load_model(folder: Path, *, factories: Sequence[Factory] = ()) -> Net:
    """Read a model, in eval mode.

    Args:
        folder: that :func:`save_model` wrote.
        factories: the user's own, for a custom model: the one that its description names builds it, or the only one. None is ever
            taken from the files.

    Raises:
        BadArtifact: when files are missing, truncated, foreign, or the weights do not fit the description.
        BadConfig: when a custom model is loaded without its factory.
    """
    spec, factory = load_spec(folder), None
    if spec.name == CUSTOM:
        known = [factory for factory in factories if len(factories) == 1 or name_of(factory) == spec.factory]
        if not known:
            raise BadConfig(missing_factory(folder, spec, "--model"))
        factory = known[0]
    return load_weights(
        folder / "model.safetensors",
        spec,
        factory=factory,
        whose=str(folder),
        misfit="its model.json at {}: the folder mixes two models",
    )


def load_weights(
    path: Path,
    spec: ModelSpec,
    *,
    factory: Factory | None = None,
    whose: str | None = None,
    misfit: str = "the architecture at {}: name with --model the one that they were trained in",
) -> Net:
    """Read the weights of a model whose specification is known, in eval mode.

    Args:
        path: of safetensors; ``module.`` and ``_orig_mod.``, which wrappers put before all names, are left out.
        spec: what builds the model.
        factory: the user's own, of a custom model; layers that it freezes are frozen.
        whose: what holds the weights, for errors; the path.
        misfit: what is said of the name at which the weights do not fit.

    Raises:
        BadArtifact: when the file is missing, truncated or foreign, or its weights do not fit the model or are not finite.
    """
    whose = whose or str(path)
    if factory is not None:
        model = spec.build(seed=0, factory=factory)
    else:
        # On the meta device nothing is allocated, so a description of a monstrous model costs nothing before it is refused.
        try:
            # What transformers builds has tensors that are in no file, and it has been looked at for its size.
            with torch.device("cpu" if MODELS[spec.name].from_folder else "meta"):
                model = behind(MODELS[spec.name](spec.input_shape, spec.classes, **spec.arguments), spec.front)
        except (ValueError, RuntimeError) as error:
            raise BadArtifact(f"{whose} is of a model that cannot be built: {error}") from error
    wanted = model.state_dict()
    # A model that is described as larger than the usual bound may be, up to a hard one.
    room = min(sum(tensor.numel() * 8 + 4096 for tensor in wanted.values()), LARGEST)
    weights = read_tensors(path, max_bytes=max(GIB, room))
    if wanted.keys() != weights.keys():
        weights = _unwrapped(weights)
    stored = {}
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in wanted or name not in weights or not _fits(weights[name], wanted[name]):
            raise BadArtifact(f"the weights in {whose} do not fit {misfit.format(repr(name))}")
        if weights[name].dtype != wanted[name].dtype:
            stored[name] = weights[name].dtype
    for name, tensor in weights.items():
        # Looked at after the conversion: what float64 holds may be infinite in float32.
        weights[name] = tensor.to(wanted[name].dtype)
        if not bool(torch.isfinite(weights[name]).all()):
            raise BadArtifact(
                f"the weights in {whose} are not finite at {name!r}: the model is damaged, so take an earlier one"
            )
    if any(buffer.is_meta and name not in wanted for name, buffer in model.named_buffers()):
        model = spec.build(seed=0)  # what follows from its options is in no file; by now it is known to be no monster
    model.load_state_dict(weights, assign=factory is None)
    if factory is None:
        model = in_channels_last(model)
        model.requires_grad_(True)  # tensors that were assigned came without
    return Net(model=model.eval(), spec=spec, stored=stored)


@torch.no_grad()
def rounded(net: Net, stored: Mapping[str, torch.dtype]) -> Net:
    """A net whose weights are, in place, what types of numbers on disk can hold, and that is saved in these.

    Args:
        net: whose model computes in float32.
        stored: types by the names of weights.

    Raises:
        BadData: when a weight is too large for its type.
    """
    for name, weight in net.model.state_dict().items():
        if name in stored:
            weight.copy_(weight.to(stored[name]))
            if not bool(torch.isfinite(weight).all()):
                kind = str(stored[name]).removeprefix("torch.")
                raise BadData(
                    f"marked weights at {name!r} are too large for {kind}: start from bfloat16 or float32 weights"
                )
    return replace(net, stored=dict(stored))


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as a module names them itself, without what DataParallel and torch.compile put before."""
    for wrapper in ("module.", "_orig_mod."):
        if weights and all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): weight for name, weight in weights.items()}
    return weights


def missing_factory(folder: Path, spec: ModelSpec, option: str) -> str:
    """What is told of a custom model whose factory is not given."""
    made = f"; it was made by {printable(spec.factory)}" if spec.factory else ""
    return f"{folder} holds a custom model: name the factory that builds it with {option} package.module:factory{made}"


def _fits(tensor: Tensor, wanted: Tensor) -> bool:
    """Same shape, and the same kind of numbers; of these the width may differ."""
    kinds = [(t.is_floating_point(), t.is_complex(), t.dtype == torch.bool) for t in (tensor, wanted)]
    return tensor.shape == wanted.shape and kinds[0] == kinds[1]
