"""Who gets which example: a training set shared out, the same way for the same seed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from heirmark.errors import BadConfig, BadData
from heirmark.runtime import generator_of
from heirmark.tasks.media import Medium
from heirmark.tasks.task import Protocol, Split, Task, check_labels

SHARES: Mapping[Protocol, Mapping[str, float]] = {
    "disjoint": {"owner": 0.45, "adversary": 0.45, "calibration": 0.10},
    "paper": {"owner": 0.95, "calibration": 0.05},
}
"""Who gets how much of a training set. The papers' owner has all of it; here a twentieth is kept from him, for keys are made of
what nothing trained on: 250 images of a class of CIFAR-10, which tell a success rate to a point, at 5 % fewer to learn from."""
HOSTS = 2
"""Images that calibration keeps of a class with few of them: one to host the key, and one to watch while a model is marked."""
FEW = 4 * HOSTS
"""A class with fewer images than this is shared out by its proportions alone."""


def make_task(
    name: str,
    classes: tuple[str, ...],
    train: Split,
    test: Split,
    *,
    seed: int,
    protocol: Protocol = "disjoint",
    medium: Medium | None = None,
    owner: float | None = None,
    adversary: float | None = None,
    calibration: float | None = None,
) -> Task:
    """Split a training set into owner, adversary and calibration parts, class by class; or, as papers do, into owner's and rest.

    Of training inputs that are exact copies of each other the first is kept; those that also stand in ``test`` are
    dropped. ``test`` is kept whole. In every class each part is within one example of its proportion, or two where calibration
    would have fewer than :data:`HOSTS` of a class of at least :data:`FEW`; where examples have ``groups``, each group goes to
    one part, and proportions are kept as well as that allows.

    Args:
        name: name of the task.
        classes: class names.
        train: examples to share out.
        test: held-out examples.
        seed: at least 0. The same seed gives the same task; the global random state is neither read nor changed.
        protocol: ``"paper"`` gives the adversary the owner's own examples, and so no part of his own.
        medium: how inputs are shown, where they are sound or text.
        owner: proportion of the training examples of the owner, above 0; None takes that of :data:`SHARES`.
        adversary: the same of the adversary.
        calibration: the same for calibration. They add up to at most 1; what they leave is not used.

    Returns:
        The task.

    Raises:
        BadConfig: for a proportion or a seed out of range, or one of an adversary who has none.
        BadData: if a part would be empty, or the splits do not fit each other.
    """
    shares = _shares(protocol, owner=owner, adversary=adversary, calibration=calibration)
    proportions = torch.tensor(list(shares.values()), dtype=torch.float64)
    generator = generator_of(seed)
    check_labels(name, "training", train, len(classes))
    kept = distinct_of(train, test.digests())
    kept = kept[torch.randperm(len(kept), generator=generator)]
    part = _parts(train, kept, proportions, least=HOSTS)
    parts = {}
    for number, role in enumerate(shares):
        index = kept[part == number]
        if not len(index):
            raise BadData(f"task {name!r}: no example is left for {role}: give more examples or a larger proportion")
        parts[role] = train.subset(index)
    parts.setdefault("adversary", parts["owner"])
    return Task(
        name=name,
        classes=tuple(classes),
        owner=parts["owner"],
        adversary=parts["adversary"],
        calibration=parts["calibration"],
        test=test,
        protocol=protocol,
        medium=medium,
    )


def _shares(protocol: Protocol, **given: float | None) -> dict[str, float]:
    """Proportions by role, the usual ones but for those that are given."""
    if protocol not in SHARES:
        raise BadConfig(f"unknown protocol {protocol!r}: choose one of {', '.join(SHARES)}")
    usual = SHARES[protocol]
    if given["adversary"] is not None and "adversary" not in usual:
        raise BadConfig("by the papers' protocol the adversary has the owner's images: leave adversary out")
    wanted = {role: share if (own := given[role]) is None else own for role, share in usual.items()}
    if not all(math.isfinite(p) and p > 0 for p in wanted.values()) or sum(wanted.values()) > 1 + 1e-9:
        raise BadConfig(
            f"{', '.join(list(wanted)[:-1])} and calibration must each be above 0 and add up to at most 1, "
            f"not {', '.join(map(str, wanted.values()))}"
        )
    return wanted


def own_task(
    data: Split,
    *,
    held_out: Split | None = None,
    classes: int | tuple[str, ...] | None = None,
    seed: int = 0,
    name: str = "own",
) -> Task:
    """A task of an owner's who has a trained model and its data: most of them for the marking, and the rest left out of it.

    An eighth of them is the adversary's, so that a theft can be tried with it. The examples that are held out are calibration and
    test in equal parts. Without any, a fifth of the data is held out from the marking. A model that has learned all of the data
    has learned these, too: its accuracy on such a test split is too high, with the mark and without.

    Args:
        data: examples, of which exact copies and those that stand in ``held_out`` are dropped.
        held_out: examples that the model has not learned from.
        classes: how many, or their names; None goes by the labels.
        seed: of who gets which example.
        name: of the task.

    Raises:
        BadData: if a part would be empty.
    """
    if classes is None:
        classes = max(int(split.labels.max()) for split in (data, held_out) if split is not None) + 1
    names = classes if isinstance(classes, tuple) else tuple(map(str, range(classes)))
    generator = generator_of(seed)

    def halved(split: Split, first: float) -> tuple[Split, Split]:
        kept = distinct_of(split, set())
        kept = kept[torch.randperm(len(kept), generator=generator)]
        part = _parts(split, kept, torch.tensor([first, 1 - first], dtype=torch.float64))
        if not 0 < int(part.sum()) < len(part):
            raise BadData(f"task {name!r}: {len(kept)} different examples are too few to share out: give more")
        return split.subset(kept[part == 0]), split.subset(kept[part == 1])

    if held_out is None:
        data, held_out = halved(data, 0.8)
    calibration, test = halved(held_out, 0.5)
    owner, adversary = halved(data.subset(distinct_of(data, held_out.digests())), 7 / 8)
    return Task(name=name, classes=names, owner=owner, adversary=adversary, calibration=calibration, test=test)


def _parts(split: Split, shuffled: Tensor, proportions: Tensor, *, least: int = 0) -> Tensor:
    """The number of the part that each of some examples goes to, class by class, ``[M]``.

    Args:
        split: the examples.
        shuffled: ``[M]`` positions of those that are shared out.
        proportions: of the parts, float64; what they leave is the part after the last.
        least: examples that the last part has of every class of at least :data:`FEW`, at the cost of those before it.
    """
    labels = split.labels.cpu()[shuffled]
    if split.groups is not None:
        return _parts_of_groups(labels, split.groups.cpu()[shuffled], proportions)
    # rank of each example within its class, in the shuffled order
    by_class = labels.argsort(stable=True)
    counts = labels.bincount()
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]
    # per-class end of each part; an example belongs to the first part whose end lies beyond its rank
    ends = (counts[:, None] * proportions.cumsum(0)[None]).add(1e-9).round().long()
    if least:
        most = ends[:, -1] - least
        among = (most[:, None] * (proportions.cumsum(0) / proportions[:-1].sum())).round().long()
        short = (counts >= FEW) & (ends[:, -2] > most)
        ends[:, :-1] = torch.where(short[:, None], among, ends)[:, :-1]
    return (rank[:, None] >= ends[labels]).sum(1)


def _parts_of_groups(labels: Tensor, groups: Tensor, proportions: Tensor) -> Tensor:
    """The same for examples of which all of a group go to one part.

    From the largest group on, each goes where it is wanted most: where its classes lack most, as a share of what is due there.

    Args:
        labels: ``[M]``.
        groups: ``[M]``; those of one size take turns in the order in which they appear.
        proportions: of the parts.
    """
    present, number, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    counts = torch.zeros(len(present), int(labels.max()) + 1, dtype=torch.float64)
    counts.index_put_((number, labels), torch.ones((), dtype=torch.float64), accumulate=True)
    left = 1 - proportions.sum()
    shares = torch.cat([proportions, left[None]]) if left > 1e-9 else proportions
    due = shares[:, None] * counts.sum(0)
    held = torch.zeros_like(due)
    met = torch.full_like(sizes, len(labels)).scatter_reduce(0, number, torch.arange(len(labels)), "amin")
    order = met.argsort()
    part = torch.empty_like(sizes)
    for group in order[sizes[order].argsort(descending=True, stable=True)].tolist():
        most = int((((due - held) / due.clamp_min(1e-9)) @ counts[group]).argmax())
        part[group] = most
        held[most] += counts[group]
    return part[number]


def distinct_of(split: Split, banned: set[bytes]) -> Tensor:
    """Positions of the first of each distinct input that is not banned."""
    first: dict[bytes, int] = {}
    for position, digest in enumerate(split.row_digests):
        first.setdefault(digest, position)
    kept = [position for digest, position in first.items() if digest not in banned]
    if not kept:
        raise BadData("every training input also stands in the test split: give a training set of its own")
    return torch.tensor(kept)
