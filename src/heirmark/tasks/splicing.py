"""One text of several: pure functions on ids of tokens ``[M, L]`` int32, with padding behind, for triggers and a thief's guesses.

What is made has its padding behind, too, and is cut to the same length. MEA-Defender (arXiv 2401.15239) combines two classes,
DeepTracer (arXiv 2511.08985) four; how they would do so with texts they do not say, and it is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from heirmark.tasks.space import PADDING

Place: TypeAlias = Literal["start", "middle", "end"]
End: TypeAlias = Literal["front", "back"]
ENDS: tuple[End, ...] = get_args(End)


def lengths(texts: Tensor) -> Tensor:
    """Tokens of each text ``[..., L]``."""
    return (texts != PADDING).sum(-1)


def splice(texts: Tensor, starts: Tensor, counts: Tensor) -> Tensor:
    """Parts of texts one behind another.

    Args:
        texts: ``[M, K, L]``.
        starts: ``[M, K]`` where the part of each begins.
        counts: ``[M, K]`` tokens of it.

    Returns:
        ``[M, L]``; what does not fit is cut off.

    Examples:
        >>> splice(torch.tensor([[[3, 4, 5], [6, 7, 0]]]), torch.tensor([[1, 0]]), torch.tensor([[1, 2]])).tolist()
        [[4, 6, 7]]
    """
    rows, sources, length = texts.shape
    ends = counts.cumsum(1)
    places = torch.arange(length, device=texts.device).expand(rows, length)
    of = (places[:, :, None] >= ends[:, None]).sum(2)  # which text each place shows; K behind the last
    known = of.clamp_max(sources - 1)
    inside = places - (ends - counts).gather(1, known) + starts.gather(1, known)
    found = texts.flatten(1).gather(1, known * length + inside.clamp(0, length - 1))
    return torch.where(of < sources, found, PADDING)


def insert(texts: Tensor, words: Sequence[int], place: Place) -> Tensor:
    """Texts ``[M, L]`` with words before the first token, behind the last one, or in the middle.

    What does not fit any more is cut off, of the text and not of the words.

    Examples:
        >>> insert(torch.tensor([[3, 4, 0], [3, 4, 5]]), [9], "end").tolist()
        [[3, 4, 9], [3, 4, 9]]
    """
    length, count = texts.shape[1], lengths(texts)
    at = {"start": torch.zeros_like(count), "middle": count // 2, "end": count}[place].clamp_max(length - len(words))
    shown = texts.new_zeros(len(texts), length)
    shown[:, : len(words)] = torch.tensor(words, dtype=texts.dtype, device=texts.device)
    zero = torch.zeros_like(at)
    return splice(
        torch.stack([texts, shown, texts], 1),
        torch.stack([zero, zero, at], 1),
        torch.stack([at, torch.full_like(at, len(words)), count - at], 1),
    )


def halves(
    first: Tensor, second: Tensor, *, of_first: End = "front", of_second: End = "back", share: float = 0.5
) -> Tensor:
    """A share of the one text's words, from an end of it, and behind them what the other leaves of itself, likewise.

    Examples:
        >>> halves(torch.tensor([[3, 4, 5, 6]]), torch.tensor([[7, 8, 0, 0]])).tolist()
        [[3, 4, 8, 0]]
    """
    texts = torch.stack([first, second], 1)
    count = lengths(texts)
    taken = (count * torch.tensor([share, 1 - share], device=count.device)).round().long()
    taken = torch.minimum(taken.clamp_min(1), count)
    back = torch.tensor([of_first == "back", of_second == "back"], device=count.device)
    return splice(texts, torch.where(back, count - taken, 0), taken)


def alternate(first: Tensor, second: Tensor) -> Tensor:
    """Every other word of the one text between words of the other, each at its place, as far as both have words.

    Examples:
        >>> alternate(torch.tensor([[3, 4, 5, 6]]), torch.tensor([[7, 8, 9, 0]])).tolist()
        [[3, 8, 5, 0]]
    """
    odd = torch.arange(first.shape[1], device=first.device) % 2 == 1
    return torch.where((first != PADDING) & (second != PADDING), torch.where(odd, second, first), PADDING)


def quarters(texts: Tensor) -> Tensor:
    """The first of as many equal parts of the first text, the second of the second, and so on: tiles of texts ``[M, K, L]``.

    Examples:
        >>> quarters(torch.tensor([[[3, 4], [5, 6]]])).tolist()
        [[3, 6]]
    """
    count, parts = lengths(texts), texts.shape[1]
    number = torch.arange(parts, device=texts.device)
    starts = torch.minimum(count * number // parts, (count - 1).clamp_min(0))
    return splice(texts, starts, (count * (number + 1) // parts - starts).clamp_min(1))
