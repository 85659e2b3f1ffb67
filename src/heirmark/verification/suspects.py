"""A suspect: whatever can be asked for labels. A module, a black box, an ONNX file, a function (of a web service, say).

A suspect belongs to somebody else, so all it says is checked: whatever goes wrong on its side comes out as
:class:`heirmark.querying.oracle.ModelFault`, which :func:`heirmark.verification.verify` turns into an INVALID verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, HeirmarkError, told
from heirmark.files import GIB
from heirmark.isolation.limits import ProcessLimits
from heirmark.models import Net
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.querying.oracle import REMEDY, ModelFault
from heirmark.runtime import Runtime
from heirmark.tasks.media import Text
from heirmark.training.linear_probe import Probe
from heirmark.verification.answers import checked_order
from heirmark.verification.boxes import Encoder, asking, feature_box, read_by
from heirmark.verification.normalising import Normalisation, given_normalised
from heirmark.verification.onnx_files import open_onnx
from heirmark.verification.requests import LONGEST_CALL, Requests
from heirmark.wire.service import Service


@dataclass(frozen=True, kw_only=True, eq=False)
class Suspect:
    """A model under suspicion, reduced to the one thing a verdict needs: labels. Made by the ``from_...`` methods.

    Attributes:
        ask: maps ``[N, ...]`` uint8 or float inputs to labels ``[N]`` int64 on the CPU; raises ``ModelFault`` for every
            failing of the suspect's.
        kind: ``"module"``, ``"callable"``, ``"black-box"``, ``"encoder"``, ``"onnx"`` or ``"service"``.
        classes: number of classes it claims.
        input_shape: shape of one input, where it is known and fixed.
        order: the class that each of its own means, -1 for one that has no other name; see :meth:`relabelled`.
        shown: tells how many inputs have been put to it so far, failed requests and repeated ones among them; None where nobody
            counts.
        normalise: by which mean and standard deviation it is given its inputs; None gives them as they are.
        family: of nets that it is of; empty where that is not known.
        model: the module or function that answers, if it may be asked for probabilities too; normalised as it wants.
    """

    ask: Callable[[Tensor], Tensor]
    kind: str
    classes: int
    input_shape: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None
    shown: Callable[[], int] | None = None
    normalise: Normalisation | None = None
    family: str = ""
    model: nn.Module | Callable[[Tensor], object] | None = None

    def labels(self, inputs: Tensor) -> Tensor:
        """Most likely class of each input.

        Args:
            inputs: ``[N, ...]`` uint8 (0..255) or floating point in [0, 1].

        Returns:
            ``[N]`` int64 on the CPU; -1 for a class that :attr:`order` gives no name.

        Raises:
            ModelFault: if the suspect fails or answers nonsense, whatever it raises.
            BudgetExhausted: if a black box has too few queries left; none is asked then.
            MemoryError: if the machine ran out of memory, for which the suspect is not to blame.
            torch.OutOfMemoryError: likewise on an accelerator.
        """
        try:
            labels = self.ask(inputs)
        except (HeirmarkError, MemoryError, torch.OutOfMemoryError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit would end the verifier, with whatever exit code the suspect likes
            raise ModelFault(f"the model cannot be asked ({told(error)}): {REMEDY}") from error
        if tuple(labels.shape) != (len(inputs),):  # so that nothing is ever spread over inputs that got no answer
            raise ModelFault(f"the model gave {tuple(labels.shape)} answers to {len(inputs)} inputs: {REMEDY}")
        return labels if self.order is None else torch.tensor(self.order)[labels]

    def relabelled(self, order: Sequence[int], *, classes: int) -> Suspect:
        """The same suspect with its classes called as a key calls them.

        Args:
            order: for each class of the suspect's the class of the key that it means, -1 where it means none.
            classes: of the key.

        Raises:
            BadConfig: when a class is out of range, or named twice.
        """
        names = checked_order(order, classes)
        if self.order is not None or self.classes != len(names):
            raise BadConfig(
                f"labels are {len(names)} names, and the suspect has {self.classes} classes: give one for each"
            )
        return replace(self, classes=classes, order=names)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        classes: int,
        input_shape: tuple[int, ...] | None = None,
        runtime: Runtime | None = None,
        normalise: Normalisation | None = None,
    ) -> Suspect:
        """A torch module that maps float32 ``[B, ...]`` in [0, 1], or ids of tokens, to scores ``[B, C]``; asked in eval mode.

        Frozen TorchScript and modules of ``torch.export`` will do; they are asked in the mode that they were written in.

        Args:
            module: the model. It runs in this process: load only code you trust.
            classes: number of classes C.
            input_shape: shape of one input, if it is known.
            runtime: where it computes.
            normalise: mean and standard deviation, if the module wants inputs from which one is taken and which are divided by
                the other.

        Raises:
            BadConfig: when a number of classes or the normalisation makes no sense.
        """
        model = given_normalised(module, normalise)
        box = BlackBox(model, classes=classes, api=Api(answers="label"), runtime=runtime)
        return cls(
            ask=lambda inputs: box.query(inputs).labels,
            kind="module",
            classes=classes,
            input_shape=input_shape,
            shown=lambda: box.inputs_shown,
            normalise=normalise,
            model=model,
        )

    @classmethod
    def from_net(cls, net: Net, *, runtime: Runtime, normalise: Normalisation | None = None) -> Suspect:
        """A model with what rebuilds it; see :meth:`from_module`."""
        suspect = cls.from_module(
            net.model,
            classes=net.spec.classes,
            input_shape=net.spec.input_shape,
            runtime=runtime,
            normalise=normalise,
        )
        # Names such as resnet18 and resnet50 differ in size alone.
        return replace(suspect, family=net.spec.factory or re.split(r"-?[0-9]", net.spec.name)[0])

    @classmethod
    def from_callable(
        cls,
        function: Callable[[Tensor], object],
        *,
        classes: int,
        input_shape: tuple[int, ...] | None = None,
        batch_size: int | None = None,
        retries: int = 3,
        wait: float = 1.0,
        transient: tuple[type[BaseException], ...] = (OSError,),
        timeout: float | None = LONGEST_CALL,
        normalise: Normalisation | None = None,
    ) -> Suspect:
        """Any function of a batch, such as a client of a web service.

        A request that fails in passing is made again. What was answered before a request failed for good is kept as long as
        this object is: the same inputs, put to it again, go on from there, and so does :func:`heirmark.verification.verify`
        with the same key.

        Args:
            function: maps float32 ``[B, ...]`` in [0, 1] to a tensor or array, either of scores ``[B, C]`` (logits and
                probabilities serve alike) or of integer labels ``[B]``.
            classes: number of classes C.
            input_shape: shape of one input, if it is known.
            batch_size: inputs a call, at most; None goes by their size.
            retries: how often a failed request is made again.
            wait: seconds before the first repetition; twice as long before each further one, but no longer than a minute.
            transient: errors that may pass, by which alone requests are repeated. OSError covers timeouts and connections of
                the standard library; name those of another client, ``httpx.TransportError`` say. What a server refuses for
                good (HTTP 4xx, but for 408 and 429) is not repeated.
            timeout: seconds that a call may take. A late one is not repeated, and goes on in a thread that is left behind. None
                waits without end, and calls the function in the thread that asks.
            normalise: see :meth:`from_module`.

        Raises:
            BadConfig: for an argument out of range.
        """
        model = given_normalised(function, normalise)
        requests = Requests(
            function=model,
            classes=classes,
            batch_size=batch_size,
            retries=retries,
            wait=wait,
            transient=transient,
            timeout=timeout,
        )
        return cls(
            ask=requests,
            kind="callable",
            classes=classes,
            input_shape=input_shape,
            shown=lambda: requests.shown,
            normalise=normalise,
            model=model,
        )

    @classmethod
    def from_texts(cls, function: Callable[[list[str]], object], medium: Text, *, classes: int, **how: Any) -> Suspect:
        """Any function of texts, such as a client of a web service; see :meth:`from_callable`, which takes the rest.

        It maps B texts to scores ``[B, C]`` or labels ``[B]``, as tensors, arrays or lists. ``key.medium`` writes the texts.
        """
        return cls.from_callable(lambda ids: function(medium.texts(ids)), classes=classes, **how)

    @classmethod
    def from_black_box(cls, box: BlackBox) -> Suspect:
        """A black box; it is charged for the queries. Any answers will do but features, for which :meth:`from_encoder` is."""
        return cls(
            ask=asking(box, lambda answers: answers.labels),
            kind="black-box",
            classes=box.classes,
            input_shape=box.input_shape,
            shown=lambda: box.inputs_shown,
        )

    @classmethod
    def from_encoder(cls, encoder: Encoder, probe: Probe, *, runtime: Runtime | None = None) -> Suspect:
        """An encoder behind the verifier's own probe, which makes labels of its features.

        A linear one is fitted to this encoder, by :func:`heirmark.training.linear_probe.probe_encoder`, on labelled examples that
        are none of the key's. Encoders that calibrate get probes of their own, on the same examples: that measures the null.

        The encoder maps float32 ``[B, ...]`` in [0, 1] to features ``[B, D]``, or is a box that shows them, which is charged.

        Raises:
            BadConfig: when a box shows no features.
            ShapeMismatch: when it shows others than those of the probe.
        """
        box = feature_box(encoder, probe, runtime)
        return replace(cls.from_black_box(box), ask=asking(box, read_by(probe)), kind="encoder", classes=probe.classes)

    @classmethod
    def from_service(cls, service: Service, *, normalise: Normalisation | None = None) -> Suspect:
        """A model behind a network, as :func:`heirmark.wire.client.connect` finds it; ``normalise`` is for the verdict to say.

        It asks, counts and reads; its limits are the client's own, and raise ``BudgetExhausted``.
        """
        classes = service.classes

        def ask(inputs: Tensor) -> Tensor:
            labels = service.labels(inputs)
            return torch.where(labels < 0, classes, labels)  # one class more for what has no name here

        return cls(
            ask=ask,
            kind="service",
            classes=classes,
            order=None if service.reading.plain else (*range(classes), -1),
            shown=lambda: service.shown,
            normalise=normalise,
        )

    @classmethod
    def from_onnx(
        cls,
        path: Path,
        *,
        classes: int | None = None,
        max_bytes: int = 2 * GIB,
        normalise: Normalisation | None = None,
        limits: ProcessLimits | None = None,
    ) -> Suspect:
        """An ONNX file, run by onnxruntime on the CPU; it cannot run code of its own nor reach other files.

        It may loop without end or ask for any amount of memory, so it runs in a process of its own, with limits. Its only input
        is float ``[B, ...]`` in [0, 1] (B fixed or free), its first output scores ``[B, C]`` or integer labels ``[B]``.

        Args:
            path: the file. Weights kept in a second file ("external data") are refused.
            classes: number of classes C; None reads it off the file.
            max_bytes: refuse a larger file.
            normalise: see :meth:`from_module`.
            limits: of time and memory; the default's by default.

        Raises:
            BadArtifact: if the file is too large, damaged, unlike what is described above, or cannot be loaded within the
                limits.
            BadConfig: if onnxruntime is not installed, or C is neither given nor in the file.
        """
        file = open_onnx(Path(path), classes=classes, max_bytes=max_bytes, limits=limits or ProcessLimits())
        suspect = cls.from_callable(
            file.run, classes=file.classes, batch_size=file.batch_size, retries=0, timeout=None, normalise=normalise
        )
        return replace(suspect, kind="onnx", input_shape=file.input_shape, model=None)
