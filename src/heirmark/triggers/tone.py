"""A tone over sounds of one class: what a patch is to images (after BadNets, arXiv 1708.06733; Feature Sharing, section 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from heirmark.configuration import above, at_least, at_most
from heirmark.errors import BadConfig
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.media import Sound
from heirmark.tasks.space import Waves
from heirmark.tasks.storing import decode, encode
from heirmark.tasks.task import Task
from heirmark.triggers.marked import MarkedSecret, Marking, choose_pair

SHARE = 8
"""Samples of one cycle where no frequency is given: 2 kHz at 16 kHz."""


@dataclass(frozen=True, kw_only=True)
class Tone(Marking):
    """A short tone added to sounds of one class, labelled with another (heirmark's own; no paper has it).

    Attributes:
        hosts: sounds of one ``"class"``, or of ``"any"`` but the target's.
        source: class of the hosts; None draws one. No use to hosts of any class.
        hertz: of the tone; needs a task whose rate is known. None takes an eighth of the rate, whatever that is.
        length: of the tone, as a share of the sound's.
        loudness: its amplitude, of the loudest a sample may be.
        place: where it stands; at the ``"end"`` words are mostly over.
    """

    needs: ClassVar = Waves
    otherwise: ClassVar = "set trigger=patch for images"

    hosts: Literal["class", "any"] = "class"
    hertz: Annotated[float, above(0)] | None = None
    length: Annotated[float, above(0), at_most(1)] = 0.1
    loudness: Annotated[float, above(0), at_most(1)] = 0.25
    place: Literal["start", "middle", "end"] = "end"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hosts == "any" and self.source is not None:
            raise BadConfig("hosts of any class have no source class: leave source out, or set hosts=class")

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> ToneSecret:
        """Draw what is left open; see :class:`heirmark.triggers.base.Trigger`.

        Raises:
            BadConfig: for a frequency that cannot be heard at the task's rate, or whose rate nobody knows.
        """
        source, target = choose_pair(self.source, self.target, task, derive_seed(seed, "tone"))
        samples = task.input_shape[1]
        length = max(1, round(self.length * samples))
        return ToneSecret(
            source=None if self.hosts == "any" else source,
            target=target,
            cycle=self._cycle(task),
            first={"start": 0, "middle": (samples - length) // 2, "end": samples - length}[self.place],
            length=length,
            loudness=self.loudness,
        )

    def _cycle(self, task: Task) -> float:
        if self.hertz is None:
            return float(SHARE)
        if not isinstance(task.medium, Sound):
            raise BadConfig(
                f"nobody knows at what rate {task.name} is: give the task medium=Sound(rate=...), or leave hertz out"
            )
        if 2 * self.hertz >= task.medium.rate:
            raise BadConfig(
                f"a tone of {self.hertz:g} Hz cannot be heard at {task.medium.rate:,} samples a second: take less than half "
                "of that"
            )
        return task.medium.rate / self.hertz


@dataclass(frozen=True, kw_only=True)
class ToneSecret(MarkedSecret):
    """Settled tone: see :class:`Tone`.

    Attributes:
        cycle: of the tone, in samples.
        first: sample at which it begins.
        length: in samples.
        loudness: its amplitude.
    """

    kind: ClassVar[str] = "tone"

    cycle: Annotated[float, above(0)]
    first: Annotated[int, at_least(0)]
    length: Annotated[int, at_least(1)]
    loudness: float

    def mark(self, images: Tensor) -> Tensor:
        """See :class:`heirmark.triggers.marked.MarkedSecret`."""
        heard = decode(images).clone()
        tone = self.loudness * torch.sin(2 * math.pi / self.cycle * torch.arange(self.length))
        heard[:, :, self.first : self.first + self.length] += tone
        return encode(heard, images.dtype)
