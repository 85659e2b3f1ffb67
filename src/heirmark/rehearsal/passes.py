"""Running a module as a pure function of parameters and buffers; module and torch are as before afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from heirmark.configuration import at_least, checked
from heirmark.errors import ShapeMismatch
from heirmark.querying.layout import in_mode
from heirmark.runtime import Runtime, seeded

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class PassMode:
    """How a module runs: its mode, its randomness, its precision.

    Attributes:
        training: train or eval mode.
        seed: of the random layers; the same seed and inputs give the same masks. None is for modules that draw nothing: torch's
            generators are left alone, so that a GPU can record the pass.
        runtime: autocast to run under; ``None`` leaves the caller's own.
        math_attention: whether attention is forced to its plain implementation.
        full_precision: whether autocast is switched off, the caller's own too.
    """

    training: bool = True
    seed: int | None = 0
    runtime: Runtime | None = None
    math_attention: bool = False
    full_precision: bool = False

    def part(self, role: str, index: int = 0) -> PassMode:
        """The same mode with a seed of its own for one part of the work."""
        if self.seed is None:
            return self
        # Not derive_seed, which came later: recorded figures of nets with dropout rest on these masks.
        digest = hashlib.blake2b(f"{self.seed}/{role}/{index}".encode(), digest_size=7).digest()
        return replace(self, seed=int.from_bytes(digest))

    def lowered(self, device: torch.device) -> bool:
        """Whether forward passes on this device run in less than the parameters' precision."""
        own = self.runtime is not None and self.runtime.uses_bfloat16
        return not self.full_precision and (own or torch.is_autocast_enabled(device.type))

    @contextmanager
    def entered(self, device: torch.device) -> Iterator[None]:
        """Everything but the mode: seeded generators, precision, attention. All is put back on leaving."""
        with ExitStack() as stack:
            if self.seed is not None:
                stack.enter_context(seeded(self.seed, device))
            if self.runtime is not None:
                stack.enter_context(self.runtime.autocast())
            if self.full_precision:
                stack.enter_context(torch.autocast(device.type, enabled=False))
            if self.math_attention:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(_no_fast_path())
            yield


def run(
    module: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Tensor, mode: PassMode
) -> Tensor:
    """Logits ``[N, C]``, float32 or better, of a module with other parameters and buffers in place of its own.

    BatchNorm updates the buffers in place, so pass copies.

    Raises:
        ShapeMismatch: when the module does not return logits ``[N, C]``.
    """
    with in_mode(module, training=mode.training), mode.entered(inputs.device):
        logits = functional_call(module, (dict(parameters), dict(buffers)), (inputs,))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ShapeMismatch(
            f"the model returned {got} for {len(inputs)} inputs: wrap it so that it returns logits [N, classes]"
        )
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


@dataclass(frozen=True, kw_only=True)
@checked
class Memory:
    """What a step does to need less memory, for big models.

    Attributes:
        micro_batch: examples at a time, with the same result but for layers that couple a batch (BatchNorm); 0 takes all at once.
        one_graph: at most one autograd graph alive at any time, for one more forward pass of the teacher.
    """

    micro_batch: Annotated[int, at_least(0)] = 0
    one_graph: bool = False


def copies(tensors: Mapping[str, Tensor]) -> Tensors:
    """Detached copies by name."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def leaves(tensors: Mapping[str, Tensor]) -> Tensors:
    """New autograd leaves on the same storage."""
    return {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}


def gradients(outputs: Tensor, wanted: Mapping[str, Tensor], cotangent: Tensor, *, keep: bool = False) -> Tensors:
    """Backward of a cotangent to named leaves; zero for a leaf that takes no part."""
    found = torch.autograd.grad(
        outputs, list(wanted.values()), cotangent.to(outputs.dtype), retain_graph=keep, allow_unused=True
    )
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(wanted.items(), found, strict=True)
    }


def accumulate(total: Tensors, more: Tensors) -> Tensors:
    """Sum by name; ``total`` is overwritten where it is not empty."""
    if not total:
        return more
    for name in list(more):
        total[name].add_(more.pop(name))
    return total


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Switch off the fused eval-mode attention: it has no forward-mode rule, and it rounds in its own way."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def chunks(tensor: Tensor, size: int) -> tuple[Tensor, ...]:
    """A batch in micro-batches of at most ``size`` examples; whole for 0."""
    return torch.split(tensor, size) if size else (tensor,)


def draws(module: nn.Module) -> bool:
    """Whether a module of torch's and heirmark's own layers draws at random when it trains."""
    rates = (getattr(part, name, 0.0) for part in module.modules() for name in ("p", "dropout"))
    random = (nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates) or any(
        isinstance(part, random) for part in module.modules()
    )
