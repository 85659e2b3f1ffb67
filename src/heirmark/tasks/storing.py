"""How inputs are stored, and which numbers a net computes with: decoding, encoding, bounds, digests.

What a tensor holds shows in its type and shape, as :mod:`heirmark.tasks.space` has it. Ids of tokens are what nets compute with
as they are; all else is decoded to floats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from heirmark.tasks.space import PADDING, Continuous, Images, Tokens, Waves, space_of

DIGEST_BYTES = 16
_ROWS = 4096
LEVELS = {torch.uint8: 255.0, torch.int16: 32768.0}
"""What a stored number is divided by, by the type it is stored in."""
STORED = (torch.uint8, torch.int16, torch.int32, torch.float32)
"""Types that inputs are stored in."""
TYPES = "uint8 (0..255) or float32 in [0, 1], waves to int16 or float32 in [-1, 1], ids of tokens to int32"


def fault(stored: Tensor) -> str | None:
    """What is wrong with stored inputs ``[N, ...]``, and the remedy, to follow on "inputs"; None where all is well."""
    if stored.dtype in LEVELS:
        return None
    space = space_of(stored)
    if isinstance(space, Tokens):
        return _fault_of_tokens(stored)
    if not stored.is_floating_point():
        return f"are {stored.dtype}: convert them to {TYPES}"
    if not stored.numel():
        return None
    low, high = (float(edge.float()) for edge in stored.detach().aminmax())  # in float32, as nets will be given them
    if low >= space.low and high <= space.high:  # false for NaN
        return None
    wrong = ~((stored >= space.low) & (stored <= space.high)).reshape(len(stored), -1).all(1)
    first = stored[int(wrong.nonzero()[0])].aminmax()
    return (
        f"leave [{space.low:g}, {space.high:g}], {int(wrong.sum())} of them, the first number {int(wrong.nonzero()[0])} with "
        f"values from {float(first.min):.4g} to {float(first.max):.4g}: rescale or clamp them ({_REMEDIES[space.low]}; "
        "normalisation belongs in the model), and remove NaN or infinite values"
    )


_REMEDIES = {0.0: "divide 0..255 pixels by 255", -1.0: "divide samples of 16 bits by 32768"}


def _fault_of_tokens(stored: Tensor) -> str | None:
    if stored.ndim != 2:
        return f"are ids of tokens of shape {list(stored.shape[1:])}: give texts of one length [N, L]"
    if stored.numel() and int(stored.min()) < 0:
        return f"hold the id {int(stored.min())}: ids of tokens start at 0, which is padding"
    if stored.numel() and bool((stored == 0).all(1).any()):
        return f"hold an empty text, number {int((stored == 0).all(1).nonzero()[0])}: leave it out"
    return None


def decode(stored: Tensor) -> Tensor:
    """The float32 numbers that stored inputs ``[N, ...]`` stand for: x/255 of pixels, x/32768 of samples, of floats themselves.

    Ids of tokens stand for no number: to decode them is an error of whoever does not say what he ``needs``.
    """
    levels = LEVELS.get(stored.dtype)
    if levels is None:
        assert stored.dtype != torch.int32, "ids of tokens are no numbers to compute with"
        return stored.float()
    # By a tensor: by a plain number CUDA multiplies with its reciprocal, and half of the grey levels differ from the CPU's.
    return stored.float().div_(torch.full((), levels, device=stored.device))


def numbers(stored: Tensor) -> Tensor:
    """What a net computes with: pixels and samples decoded, all else as it is, in its own precision and with its gradients."""
    return decode(stored) if stored.dtype in LEVELS else stored


def clip(values: Tensor) -> Tensor:
    """Numbers ``[N, ...]`` brought into the bounds of their space: [-1, 1] where they are waves ``[N, C, T]``, else [0, 1]."""
    space = space_of(values)
    assert isinstance(space, Continuous), "ids of tokens have no bounds"
    return values.clamp(space.low, space.high)


def encode(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers ``[N, ...]`` as inputs of a dtype are stored: clipped, and rounded to a level where that is uint8 or int16."""
    levels = LEVELS.get(dtype)
    if levels is None:
        return clip(values).to(dtype)
    least = -levels if dtype == torch.int16 else 0
    return values.mul(levels).round().clamp(least, torch.iinfo(dtype).max).to(dtype)


def join(parts: Sequence[Tensor]) -> Tensor:
    """Stored inputs ``[N, ...]`` one after another; pixels among floats are decoded first, for torch would not."""
    if len({part.dtype for part in parts}) > 1:
        parts = [numbers(part) for part in parts]
    return torch.cat(list(parts))


def shuffle(inputs: Tensor, permutation: Tensor) -> Tensor:
    """Inputs with their places in another order: the controls of triggers that have no host.

    A twin keeps the pixels and loses the picture, so a model that sends any strange input to the target fails the matched test.

    Args:
        inputs: ``[M, C, H, W]``, waves ``[M, C, T]``, or others ``[M, ...]``; of texts padding stays behind.
        permutation: of the space's ``places``; the same for all channels.

    Examples:
        >>> shuffle(torch.arange(4.0).reshape(1, 1, 2, 2), torch.tensor([3, 2, 1, 0]))[0, 0].tolist()
        [[3.0, 2.0], [1.0, 0.0]]
    """
    space = space_of(inputs)
    if isinstance(space, Tokens):
        words = inputs[:, permutation]
        return words.gather(1, (words == PADDING).to(torch.uint8).argsort(dim=1, stable=True))
    channels = isinstance(space, Images | Waves)
    return inputs.flatten(2 if channels else 1)[..., permutation].reshape(inputs.shape)


def row_digests(stored: Tensor) -> Iterator[bytes]:
    """A BLAKE2b digest of each input's content, in order: the same for a stored level and its float, and for 0.0 and -0.0.

    Args:
        stored: ``[N, ...]`` on any device; it is gone through by parts.
    """
    coarse = torch.int16 if isinstance(space_of(stored), Waves) else torch.uint8
    for part in stored.detach().split(_ROWS):  # type: ignore[no-untyped-call]
        part = part.cpu().contiguous()
        levels = encode(part, coarse) if part.is_floating_point() else part
        rows = levels.numpy()
        if part.is_floating_point():
            floats = decode(part) + 0.0
            finer = (decode(levels) != floats).reshape(len(part), -1).any(1).tolist()
            values = floats.numpy()
            rows = [values[k] if fine else row for k, (row, fine) in enumerate(zip(rows, finer, strict=True))]
        yield from (hashlib.blake2b(row, digest_size=DIGEST_BYTES).digest() for row in rows)
