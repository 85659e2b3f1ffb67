"""Stored inputs as they look on a page."""

from __future__ import annotations

import torch
from torch import Tensor

from heirmark.report.looks import picture, sound, words
from heirmark.report.section import Look
from heirmark.tasks.media import Medium, Sound, Text
from heirmark.tasks.space import Images, Tokens, Waves, space_of
from heirmark.tasks.storing import decode, encode

USUAL_RATE = 16_000
"""Of sound of which nothing is said."""


def looks_of(inputs: Tensor, medium: Medium | None) -> tuple[Look, ...]:
    """How inputs ``[N, ...]`` look: images, waves as spectrograms and sound, texts as words; other numbers as a line of grey.

    Args:
        inputs: as they are stored.
        medium: of the task; ids of tokens without one are shown as numbers.
    """
    space = space_of(inputs)
    if isinstance(space, Tokens):
        numbers = (" ".join(map(str, row)) for row in inputs.tolist())
        texts = medium.texts(inputs.cpu()) if isinstance(medium, Text) else list(numbers)
        return tuple(map(words, texts))
    if isinstance(space, Waves):
        rate = medium.rate if isinstance(medium, Sound) else USUAL_RATE
        return tuple(sound(wave.numpy(), rate) for wave in decode(inputs.cpu()))
    levels = encode(decode(inputs.cpu()), torch.uint8)
    if not isinstance(space, Images):
        levels = levels.reshape(len(levels), 1, 1, -1)
    return tuple(picture(image.numpy()) for image in levels)
