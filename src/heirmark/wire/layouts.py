"""Inputs as services take them: which axis is which, which numbers, as JSON or as a picture."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from heirmark.errors import BadConfig
from heirmark.tasks.media import Text
from heirmark.tasks.storing import encode

Order = Literal["auto", "channels-first", "channels-last", "flat"]
_FLOATS = {"FP64", "FP32", "FP16", "BF16", "DT_FLOAT", "DT_DOUBLE", "DT_HALF", "DT_BFLOAT16", "FLOAT32", "FLOAT64"}
_BYTES = {"UINT8", "DT_UINT8"}
_STRINGS = {"BYTES", "STRING", "DT_STRING"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one input lies on the wire.

    Attributes:
        shape: of one input there.
        permuted: whether channels come last there.
        bytes: whether its numbers are whole, 0 to 255, in place of [0, 1].
        texts: writes it as a text there, where it is one.
    """

    shape: tuple[int, ...]
    permuted: bool = False
    bytes: bool = False
    texts: Text | None = None

    def listed(self, inputs: Tensor) -> list[Any]:
        """Inputs ``[N, ...]`` as JSON: texts, or numbers as lists of lists, float32 in so many digits that it comes back."""
        if self.texts is not None:
            return list(self.texts.texts(inputs))
        values: list[Any] = self.arranged(inputs).tolist()
        return values

    def arranged(self, inputs: Tensor) -> Tensor:
        """Inputs ``[N, ...]`` float32 in the shape ``[N, *shape]``; in uint8, rounded, where these are wanted."""
        moved = inputs.movedim(1, -1) if self.permuted else inputs
        moved = moved.reshape(len(inputs), *self.shape).contiguous()
        return encode(moved, torch.uint8) if self.bytes else moved


def fit_layout(
    own: Sequence[int],
    *,
    order: Order = "auto",
    claimed: Sequence[int] | None = None,
    datatype: str | None = None,
    texts: Text | None = None,
) -> Layout:
    """How inputs are laid on the wire for a service.

    Args:
        own: shape of one input here, such as ``(C, H, W)``.
        order: of the axes there, if it is known; ``"auto"`` goes by what the service claims, and else keeps them.
        claimed: shape of one input there, -1 for any size; None where nothing is said.
        datatype: name of the numbers there, as Open Inference or TensorFlow write it.
        texts: writes inputs, where they are texts.

    Raises:
        BadConfig: when the service takes other inputs, or numbers that are none of an image.

    Examples:
        >>> fit_layout((3, 32, 32), claimed=(-1, -1, 3)).permuted
        True
    """
    if texts is not None:
        if datatype is not None and datatype.upper() not in _STRINGS:
            raise BadConfig(f"the service takes {datatype}, which is no text: name another of its models")
        return Layout(shape=(1,) * len(claimed or ()), texts=texts)
    own = tuple(own)
    last = (*own[1:], own[0]) if len(own) > 1 else own
    possible = {"channels-first": (own, False), "channels-last": (last, True), "flat": ((math.prod(own),), False)}
    if datatype is not None and datatype.upper() not in _FLOATS | _BYTES:
        raise BadConfig(f"the service takes {datatype}, which is no kind of pixels: name another of its models")
    bytes_ = datatype is not None and datatype.upper() in _BYTES
    if order != "auto":
        shape, permuted = possible[order]
        return Layout(shape=shape, permuted=permuted, bytes=bytes_)
    if not claimed:
        return Layout(shape=own, bytes=bytes_)
    claimed = tuple(claimed)
    if len(own) == 3 and own[0] == 1:
        possible["no channels"] = (own[1:], False)
    fitting = [(shape, permuted) for shape, permuted in possible.values() if _fits(shape, claimed)]
    if not fitting:
        raise BadConfig(
            f"the service takes inputs of shape {claimed}, and these are {own}: say how they lie by --layout, or ask it through "
            "a function of your own, package.module:name"
        )
    shape, permuted = fitting[0]
    return Layout(shape=shape, permuted=permuted, bytes=bytes_)


def _fits(shape: Sequence[int], claimed: Sequence[int]) -> bool:
    return len(shape) == len(claimed) and all(b in (-1, a) for a, b in zip(shape, claimed, strict=True))


def png(image: Tensor) -> bytes:
    """A picture in the format PNG (RFC 2083): grey or RGB, eight bits, nothing lost.

    Args:
        image: ``[1, H, W]`` or ``[3, H, W]``, uint8, or floats in [0, 1], which are rounded.

    Raises:
        BadConfig: when it is no such picture.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise BadConfig(
            f"a picture is [1, H, W] or [3, H, W], and these inputs are {tuple(image.shape)}: use another protocol"
        )
    levels = image if image.dtype == torch.uint8 else encode(image, torch.uint8)
    channels, height, width = levels.shape
    rows = levels.permute(1, 2, 0).reshape(height, width * channels).cpu().numpy()
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(raw)) + _chunk(b"IEND", b"")


def png_text(image: Tensor) -> str:
    """The same as base64."""
    return base64.b64encode(png(image)).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
