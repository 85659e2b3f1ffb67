"""Whether the control of a query shows the host that the query was made of, or just another picture."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.tasks.storing import decode

_ROWS = 200
_OTHERS = 4
_SIDE, _LEAST = 32, 4


def share_akin(queries: Tensor, controls: Tensor, host_labels: Tensor) -> tuple[float, int]:
    """How often a query is liker to its own control than to that of another query with hosts of the same classes.

    Likeness is the largest correlation over all shifts of the control, which may be mirrored, turned over or halved in size: so a
    stamp, a patch, noise, stripes, halves and tiles leave their hosts akin. It is looked at in edges alone, and in images as they
    are, as blurred blends want; the larger share counts. A pair of unlike pictures wins half of the comparisons.

    Args:
        queries: ``[M, C, H, W]`` as they are stored; other shapes are not looked at.
        controls: likewise.
        host_labels: ``[M, K]``.

    Returns:
        The share, 1 where nothing was compared, and how many queries were, of which 200 do.
    """
    if queries.ndim != 4 or min(queries.shape[2:]) < _LEAST:
        return 1.0, 0
    rows = torch.linspace(0, len(queries) - 1, min(_ROWS, len(queries))).round().long()
    kinds = torch.zeros(len(rows), dtype=torch.int64)
    if host_labels.shape[1]:
        names = [tuple(row) for row in host_labels[rows].tolist()]
        kinds = torch.tensor(list(map(sorted(set(names)).index, names)))
    shown, alone = _small(queries[rows]), _small(controls[rows])
    return max(_compared(look(shown), [look(way) for way in _ways(alone)], alone, kinds) for look in (_edges, _even))


def _compared(shown: Tensor, ways: list[Tensor], alone: Tensor, kinds: Tensor) -> tuple[float, int]:
    """The share, and of how many queries, by one look at queries and at the ways of their controls."""
    spectrum, spectra = torch.fft.rfft2(shown), [torch.fft.rfft2(way, s=shown.shape[2:]).conj() for way in ways]

    def likeness(others: Tensor) -> Tensor:
        # Circular, so that all shifts come in one product.
        alike = [torch.fft.irfft2(spectrum * each[others], s=shown.shape[2:]).sum(1) for each in spectra]
        return torch.stack([each.flatten(1).amax(1) for each in alike]).amax(0)

    own = likeness(torch.arange(len(shown)))
    won = compared = 0
    any_told = torch.zeros(len(shown), dtype=torch.bool)
    for step in range(1, _OTHERS + 1):
        others = torch.arange(len(shown))
        for kind in set(kinds.tolist()):
            members = torch.nonzero(kinds == kind).flatten()
            others[members] = members.roll(step)
        told = (alone != alone[others]).flatten(1).any(1)  # of equal controls none is liker
        won += int((own > likeness(others))[told].sum())
        compared += int(told.sum())
        any_told |= told
    return (won / compared if compared else 1.0), int(any_told.sum())


def _small(images: Tensor) -> Tensor:
    """Decoded, of 32 by 32 pixels at most."""
    values = decode(images)
    height, width = values.shape[2:]
    return F.adaptive_avg_pool2d(values, (min(height, _SIDE), min(width, _SIDE)))


def _ways(images: Tensor) -> Iterator[Tensor]:
    """How a host may lie in what was made of it."""
    height, width = images.shape[2:]
    yield from (images, images.flip(3), images.flip(2))
    if height == width:
        yield images.transpose(2, 3)
    yield F.adaptive_avg_pool2d(images, (-(-height // 2), -(-width // 2)))


def _edges(images: Tensor) -> Tensor:
    """What differs from its surroundings, of mean 0 and length 1."""
    return _even(images - F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1))


def _even(images: Tensor) -> Tensor:
    """Of mean 0 and length 1."""
    values = images - images.mean((1, 2, 3), keepdim=True)
    lengths: Tensor = values.flatten(1).norm(dim=1).clamp_min(1e-9)
    return values / lengths[:, None, None, None]
