"""All weights of a model, parametrised ones too, and how to set them: what pruning and quantisation work on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from heirmark.errors import BadConfig
from heirmark.models.layers import CONVOLUTIONS
from heirmark.runtime import seeded

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers whose weights are ``[inputs, outputs, ...]``."""
LAYERS = (
    *CONVOLUTIONS,
    *TRANSPOSED,
    nn.Linear,
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
"""Layers whose weights are known by name."""
NAMES = re.compile(r"weight(_(ih|hh|hr)(_l\d+(_reverse)?)?)?|(in|q|k|v)_proj_weight")
"""What PyTorch calls the weights of these layers."""
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Layers that have scales, but no weights."""
BIASES = {"bias", "biases"}
"""Words in the name of what is no weight in any layer but these."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Weight:
    """One weight of a model.

    Attributes:
        layer: dotted name of the module in the model; empty for the model itself.
        module: that has it.
        name: the weight's own name there. A parametrised one goes by the name under which the forward pass reads it.
        axis: of the output channels: 1 in a transposed convolution, elsewhere 0, so that an embedding has one an entry.
    """

    layer: str
    module: nn.Module
    name: str
    axis: int = 0

    @property
    def path(self) -> str:
        """Dotted name in the model."""
        return f"{self.layer}.{self.name}" if self.layer else self.name

    @property
    def values(self) -> Tensor:
        """What the forward pass in eval mode works with, without a gradient; for a plain parameter its own memory."""
        return _tensors(self.module)[self.name].detach()


def weights_of(model: nn.Module) -> list[Weight]:
    """All weights of a model in the order in which its modules are registered, each shared parameter once.

    A layer of PyTorch has its weights, whatever their shape; biases and norms are none. In a module of another kind, such as
    a user's own layer, a parameter is a weight unless it is a bias by its name, lies along one axis alone (a scale of
    channels), or has a first axis of length 1, along which a batch is (class tokens, positions).

    Args:
        model: in eval mode. Weights that hooks make are made anew; nothing else changes.

    Raises:
        BadConfig: when there are none, or one could not be set: complex, integer, sparse or packed numbers, or tensors that
            the model makes in ways that are not known here.
    """
    found: list[Weight] = []
    refused: list[str] = []
    seen: set[int] = set()
    # What a parametrisation is made of is no layer of its own.
    inside = {
        part
        for module in model.modules()
        if parametrize.is_parametrized(module)
        for part in module.get_submodule("parametrizations").modules()
    }
    for layer, module in model.named_modules():
        if module in inside or isinstance(module, NORMS):
            continue
        if type(module).__module__.startswith("torch.ao.nn.quantized."):
            refused.append(f"{layer} (packed integers)")
        for name, tensor in _tensors(module).items():
            if not (_is_known(module, name) or _like_a_weight(name, tensor)):
                continue
            axis = 1 if isinstance(module, TRANSPOSED) and name == "weight" else 0
            weight = Weight(layer=layer, module=module, name=name, axis=axis)
            obstacle = _obstacle(module, name, tensor)
            if obstacle:
                refused.append(f"{weight.path} ({obstacle})")
            elif id(tensor) not in seen:
                found.append(weight)
            if _is_held(module, name):
                seen.add(id(tensor))
    if refused:
        raise BadConfig(
            f"these weights of {type(model).__name__} would be left as they are: {', '.join(refused)}; "
            "make them plain floating-point parameters, or choose another attack"
        )
    if not found:
        raise BadConfig(f"{type(model).__name__} has no weights, such as those of linear layers: choose another attack")
    return found


@torch.no_grad()
def assign(weights: Sequence[Weight], values: Sequence[Tensor]) -> None:
    """Set weights in place, parametrised ones through their parametrisation, so that no name in the state dict changes.

    Afterwards the forward pass in eval mode works with these values, up to rounding where a parametrisation computes them; zeros
    are zeros. One that fixes the size of a whole weight may scale it; spectral normalisation does not until it is trained.

    Args:
        weights: of a model in eval mode.
        values: one a weight, of its shape.

    Raises:
        BadConfig: when a parametrisation cannot hold them, as an orthogonal one, or a spectral norm of nothing but zeros; the
            weights are of no use then.
    """
    held = [_put(weight, wanted) for weight, wanted in zip(weights, values, strict=True)]
    # Looked at in the end, because two parametrisations may share a tensor.
    lost = [
        weight.path
        for weight, wanted, one in zip(weights, values, held, strict=True)
        if not one or not _same(weight.values, wanted)
    ]
    if lost:
        raise BadConfig(
            f"the parametrisation of {', '.join(lost)} cannot hold the altered weights: "
            "give the model without it, or choose another attack"
        )


def _hooks(module: nn.Module) -> dict[str, Any]:
    """What makes weights before every forward pass, by their names: the older weight and spectral norms, and pruning."""
    found: dict[str, Any] = {}
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            found[hook._tensor_name] = hook
        elif _kind(hook) in ("WeightNorm", "SpectralNorm"):
            made: Any = hook
            found[made.name] = hook
    return found


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """What a module works with of its own, by name: all that may be a weight of it."""
    hooks = _hooks(module)
    made_of = {name + suffix for name, hook in hooks.items() for suffix in _suffixes(hook)}
    names = [name for name, _ in module.named_parameters(recurse=False) if name not in made_of]
    if parametrize.is_parametrized(module):
        parts = module.get_submodule("parametrizations").named_children()
        names += [name for name, part in parts if next(part.parameters(), None) is not None]
    # Of a known layer also weights that are frozen for good, as buffers, or that the user's own code makes.
    others = [name for name, _ in module.named_buffers(recurse=False)]
    others += [name for name, value in vars(module).items() if isinstance(value, Tensor)]
    names += [*hooks, *(name for name in others if _is_known(module, name) and name not in hooks)]
    with torch.no_grad():
        for hook in hooks.values():  # these make a weight when the layer is called
            hook(module, ())
        return {name: getattr(module, name) for name in names}


def _is_known(module: nn.Module, name: str) -> bool:
    """Whether a tensor is a weight of a layer of PyTorch."""
    return isinstance(module, LAYERS) and NAMES.fullmatch(name) is not None


def _is_held(module: nn.Module, name: str) -> bool:
    """Whether a tensor is a parameter or buffer; others are made anew whenever they are looked at."""
    return name in module._parameters or name in module._buffers


def _like_a_weight(name: str, tensor: Tensor) -> bool:
    """Whether a parameter of a layer that is not known here is a weight."""
    vector = tensor.ndim < 2 or tensor.numel() == len(tensor)
    return not vector and len(tensor) > 1 and not BIASES & set(name.split("_"))


def _obstacle(module: nn.Module, name: str, tensor: Tensor) -> str:
    """Why a weight cannot be set; empty when it can."""
    hook = _hooks(module).get(name)
    if hook is not None and not all(name + suffix in module._parameters for suffix in _suffixes(hook)):
        return "made of what is made itself"
    if hook is None and not _is_held(module, name) and not parametrize.is_parametrized(module, name):
        return "no parameter"
    if tensor.layout is not torch.strided:
        return "sparse"
    return "" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")


def _suffixes(hook: object) -> tuple[str, ...]:
    """Of the parameters that it makes a weight of."""
    return ("_g", "_v") if _kind(hook) == "WeightNorm" else ("_orig",)


def _kind(part: object) -> str:
    """The name of one of PyTorch's own normalisations of weights; they are not imported, because some are to be removed."""
    return type(part).__name__ if type(part).__module__.startswith("torch.nn.utils.") else ""


def _put(weight: Weight, wanted: Tensor) -> bool:
    """Set one weight; False when that fails. Whether it holds what was wanted is not looked at."""
    module, name = weight.module, weight.name
    hook = _hooks(module).get(name)
    if hook is not None:
        if _kind(hook) == "WeightNorm":
            _put_norm(module.get_parameter(f"{name}_g"), module.get_parameter(f"{name}_v"), wanted, dim=hook.dim)
            return True
        module.get_parameter(f"{name}_orig").copy_(wanted)
        if _kind(hook) == "SpectralNorm":
            _put_spectrum(module.get_buffer(f"{name}_u"), module.get_buffer(f"{name}_v"), wanted, dim=hook.dim)
        else:
            module.get_buffer(f"{name}_mask").masked_fill_(wanted != 0, 1)
        return True
    if not parametrize.is_parametrized(module, name):
        getattr(module, name).copy_(wanted)
        return True
    parts: Any = module.get_submodule(f"parametrizations.{name}")
    kind = _kind(parts[0]) if len(parts) == 1 else ""
    if kind == "_WeightNorm":
        _put_norm(parts.original0, parts.original1, wanted, dim=parts[0].dim)
    elif kind == "_SpectralNorm":
        parts.original.copy_(wanted)
        _put_spectrum(parts[0]._u, parts[0]._v, wanted, dim=parts[0].dim)
    elif not torch.equal(weight.values, wanted):
        try:
            with seeded(0):  # some draw at random
                parts.right_inverse(wanted.clone())  # whose memory it may keep
        except Exception:  # a user's code may raise anything
            return False
        return all(bool(torch.isfinite(tensor).all()) for tensor in parts.state_dict().values())
    return True


def _put_norm(size: Tensor, direction: Tensor, wanted: Tensor, *, dim: int) -> None:
    """Set the parts of ``size * direction / |direction|``; a row of zeros has size 0 and keeps its direction."""
    norms = torch.norm_except_dim(wanted, 2, dim)
    size.copy_(norms)
    direction.copy_(torch.where(norms > 0, wanted, direction))


def _put_spectrum(left: Tensor, right: Tensor, wanted: Tensor, *, dim: int) -> None:
    """Set the left vector so that ``left W right``, by which a weight W is divided in eval mode, is 1.

    In training the vectors are computed anew, and the weight has spectral norm 1 again.
    """
    image = wanted.movedim(dim, 0).flatten(1).double() @ right.double()
    left.copy_(image / image.square().sum())


def _same(got: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors are the same up to rounding and a positive factor, zeros exactly."""
    if torch.allclose(got, wanted, rtol=0, atol=0, equal_nan=True):
        return True
    tolerance = torch.finfo(got.dtype).eps ** 0.75  # 6e-6 for float32
    got, wanted = got.double(), wanted.double()
    scaled = wanted * (got * wanted).sum() / wanted.square().sum()
    near = (got - scaled).abs().max() <= tolerance * scaled.abs().max()
    return bool(near & ((scaled * wanted).sum() > 0) & (got[wanted == 0] == 0).all())
