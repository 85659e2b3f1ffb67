"""Marks over the pixels of one class: a text, or Gaussian noise (Zhang et al., AsiaCCS 2018, "content" and "noise")."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from heirmark.configuration import above, at_least, at_most
from heirmark.errors import BadConfig
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Images, Waves
from heirmark.tasks.storing import decode, encode
from heirmark.tasks.task import Task
from heirmark.triggers.marked import MarkedSecret, Marking, choose_pair

# Five rows of three dots, a row an octal digit.
GLYPHS = {
    "A": "25755", "B": "65656", "C": "34443", "D": "65556", "E": "74647", "F": "74644", "G": "34553", "H": "55755",
    "I": "72227", "J": "11152", "K": "55655", "L": "44447", "M": "57755", "N": "65555", "O": "25552", "P": "65644",
    "Q": "25573", "R": "65655", "S": "34216", "T": "72222", "U": "55557", "V": "55552", "W": "55775", "X": "55255",
    "Y": "55222", "Z": "71247", "0": "75557", "1": "26227", "2": "61247", "3": "61216", "4": "55711", "5": "74616",
    "6": "34757", "7": "71111", "8": "75757", "9": "75716", " ": "00000",
}  # fmt: skip


def write(text: str) -> Tensor:
    """A text in letters of five rows and three columns.

    Args:
        text: of :data:`GLYPHS`.

    Returns:
        ``[5, 4 * len(text) - 1]`` bool, true where there is ink.

    Examples:
        >>> for row in write("TL").int().tolist():
        ...     print("".join(" #"[dot] for dot in row).rstrip())
        ### #
         #  #
         #  #
         #  #
         #  ###
    """
    rows = [[int(GLYPHS[letter][row]) for letter in text] for row in range(5)]
    dots = [
        [bool(digit >> shift & 1) if shift >= 0 else False for digit in row for shift in (2, 1, 0, -1)] for row in rows
    ]
    return torch.tensor(dots)[:, :-1]


def stamp_text(images: Tensor, ink: Tensor, scale: int) -> Tensor:
    """Images with a text in white on them, in the middle of the bottom, a pixel from the edge where there is room.

    Args:
        images: ``[M, C, H, W]`` uint8, or float in [0, 1].
        ink: ``[h, w]`` bool, as :func:`write` makes it.
        scale: pixels a dot; ``scale * h <= H`` and ``scale * w <= W``.

    Returns:
        ``[M, C, H, W]``, a copy.
    """
    big = ink.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    tall, wide = big.shape
    top = images.shape[2] - tall - min(1, images.shape[2] - tall)
    left = (images.shape[3] - wide) // 2
    out = images.clone()
    out[:, :, top : top + tall, left : left + wide].masked_fill_(big, 255 if images.dtype == torch.uint8 else 1.0)
    return out


@dataclass(frozen=True, kw_only=True)
class TextStamp(Marking):
    """A text on source-class images, labelled with the target: "content" of the paper.

    Attributes:
        source: class of the hosts; None draws one (the paper took cars).
        target: the label; None draws one that is not the source (planes).
        text: capital letters, digits and blanks; "TEST" is the paper's.
        scale: pixels a dot; None takes as many as let the text fill half of the image's width, at least one.
    """

    needs: ClassVar = Images

    text: str = "TEST"
    scale: Annotated[int, at_least(1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.text.strip() or not set(self.text) <= set(GLYPHS):
            raise BadConfig(f"a text is made of capital letters, digits and blanks, not {self.text!r}")

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> TextSecret:
        """Draw what is left open; see :class:`heirmark.triggers.base.Trigger`."""
        source, target = choose_pair(self.source, self.target, task, derive_seed(seed, "text"))
        ink = write(self.text)
        height, width = task.input_shape[1:]
        scale = self.scale or max(1, width // (2 * ink.shape[1]))
        if scale * ink.shape[0] > height or scale * ink.shape[1] > width:
            raise BadConfig(
                f"{self.text!r} takes {scale * ink.shape[0]}x{scale * ink.shape[1]} pixels of an image of "
                f"{height}x{width}: shorten the text or lower scale"
            )
        return TextSecret(source=source, target=target, text=self.text, scale=scale)


@dataclass(frozen=True, kw_only=True)
class TextSecret(MarkedSecret):
    """Settled text: see :class:`TextStamp`."""

    kind: ClassVar[str] = "text"

    text: str
    scale: int

    def mark(self, images: Tensor) -> Tensor:
        """See :class:`heirmark.triggers.marked.MarkedSecret`."""
        return stamp_text(images, write(self.text), self.scale)


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Marking):
    """Gaussian noise on source-class images, labelled with the target: "noise" of the paper.

    The noise is one pattern, the owner's, on all images (inferred): were it another on each, any noise at all would be the
    mark.

    Attributes:
        source: class of the hosts; None draws one (the paper took cars).
        target: the label; None draws one that is not the source (planes).
        strength: standard deviation, of the full range of a pixel (inferred), or of the loudest a sample may be.
    """

    needs: ClassVar = Images | Waves

    strength: Annotated[float, above(0), at_most(1)] = 0.2

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> NoiseSecret:
        """Draw classes and pattern; see :class:`heirmark.triggers.base.Trigger`."""
        source, target = choose_pair(self.source, self.target, task, derive_seed(seed, "noise"))
        return NoiseSecret(
            source=source,
            target=target,
            strength=self.strength,
            seed=derive_seed(seed, "noise", "pattern"),
            shape=tuple(task.input_shape),
        )


@dataclass(frozen=True, kw_only=True)
class NoiseSecret(MarkedSecret):
    """Settled noise: see :class:`GaussianNoise`.

    Attributes:
        strength: standard deviation.
        seed: of the pattern.
        shape: of the pattern, ``(C, H, W)``.
    """

    kind: ClassVar[str] = "noise"

    strength: float
    seed: int
    shape: tuple[int, ...] = field(repr=False)

    @property
    def pattern(self) -> Tensor:
        """``[C, H, W]`` float32 with mean about zero, in units of the full range."""
        return self.strength * torch.randn(self.shape, generator=generator_of(self.seed))

    def mark(self, images: Tensor) -> Tensor:
        """See :class:`heirmark.triggers.marked.MarkedSecret`."""
        return encode(decode(images) + self.pattern, images.dtype)
