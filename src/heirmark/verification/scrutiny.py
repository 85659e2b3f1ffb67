"""What a key shows of its own dishonesty, whatever a suspect answers. A key without such faults may be dishonest all the same."""

from __future__ import annotations

import torch

from heirmark.keys.key import Key
from heirmark.tasks.space import decode
from heirmark.verification.statistics import binomial_p

_ROWS = 1000
_ALIKE = 0.1
"""Of the spread within a query, the distance to its nearest other one below which the two are the same picture."""
_IMPROBABLE = 1e-6


def faults_of(key: Key) -> tuple[str, ...]:
    """Why a key proves nothing, each reason to follow on "the key proves nothing:"; empty where nothing is seen.

    Queries that are one picture again and again are no independent trials. A key that says its labels were drawn at random for
    every query, and so may be held against 1/C, has to have such labels. Hosts that are named by no class are none.

    Args:
        key: any key.
    """
    found = []
    if (share := _nearly_repeated(key)) > 0.5:
        found.append(
            f"{share:.0%} of its queries are another one with a little noise, so that its trials are no independent ones"
        )
    if key.memorised:
        counts = torch.bincount(key.expected, minlength=key.classes)
        # The most frequent label, by chance one of C - 1 at least, and any of C may be it.
        chance = key.classes * binomial_p(int(counts.max()), len(key), 1 / (key.classes - 1))
        if key.classes > 2 and chance < _IMPROBABLE:
            found.append(
                f"it says that its labels were drawn at random for each query, and {int(counts.max())} of {len(key)} are "
                f"{int(counts.argmax())}"
            )
    if key.host_labels.shape[1]:
        nameless = float((key.host_labels < 0).all(1).double().mean())
        if nameless > 0.5:
            found.append(f"{nameless:.0%} of its queries have hosts of no class, and so show nothing of the task")
    return tuple(found)


def _nearly_repeated(key: Key) -> float:
    """Share of the queries, of the first thousand, that are nearly another one."""
    values = decode(key.queries[:_ROWS]).flatten(1)
    if len(values) < 2 or values.shape[1] < 2:
        return 0.0
    apart = torch.cdist(values, values) / values.shape[1] ** 0.5
    apart.fill_diagonal_(torch.inf)
    return float((apart.min(1).values < _ALIKE * values.std(1)).double().mean())
