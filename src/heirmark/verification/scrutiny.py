"""What a key shows of its own dishonesty, whatever a suspect answers. A key without such faults may be dishonest all the same."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from heirmark.keys.key import MISTAKES, Key
from heirmark.tasks.space import PADDING
from heirmark.tasks.storing import decode
from heirmark.verification.kinship import share_akin

NO_HOSTS, FOREIGN_CONTROLS, CHOSEN_LABELS = "no-hosts", "foreign-controls", "chosen-labels"
_ALIKE = 0.1
"""Of the spread within a query, the distance to an earlier one below which the two are the same picture. Keys that are drawn of
photographs have none: the nearest blends of Fashion-MNIST lie 0.14 apart, the nearest tiles 0.35."""
_BLOCK = 1000
_AKIN = 0.7
"""Share of comparisons in which a query is liker to its own control than to another. Half by chance; 0.81 and more for every
kind of trigger here (``docs/verdicts.md``)."""
_IMPROBABLE = math.log(1e4)


def told_apart(key: Key) -> Key:
    """A key without the queries that are an earlier one with a little noise; itself where there are none.

    Such queries are no independent trials, and are left out when unmarked models are counted, too.
    """
    repeats = near_repeats(key.queries)
    return key.subset(torch.nonzero(~repeats).flatten()) if bool(repeats.any()) else key


def near_repeats(queries: Tensor) -> Tensor:
    """Which inputs are nearly another one that stands before them, ``[M]`` bool.

    Nearly is a distance, root mean square, under a tenth of the standard deviation within the input. Of more than 1,000 each is
    compared with the 1,000 or more whose mean is nearest to its own, for a little noise hardly moves the mean. Texts are nearly
    another where more than nine tenths of their tokens are the same in the same places.

    Args:
        queries: ``[M, ...]`` as they are stored.

    Examples:
        >>> near_repeats(torch.tensor([[0, 100, 200], [1, 101, 199], [200, 100, 0]], dtype=torch.uint8))
        tensor([False,  True, False])
    """
    if queries.dtype == torch.int32:
        return _repeated_texts(queries)
    places = math.prod(queries.shape[1:])
    repeats = torch.zeros(len(queries), dtype=torch.bool)
    if places < 2:
        return repeats
    parts = [queries[start : start + _BLOCK] for start in range(0, len(queries), _BLOCK)]
    means = torch.cat([decode(part).flatten(1).mean(1) for part in parts])
    order = means.argsort(stable=True)
    for start in range(0, max(1, len(order) - _BLOCK), _BLOCK):
        rows = order[start : start + 2 * _BLOCK].sort().values  # so that blocks overlap by half
        values = decode(queries[rows]).flatten(1)
        apart = torch.cdist(values, values) / places**0.5
        near = (apart < _ALIKE * values.std(1)[:, None]).tril(-1)
        repeats[rows[near.any(1)]] = True
    return repeats


def _repeated_texts(texts: Tensor) -> Tensor:
    """Which texts ``[M, L]`` have nine tenths of their tokens in the places of an earlier one, ``[M]`` bool."""
    written = (texts != PADDING).sum(1)
    repeats = torch.zeros(len(texts), dtype=torch.bool)
    for row in range(1, len(texts)):
        same = ((texts[:row] == texts[row]) & (texts[row] != PADDING)).sum(1)
        repeats[row] = bool((same > (1 - _ALIKE) * torch.maximum(written[:row], written[row])).any())
    return repeats


def doubts_of(key: Key) -> frozenset[str]:
    """What is said of a key's queries and does not hold, as flags.

    - ``no-hosts``: some query has no host of a class, so that its answer rests on nothing of the task;
    - ``foreign-controls``: controls are no more like their queries than others are, so that the matched test compares pictures
      that have nothing to do with each other. A fingerprint's are so by nature, and have a rule of their own;
    - ``chosen-labels``: labels that are said to be drawn at random for each query are not.

    Args:
        key: any key.
    """
    found = set()
    by_heart = key.memorised
    if by_heart and log_e_of_pattern(key) > _IMPROBABLE:
        found.add(CHOSEN_LABELS)
        by_heart = False
    if not by_heart:
        hosted = (key.host_labels >= 0).any(1)
        if not bool(hosted.all()):
            found.add(NO_HOSTS)
        elif key.kind != MISTAKES:
            share, rows = share_akin(key.queries, key.controls, key.host_labels)
            if rows and share + 0.5 / rows**0.5 < _AKIN:
                found.add(FOREIGN_CONTROLS)
    return frozenset(found)


def log_e_of_pattern(key: Key) -> float:
    r"""Logarithm of an e-value against labels that were drawn evenly among the classes that are no host's.

    The mean of two bets on each label in turn. Both expect labels as often as they occurred before, each counted half more; the
    second looks at queries with the same hosts alone. Under even labels the mean of the bet is at most 1, so that e exceeds
    :math:`1/\alpha` with a chance of at most :math:`\alpha`, however few the queries and many the classes.

    Source: for the bet, Krichevsky and Trofimov, "The performance of universal encoding", IEEE Trans. Inf. Theory 27 (1981).
    """
    everywhere: dict[tuple[int, ...], dict[int, float]] = {}
    total, by_hosts = 0.0, 0.0
    rows = [tuple(sorted(set(row) - {-1})) for row in key.host_labels.tolist()]
    for label, hosts in zip(key.expected.tolist(), rows, strict=True):
        if key.classes - len(hosts) < 1 or label in hosts:
            return math.inf
        for place in ((), hosts) if hosts else ((),):
            seen = everywhere.setdefault(place, {})
            free = key.classes - len(hosts)
            counted = sum(seen.values()) - sum(seen.get(host, 0.0) for host in hosts)
            gain = math.log((seen.get(label, 0.0) + 0.5) / (counted + free / 2) * free)
            if place == ():
                total += gain
            if place == hosts:
                by_hosts += gain
            seen[label] = seen.get(label, 0.0) + 1
    larger = max(total, by_hosts)
    return larger + math.log((math.exp(total - larger) + math.exp(by_hosts - larger)) / 2)
