"""Who gets which example: a training set shared out, the same way for the same seed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from heirmark.errors import BadConfig, BadData
from heirmark.runtime import generator_of
from heirmark.tasks.task import Split, Task, check_labels


def make_task(
    name: str,
    classes: tuple[str, ...],
    train: Split,
    test: Split,
    *,
    seed: int,
    owner: float = 0.45,
    adversary: float = 0.45,
    calibration: float = 0.10,
) -> Task:
    """Split a training set into owner, adversary and calibration parts, class by class.

    Of training inputs that are exact copies of each other the first is kept; those that also stand in ``test`` are
    dropped. ``test`` is kept whole. In every class each part is within one example of its proportion.

    Args:
        name: name of the task.
        classes: class names.
        train: examples to share out.
        test: held-out examples.
        seed: at least 0. The same seed gives the same task; the global random state is neither read nor changed.
        owner: proportion of the training examples of the owner, above 0.
        adversary: the same of the adversary.
        calibration: the same for calibration. The three add up to at most 1; what they leave is not used.

    Returns:
        The task.

    Raises:
        BadConfig: for a proportion or a seed out of range.
        BadData: if a part would be empty, or the splits do not fit each other.
    """
    proportions = torch.tensor([owner, adversary, calibration], dtype=torch.float64)
    total = float(proportions.sum())
    if not all(math.isfinite(p) and p > 0 for p in (owner, adversary, calibration)) or total > 1 + 1e-9:
        raise BadConfig(
            f"owner, adversary and calibration must each be above 0 and add up to at most 1, "
            f"not {owner}, {adversary}, {calibration}"
        )
    generator = generator_of(seed)
    check_labels(name, "training", train, len(classes))
    kept = distinct_of(train, test.digests())
    kept = kept[torch.randperm(len(kept), generator=generator)]
    labels = train.labels.cpu()[kept]
    # rank of each example within its class, in the shuffled order
    by_class = labels.argsort(stable=True)
    counts = labels.bincount()
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(kept)) - (counts.cumsum(0) - counts)[labels[by_class]]
    # per-class end of each part; an example belongs to the first part whose end lies beyond its rank
    ends = (counts[:, None] * proportions.cumsum(0)[None]).add(1e-9).round().long()
    part = (rank[:, None] >= ends[labels]).sum(1)
    parts = {}
    for number, role in enumerate(("owner", "adversary", "calibration")):
        index = kept[part == number]
        if not len(index):
            raise BadData(f"task {name!r}: no example is left for {role}: give more examples or a larger proportion")
        parts[role] = train.subset(index)
    return Task(name=name, classes=tuple(classes), **parts, test=test)


def distinct_of(split: Split, banned: set[bytes]) -> Tensor:
    """Positions of the first of each distinct input that is not banned."""
    first: dict[bytes, int] = {}
    for position, digest in enumerate(split.row_digests):
        first.setdefault(digest, position)
    kept = [position for digest, position in first.items() if digest not in banned]
    if not kept:
        raise BadData("every training input also stands in the test split: give a training set of its own")
    return torch.tensor(kept)
