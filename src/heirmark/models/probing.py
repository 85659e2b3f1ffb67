"""What a net decides by: the numbers that its last linear layer is given, found in any net by itself.

The net may be built in, or a user's own without ``.features``; layers and functions are looked at alike, since a net may end in
``F.linear`` or ``x @ weights``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from heirmark.errors import BadConfig, out_of_memory
from heirmark.models import HasFeatures
from heirmark.querying.asking import batch_for, outputs_of
from heirmark.querying.layout import are_probabilities, as_logits, takes_stored, through_entry, unwrapped
from heirmark.runtime import Runtime, generator_of

WIDEST = 2048
"""More numbers than this are folded: their Gram matrix grows with the square of their count, and a solve with its cube."""
_SAMPLE, _BLOCK, _SEED = 8, 16, 0
_CONVOLUTIONS: tuple[Any, ...] = (torch.conv1d, torch.conv2d, torch.conv3d)
_PRODUCTS: dict[Any, int] = {
    F.linear: 0, torch.matmul: 0, Tensor.matmul: 0, Tensor.__matmul__: 0, torch.mm: 0, Tensor.mm: 0, torch.addmm: 1,
}  # fmt: skip
"""Functions that multiply inputs by weights, and which of their arguments the inputs are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """Where the inputs of a net's decision are taken, and how.

    Attributes:
        asked: maps inputs as the net takes them to ``[B, width]``; it holds the net, and changes nothing of it.
        place: ``"features"`` (the net's own ``.features``), ``"linear"`` (what its last linear map is given), or ``"logits"``
            where neither is found.
        width: how many numbers an input has, d.
    """

    asked: nn.Module
    place: str
    width: int

    def blocks(self, inputs: Tensor, *, runtime: Runtime | None = None) -> Iterator[Tensor]:
        """The inputs of the decision, some thousand images at a time, so that any number of them fits.

        Args:
            inputs: ``[N, ...]`` as they are stored, uint8 or float.
            runtime: device and precision; see :func:`heirmark.querying.asking.predict`.

        Yields:
            ``[n, d]`` float32 on the CPU, in the inputs' order; nothing where there are none.
        """
        block = _BLOCK * batch_for(inputs)
        for start in range(0, len(inputs), block):
            yield outputs_of(self.asked, inputs[start : start + block], runtime=runtime)


def decision_inputs(
    model: nn.Module, inputs: Tensor, *, runtime: Runtime | None = None, widest: int = WIDEST
) -> Tensor:
    """What a net decides about inputs by: :func:`probe_of` them, and all its blocks.

    Args:
        model: any net; in eval mode meanwhile, no gradient is kept.
        inputs: ``[N, ...]`` as they are stored, uint8 or float; at least one.
        runtime: device and precision.
        widest: see :func:`probe_of`.

    Returns:
        ``[N, d]`` float32 on the CPU.

    Raises:
        BadConfig: without any input.
    """
    return torch.cat([*probe_of(model, inputs, runtime=runtime, widest=widest).blocks(inputs, runtime=runtime)])


def probe_of(model: nn.Module, sample: Tensor, *, runtime: Runtime | None = None, widest: int = WIDEST) -> Probe:
    """Find where a net's decision has its inputs, by asking it about a few.

    In this order: ``model.features`` where ``model.head`` makes the logits of it; the input of the last linear map (a linear
    layer, a convolution, a product with weights) whose outputs are the logits; ``model.features`` alone; the logits themselves.
    Outputs count as the logits if they differ by a factor and by a number added to all classes of an input, at most, so that a
    temperature or a softmax behind them does no harm. Where a net averages outputs over positions, the inputs are averaged.

    Numbers beyond ``widest`` are folded: they are shuffled and get signs, both fixed, and every ``widest``-th is added up. That
    keeps inner products in expectation, as a dense random projection does (feature hashing, Weinberger et al. 2009, arXiv
    0902.2206), without a matrix.

    Args:
        model: any net; it stays as it is, on the runtime's device.
        sample: ``[N, ...]`` inputs as they are stored, of which the first few are looked at.
        runtime: device; the search computes in whole float32.
        widest: the largest d.

    Raises:
        BadConfig: for an empty sample, or a bound below 1.
    """
    if not len(sample) or widest < 1:
        raise BadConfig("a probe needs at least one input to find its place by, and room for one number: give both")
    model, sample = unwrapped(model), sample[:_SAMPLE]
    exact = Runtime(device=(runtime or Runtime()).device, precision="float32")
    logits = outputs_of(model, sample, runtime=exact)
    if logits.ndim == 2 and are_probabilities(logits):
        logits = as_logits(logits)
    place, ask, raw = _found(model, sample, logits, exact)
    folded = partial(_folded, widest=widest) if raw > widest else None
    return Probe(asked=_Asked(model, ask, folded), place=place, width=min(raw, widest))


Ask = Callable[[nn.Module, Tensor], Tensor]


class _Asked(nn.Module):
    """A net that is asked about something else than its logits, as :func:`outputs_of` asks nets."""

    def __init__(self, model: nn.Module, ask: Ask, after: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.model, self.ask, self.after = model, ask, after

    @property
    def takes_stored(self) -> bool:
        """Whether the net does."""
        return takes_stored(self.model)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``[B, ...]`` to ``[B, d]``."""
        given = self.ask(self.model, inputs).flatten(1)
        return given if self.after is None else self.after(given)


def _found(model: nn.Module, sample: Tensor, logits: Tensor, exact: Runtime) -> tuple[str, Ask, int]:
    """The place, how it is asked, and how many numbers are there."""
    own = None
    if callable(getattr(model, "features", None)):
        own = _tried(model, _features, sample, exact)
    if own is not None and isinstance(model, HasFeatures):
        said = _tried(model, _head, sample, exact)
        if said is not None and _decides(said, logits):
            return "features", _features, own.shape[1]
    products = _Products(len(sample), logits.shape[-1])
    with products:
        outputs_of(model, sample, runtime=exact)
    for number, given, said in reversed(products.kept):
        if _decides(said.float().cpu(), logits):
            return "linear", partial(_before, number=number), given.shape[1]
    if own is not None:
        return "features", _features, own.shape[1]
    return "logits", _logits, logits.flatten(1).shape[1]


def _tried(model: nn.Module, ask: Ask, sample: Tensor, exact: Runtime) -> Tensor | None:
    """What a net gives if it can be asked so; ``features`` of a user's may be anything."""
    try:
        return outputs_of(_Asked(model, ask), sample, runtime=exact)
    except Exception as error:
        if out_of_memory(error):
            raise
        return None


def _features(model: nn.Module, inputs: Tensor) -> Tensor:
    own: Any = model.features
    given: Tensor = (through_entry(model, own) if takes_stored(model) else own)(inputs)
    return given


def _head(model: nn.Module, inputs: Tensor) -> Tensor:
    head: Any = model.head
    said: Tensor = head(_features(model, inputs))
    return said


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    said: Tensor = model(inputs)
    return said


def _before(model: nn.Module, inputs: Tensor, *, number: int) -> Tensor:
    """What the linear map of a number is given."""
    products = _Products(len(inputs), None, only=number)
    with products:
        model(inputs)
    if not products.kept:
        raise BadConfig(
            f"{type(model).__name__} runs other layers for some inputs than for others: give it .features and .head"
        )
    return products.kept[0][1]


class _Products(TorchFunctionMode):
    """Keeps what linear maps are given, and what they give, while it is entered.

    Args:
        rows: inputs in the batch.
        classes: keep those maps alone that give so many numbers; None keeps any.
        only: the number of the one map to keep, in the order in which they run.
    """

    def __init__(self, rows: int, classes: int | None, only: int | None = None) -> None:
        super().__init__()
        self.rows, self.classes, self.only = rows, classes, only
        self.kept: list[tuple[int, Tensor, Tensor]] = []
        self._seen = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch's, and look at it if it is a linear map."""
        said = func(*args, **(kwargs or {}))
        convolution = func in _CONVOLUTIONS
        if convolution or func in _PRODUCTS:
            place, options = 0 if convolution else _PRODUCTS[func], kwargs or {}
            given = args[place] if len(args) > place else options.get("input", options.get("mat1"))
            if self.only in (None, self._seen) and isinstance(given, Tensor):
                pair = (_of_convolution if convolution else _of_product)(given, said, self.rows)
                if pair is not None and self.classes in (None, pair[1].shape[1]):
                    self.kept.append((self._seen, *pair))
            self._seen += 1
        return said


def _of_product(given: Tensor, said: Tensor, rows: int) -> tuple[Tensor, Tensor] | None:
    """Inputs ``[rows, d]`` and outputs ``[rows, C]`` of a product, averaged over positions; None for what is about no batch."""
    if given.ndim < 2 or said.ndim != given.ndim or len(given) != rows or len(said) != rows:
        return None
    if given.ndim == 2:
        return given, said
    return given.flatten(1, -2).mean(1), said.flatten(1, -2).mean(1)


def _of_convolution(given: Tensor, said: Tensor, rows: int) -> tuple[Tensor, Tensor] | None:
    """The same of a convolution that looks at all positions at once, or at each alone."""
    if said.ndim < 3 or given.ndim != said.ndim or len(given) != rows:
        return None
    if said[0, 0].numel() == 1:
        return given.flatten(1), said.flatten(1)
    if given.shape[2:] != said.shape[2:]:
        return None
    # A wider kernel leaves the positions as they are, too, where it is padded: then these averages do not decide.
    return given.flatten(2).mean(2), said.flatten(2).mean(2)


def _decides(said: Tensor, logits: Tensor) -> bool:
    """Whether scores ``[N, C]`` are the logits but for a positive factor and a number for each row."""
    if said.shape != logits.shape:
        return False
    ours, theirs = (each.double() - each.double().mean(1, keepdim=True) for each in (said, logits))
    square = (ours * ours).sum()
    factor = (ours * theirs).sum() / square if bool(square > 0) else torch.ones_like(square)
    return bool(factor > 0) and bool((factor * ours - theirs).norm() <= 1e-3 * theirs.norm())


def _folded(given: Tensor, *, widest: int) -> Tensor:
    """Numbers ``[B, d]`` as ``[B, widest]``: shuffled, with random signs, and every ``widest``-th added up."""
    width, generator = given.shape[1], generator_of(_SEED)
    order = torch.randperm(width, generator=generator).to(given.device)
    signs = (torch.randint(2, (width,), generator=generator) * 2 - 1).to(given.device)
    shuffled = F.pad((given * signs)[:, order], (0, -width % widest))
    return shuffled.view(len(given), -1, widest).sum(1)
