"""The door of a model: how stored inputs come in, and which memory layout it takes, whether it writes into them, what it gives.

Every model is given inputs as they are stored. The built-in ones decode them and lay them out in their first layer; those that
others wrote get an :class:`Entry`. heirmark lays images out channels-last, in which convolutions run faster, shows one batch to
several models, and takes what they give for logits. Sound models need not allow any of it: ``x.view(len(x), -1)`` after a
convolution wants the usual layout, ``x.sub_(mean)`` changes the batch, and a softmax at the end must not be followed by another.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heirmark.errors import HeirmarkWarning
from heirmark.tasks.storing import numbers


def channels_last(images: Tensor) -> Tensor:
    """Lay images out channels-last, in which convolutions run faster; other inputs pass."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def enter(stored: Tensor) -> Tensor:
    """Stored inputs ``[N, ...]`` as nets compute with them: decoded, and images laid out channels-last."""
    return channels_last(numbers(stored))


def in_channels_last(model: nn.Module) -> nn.Module:
    """Lay a model's convolution weights out channels-last, in which convolutions run faster."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How stored inputs come into a model that takes floats, as a forward pre-hook: decoded, and images laid out channels-last.

    Attributes:
        contiguous: lay them out as torch does by default.
        copies: never hand over the caller's own memory; nobody needs that of a model that is known not to write into its inputs.
    """

    contiguous: bool = False
    copies: bool = True

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Prepare the positional arguments, of which the first is the batch."""
        return (self.pass_on(given[0]), *given[1:])

    def pass_on(self, inputs: Tensor) -> Tensor:
        """The batch ``[N, ...]`` as the model takes it."""
        if inputs.dtype == torch.int32:
            return inputs.long()  # ids of tokens, in the type in which torch has indices
        given = numbers(inputs).contiguous() if self.contiguous else enter(inputs)
        return given.clone() if self.copies and given is inputs else given


def entry_of(model: nn.Module) -> Entry | None:
    """The entry that a model has; None where it has none."""
    return next((hook for hook in model._forward_pre_hooks.values() if isinstance(hook, Entry)), None)


def takes_stored(model: nn.Module) -> bool:
    """Whether a model decodes its inputs itself: it says so by an attribute of this name, or has an :class:`Entry`."""
    return bool(getattr(model, "takes_stored", False)) or entry_of(model) is not None


@contextmanager
def entering(*models: nn.Module) -> Iterator[None]:
    """Let models be given stored inputs; those that take floats get an :class:`Entry` for as long."""
    hooks = [model.register_forward_pre_hook(Entry()) for model in models if not takes_stored(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def copied_with_entry(model: nn.Module) -> nn.Module:
    """A copy that takes stored inputs; see :func:`copied`."""
    copy = copied(model)
    if not takes_stored(copy):
        copy.register_forward_pre_hook(Entry())
    return copy


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``DataParallel`` and ``torch.compile``, which heirmark has its own ways for."""
    compiled: Any = getattr(model, "_orig_mod", None)
    if isinstance(compiled, nn.Module):
        return unwrapped(compiled)
    return unwrapped(model.module) if isinstance(model, nn.DataParallel) else model


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[nn.Module]:
    """Put a model in train or eval mode, and afterwards give every submodule back the mode it had.

    Frozen TorchScript and modules of ``torch.export`` know no modes: they stay in the one that they were written in.
    """
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    with suppress(NotImplementedError, AttributeError):
        model.train(training)
    try:
        yield model
    finally:
        for module, before in modes:
            with suppress(AttributeError, RuntimeError):  # TorchScript may take none
                module.training = before


def are_probabilities(scores: Tensor) -> bool:
    """Whether scores ``[N, C]`` are probabilities: not negative, and every row sums to 1, but for rounding to bfloat16, say.

    Examples:
        >>> are_probabilities(torch.tensor([[0.2, 0.8], [1.0, 0.0]])), are_probabilities(torch.tensor([[0.2, 0.9]]))
        (True, False)
    """
    if scores.ndim != 2 or scores.shape[1] < 2 or not len(scores):
        return False
    scores = scores.detach()
    return bool((scores >= 0).all()) and bool(((scores.double().sum(1) - 1).abs() < 5e-3).all())


def as_logits(probabilities: Tensor) -> Tensor:
    """Logits whose softmax gives back the probabilities ``[N, C]``: their logarithms."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def tell_softmax(model: nn.Module) -> None:
    """Tell that a model gives probabilities where logits are expected, and that these are what they are taken for."""
    name = type(getattr(model, "model", model)).__name__  # of what is asked, not of a guard around it
    warnings.warn(
        f"{name} gives rows in [0, 1] that sum to 1: they are taken for probabilities, not for logits; "
        "leave its softmax out where you can, for logits are more exact",
        HeirmarkWarning,
        stacklevel=2,
    )


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Makes logits of the probabilities that a model gives, as a forward hook.

    Attributes:
        training: whether it gives probabilities in train mode.
        evaluating: whether it does in eval mode; some models end in a softmax then alone.
    """

    training: bool
    evaluating: bool

    def __call__(self, module: nn.Module, given: tuple[Any, ...], said: Tensor) -> Tensor:
        """Logits of what the model said."""
        return as_logits(said) if (self.training if module.training else self.evaluating) else said


def fitted(model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """A model of a user's as heirmark wants one; in place.

    It gets an :class:`Entry`, is laid out channels-last if it takes that, and if it ends in a softmax, gives the logarithms.
    All that is found out by asking it about two inputs, by which lazy layers find their sizes too; in train mode a copy is
    asked. A model that cannot be asked is left as it is, and its error to whoever asks it next.

    Args:
        model: on any device; its modes and statistics stay, and the names of its weights.
        input_shape: of one input.
    """
    if entry_of(model) is not None or any(isinstance(hook, Ending) for hook in model._forward_hooks.values()):
        return model
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    blank = torch.rand((2, *input_shape), generator=torch.Generator().manual_seed(0)).to(device)
    found = _runs(model, blank, training=False)
    if found is None and len(input_shape) == 1:  # what takes no numbers may take ids of tokens
        blank = torch.ones((2, *input_shape), dtype=torch.int64, device=device)
        found = _runs(model, blank, training=False)
    if found is None:
        return model
    learning = _runs(copied(model), blank, training=True) or (False, False)
    contiguous = False
    if len(input_shape) == 3:
        in_channels_last(model)
        contiguous = _runs(model, channels_last(blank), training=False) is None
    if contiguous:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model.register_forward_pre_hook(Entry(contiguous=contiguous, copies=found[0] or learning[0]))
    if found[1] or learning[1]:
        tell_softmax(model)
        model.register_forward_hook(Ending(training=learning[1], evaluating=found[1]))
    return model


@torch.no_grad()
def _runs(model: nn.Module, blank: Tensor, *, training: bool) -> tuple[bool, bool] | None:
    """Whether a model writes into what it is given, and gives probabilities; None when it cannot be asked about it."""
    given = blank.clone()
    draws = torch.random.fork_rng(devices=[] if blank.device.type == "cpu" else [blank.device])  # dropout does
    try:
        with in_mode(model, training=training), draws:
            said = model(given)
    except Exception:  # it runs whatever the user wrote
        return None
    return not torch.equal(given, blank), isinstance(said, Tensor) and are_probabilities(said)


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model, also of one that keeps tensors with a gradient, such as weights that hooks have made."""
    memo: dict[int, object] = {}
    for module in model.modules():
        for value in vars(module).values():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, Tensor) and not one.is_leaf:
                    memo[id(one)] = one.detach().clone()
    return copy.deepcopy(model, memo)


def through_entry(model: nn.Module, part: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A part of a model that is given its inputs, such as its ``features``, as one that takes them as they are stored."""
    if getattr(model, "takes_stored", False):
        return part
    entry = entry_of(model) or Entry()
    return lambda inputs: part(entry.pass_on(inputs))
