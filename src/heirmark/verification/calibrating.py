"""Unmarked models are asked what a suspect will be: how often they hit a key, and whether they know anything of its task."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from heirmark.errors import BadData
from heirmark.keys.key import Key
from heirmark.querying.oracle import ModelFault
from heirmark.results.verdict import Calibration
from heirmark.runtime import Runtime
from heirmark.verification.questions import LEAST_QUERIES, misfit_of
from heirmark.verification.scrutiny import told_apart
from heirmark.verification.suspects import Suspect

_ONE_ANSWER = 0.9
"""Share of all hosts that get one answer above which a model tells nothing apart, where the hosts are of several classes."""
_ERRORS = 5
"""Hosts that two models get wrong in the same way, at least, to be taken for one."""


def calibrate(
    models: Iterable[Suspect | nn.Module],
    key: Key,
    *,
    note: str = "",
    copies: int = 0,
    examples: tuple[Tensor, Tensor] | None = None,
    runtime: Runtime | None = None,
) -> Calibration:
    """Count the hits of unmarked models on a key, to measure the null rate that :func:`verify` tests against.

    Queries that are an earlier one with a little noise are left out, as they are when a suspect is asked.

    Args:
        models: unmarked models, five independent ones or more, trained as variously as suspects may be. None may be the
            model that chose the key's target or filtered its queries, else the rate comes out too low. One that gives the same
            answers as an earlier one, errors among them, is taken for a copy of it.
        key: the key.
        note: where the models come from, in words.
        copies: how many of them were stolen from others among them; they widen the range, and are not independent.
        examples: ordinary images and their labels, ``[N, ...]`` and ``[N]``, on which the models' accuracy is measured.
        runtime: where modules compute; a :class:`Suspect` knows that itself.

    Returns:
        The calibration, good for this key only.

    Raises:
        BadData: if there is no model, one cannot be judged, or the key is too small.
    """
    commitment, key = key.commitment, told_apart(key)
    if len(key) < LEAST_QUERIES:
        raise BadData(
            f"the key has {len(key)} queries, and at least {LEAST_QUERIES} are needed to judge anything: draw a larger one"
        )
    hits, known, accuracies, families = [], [], [], []
    said: list[tuple[Tensor, Tensor]] = []
    hosted = bool((key.host_labels >= 0).any())
    for index, model in enumerate(models):
        suspect = (
            model if isinstance(model, Suspect) else Suspect.from_module(model, classes=key.classes, runtime=runtime)
        )
        if (misfit := misfit_of(suspect, key)) is not None:
            raise BadData(f"unmarked model {index} does not fit the key ({misfit[1]}): leave it out")
        try:
            answers = suspect.labels(key.queries)
            hits.append(int((answers == key.expected).sum()))
            if hosted:  # else the controls would tell nothing
                plain = suspect.labels(key.controls)
                known.append(0.0 if tells_nothing_apart(plain, key) else share_known(plain, key) or 0.0)
                said.append((answers, plain))
            if examples is not None:
                accuracies.append(float((suspect.labels(examples[0]) == examples[1]).double().mean()))
            families.append(suspect.family)
        except ModelFault as fault:
            raise BadData(f"unmarked model {index} cannot be judged ({fault}): leave it out") from fault
    if not hits:
        raise BadData("no unmarked model was given: train some, or verify without a calibration")
    return Calibration(
        hits=tuple(hits),
        trials=len(key),
        key=commitment,
        note=note,
        copies=max(copies, _twins(said, key)),
        known=tuple(known),
        accuracies=tuple(accuracies),
        families=tuple(families) if any(families) else (),
    ).just_made()


def share_known(answers: Tensor, key: Key, rows: Tensor | None = None) -> float | None:
    """Share of the controls with hosts that get a class of one of them; None where none has hosts.

    Args:
        answers: ``[M]`` labels of the controls; -1 is a class that has no name here, and so none of the hosts'.
        key: whose they are.
        rows: those that were asked; None means all.
    """
    known, hosted = _known(answers, key), (key.host_labels >= 0).any(1)
    if rows is not None:
        known, hosted = known[rows], hosted[rows]
    return float(known[hosted].double().mean()) if bool(hosted.any()) else None


def _known(answers: Tensor, key: Key) -> Tensor:
    return ((answers[:, None] == key.host_labels) & (key.host_labels >= 0)).any(1)


def tells_nothing_apart(answers: Tensor, key: Key) -> bool:
    """Whether nearly all controls with hosts get one answer ``[M]``, though these are of several classes.

    Where queries have one host each, most of which are of one class, that may be the right answer.
    """
    hosted = (key.host_labels >= 0).any(1)
    if not bool(hosted.any()):
        return False
    most = float(answers[hosted].bincount(minlength=1).max()) / int(hosted.sum()) if int(answers.min()) >= 0 else 0.0
    classes = key.host_labels[key.host_labels >= 0].bincount()
    commonest = float(classes.max()) / int(classes.sum())
    return most > _ONE_ANSWER and commonest < _ONE_ANSWER * most


def _twins(said: list[tuple[Tensor, Tensor]], key: Key) -> int:
    """How many models give just the answers of an earlier one, errors about hosts among them."""
    twins = 0
    for place, (answers, plain) in enumerate(said):
        errors = int((~_known(plain, key) & (key.host_labels >= 0).any(1)).sum())
        alike = any(torch.equal(answers, other) and torch.equal(plain, theirs) for other, theirs in said[:place])
        twins += alike and errors >= _ERRORS
    return twins
