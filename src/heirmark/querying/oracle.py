"""What can be asked for scores: a torch module, a function, or either with some of its answers known already.

Models belong to somebody else, so all they say is checked: whatever goes wrong on their side comes out as :class:`ModelFault`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, HeirmarkError, out_of_memory, told
from heirmark.querying.asking import floats_for, in_batches, outputs_of
from heirmark.querying.layout import are_probabilities, takes_stored, tell_softmax, unwrapped
from heirmark.runtime import Runtime
from heirmark.tasks.storing import row_digests


class ModelFault(HeirmarkError):
    """A model raised, or gave something other than one finite score per class for every input."""


REMEDY = (
    "wrap it in a function that brings size, channels and order of the inputs, and its answers, to what is expected"
)


@runtime_checkable
class Oracle(Protocol):
    """Something that answers inputs with scores of classes."""

    @property
    def classes(self) -> int:
        """How many classes C it knows."""

    @property
    def shown(self) -> int:
        """How many inputs have been put to it, those of a call that failed among them, up to where it failed."""

    def scores(self, inputs: Tensor) -> Tensor:
        """Scores ``[N, C]``, float32 on the CPU, of inputs ``[N, ...]`` uint8 or float in [0, 1].

        Raises:
            ModelFault: for every failing of its own, and nothing else's.
        """

    def probabilities(self, scores: Tensor) -> Tensor:
        """The probabilities that its scores stand for."""


def oracle_of(
    model: nn.Module | Callable[[Tensor], object] | Oracle,
    classes: int,
    runtime: Runtime | None,
    *,
    features: bool = False,
) -> Oracle:
    """An oracle as it is, or one of a module or a function; see :class:`ModuleOracle` and :class:`FunctionOracle`.

    Scores of classes have places of features, where the model is an encoder.

    Raises:
        BadConfig: for fewer than two classes.
    """
    if classes < 2:
        raise BadConfig(f"classes must be at least 2, not {classes}")
    if isinstance(model, nn.Module):
        return ModuleOracle(model, classes, runtime or Runtime(precision="float32"))
    return model if isinstance(model, Oracle) else FunctionOracle(model, classes, bounded=not features)


class ModuleOracle:
    """A torch module that maps float32 ``[B, ...]`` in [0, 1] to logits ``[B, C]``, asked in eval mode.

    One that gives probabilities is recognised and told by a warning.
    """

    def __init__(self, module: nn.Module, classes: int, runtime: Runtime) -> None:
        self.classes, self._runtime = classes, runtime
        self._module = GuardedModule(module, classes)

    @property
    def shown(self) -> int:
        """See :class:`Oracle`."""
        return self._module.shown

    def scores(self, inputs: Tensor) -> Tensor:
        """See :class:`Oracle`."""
        if not len(inputs):
            return torch.zeros(0, self.classes)
        self._module.begin()
        return outputs_of(self._module, inputs, runtime=self._runtime)

    def probabilities(self, scores: Tensor) -> Tensor:
        """See :class:`Oracle`."""
        if are_probabilities(scores):
            tell_softmax(self._module)
            return scores
        return scores.softmax(1)


class FunctionOracle:
    """A function, on the CPU, that maps float32 ``[B, ...]`` in [0, 1] to probabilities ``[B, C]``, or features unbounded."""

    def __init__(self, function: Callable[[Tensor], object], classes: int, *, bounded: bool = True) -> None:
        self.classes, self.shown, self._bounded = classes, 0, bounded
        self._function = function

    def scores(self, inputs: Tensor) -> Tensor:
        """See :class:`Oracle`."""
        if not len(inputs):
            return torch.zeros(0, self.classes)
        return torch.cat(in_batches(self._ask, inputs.cpu(), device=torch.device("cpu")))

    def _ask(self, chunk: Tensor) -> Tensor:
        self.shown += len(chunk)
        scores = checked_scores(call_model(self._function, floats_for(chunk)), len(chunk), self.classes)
        # Rounded or truncated probabilities need not sum to one, but each must still be one.
        if self._bounded and (bool((scores < 0).any()) or bool((scores > 1 + 1e-4).any())):
            raise ModelFault("the callable gave values outside [0, 1]: let it return probabilities, not logits")
        return scores.detach().float().cpu()

    def probabilities(self, scores: Tensor) -> Tensor:
        """See :class:`Oracle`."""
        return scores


class Known:
    """An oracle whose scores ``[N, C]`` of some inputs are known; it is asked for those of all others."""

    def __init__(self, oracle: Oracle, inputs: Tensor, scores: Tensor) -> None:
        self.classes = oracle.classes
        self._oracle, self._scores = oracle, scores
        self._places = {digest: row for row, digest in enumerate(row_digests(inputs))}
        self._recalled = 0

    @property
    def shown(self) -> int:
        """How many inputs have been put to it, known ones among them."""
        return self._oracle.shown + self._recalled

    def scores(self, inputs: Tensor) -> Tensor:
        """See :class:`Oracle`."""
        places = torch.tensor([self._places.get(digest, -1) for digest in row_digests(inputs)], dtype=torch.int64)
        found = torch.empty(len(inputs), self.classes)
        known = places >= 0
        found[known] = self._scores[places[known]]
        found[~known] = self._oracle.scores(inputs[~known.to(inputs.device)])
        self._recalled += int(known.sum())
        return found

    def probabilities(self, scores: Tensor) -> Tensor:
        """See :class:`Oracle`."""
        return self._oracle.probabilities(scores)


class GuardedModule(nn.Module):
    """A module whose every failing, and nobody else's, comes out as :class:`ModelFault`."""

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = unwrapped(model)
        self.classes = classes
        self._answered = self._failed = 0

    @property
    def takes_stored(self) -> bool:
        """Whether the module does."""
        return takes_stored(self.model)

    def begin(self) -> None:
        """Count what failed before as shown: another question follows, and no second try."""
        self._answered, self._failed = self._answered + self._failed, 0

    @property
    def shown(self) -> int:
        """How many inputs it was given; a batch that failed counts once, and not at all where a second try went well."""
        return self._answered + self._failed

    def train(self, mode: bool = True) -> Self:
        """Change the mode, which the module may have overridden, or may not have."""
        self.training = mode
        with _blamed("cannot be put in another mode"), suppress(NotImplementedError):  # of torch.export
            self.model.train(mode)
        return self

    def to(self, *args: Any, **options: Any) -> Self:
        """Bring the module to a device."""
        with _blamed("cannot be brought to a device"):
            self.model.to(*args, **options)
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[B, C]`` of the module, checked."""
        self._failed = rows = len(inputs)  # before the model is asked, which may resize them
        scores = checked_scores(call_model(self.model, inputs), rows, self.classes)
        self._answered, self._failed = self._answered + rows, 0
        return scores


def call_model(model: Callable[[Tensor], object], inputs: Tensor) -> object:
    """What foreign code returns, unchecked; its errors are told from heirmark's own.

    Raises:
        ModelFault: with the first line of whatever it raised, which is its cause; KeyboardInterrupt alone passes.
        MemoryError: if the machine ran out of memory, for which the model is not to blame.
        torch.OutOfMemoryError: likewise on an accelerator.
    """
    shape = tuple(inputs.shape[1:])
    with _blamed(
        f"fails on inputs of shape {shape}", f"check that it takes float32 inputs of this shape in [0, 1], or {REMEDY}"
    ):
        return model(inputs)


@contextmanager
def _blamed(what: str, remedy: str = REMEDY) -> Iterator[None]:
    """Whatever foreign code raises is its failing; it may raise SystemExit, too, but ends nothing except itself."""
    try:
        yield
    except KeyboardInterrupt:
        raise  # the user's
    except BaseException as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise
        if out_of_memory(error):
            raise MemoryError(told(error)) from error
        raise ModelFault(f"the model {what} ({told(error)}): {remedy}") from error


def checked_scores(outputs: object, rows: int, classes: int) -> Tensor:
    """What a model returned for so many inputs, if it is one finite score per class for each.

    Raises:
        ModelFault: if it is anything else.
        torch.OutOfMemoryError: if an accelerator ran out of memory, for which the model is not to blame.
    """
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        kind = f"{outputs.dtype} values" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ModelFault(f"the model returned {kind} instead of a tensor of scores: wrap it so that it does")
    if tuple(outputs.shape) != (rows, classes):
        raise ModelFault(
            f"the model returned shape {tuple(outputs.shape)} instead of {(rows, classes)}: check its number of classes, say "
            f"which of them the key knows (--labels), or {REMEDY}"
        )
    try:
        finite = bool(outputs.isfinite().all())
    except torch.OutOfMemoryError:  # a RuntimeError, too
        raise
    except RuntimeError as error:  # of a kind that torch hardly knows, or without values
        raise ModelFault(f"the model's scores cannot be read ({told(error)}): return float32") from error
    if not finite:
        raise ModelFault(
            "the model returned NaN or infinite scores: it is broken, or its inputs are not scaled to [0, 1]"
        )
    return outputs
