"""The verifier: one rule for every method. It asks a suspect a key's queries and says what follows.

Two exact tests, and the claim MARKED is made only if both reject: an intersection-union test, whose p-value is the
larger of the two (Berger 1982). The first compares hits with the rate that unmarked models reach; the second compares
each query with its host shown without the trigger. ``docs/verdicts.md`` says what a verdict proves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from heirmark.keys.key import Key
from heirmark.results.grades import LEAST_GRADE, Grade, as_grade
from heirmark.results.verdict import Calibration, Verdict
from heirmark.verification.calibrating import share_known
from heirmark.verification.null import CONFIDENCE, DISPUTED_HOSTS, grade_of, hosts_are_disputed, null_of, shortfall
from heirmark.verification.power import queries_needed
from heirmark.verification.questions import (
    FAILINGS,
    LEAST_QUERIES,
    check_terms,
    failing_of,
    meter,
    misfit_of,
    order_seed,
    shuffled_labels,
)
from heirmark.verification.scrutiny import CHOSEN_LABELS, FOREIGN_CONTROLS, NO_HOSTS, doubts_of, told_apart
from heirmark.verification.statistics import binomial_p, clopper_pearson, mcnemar_p
from heirmark.verification.suspects import Suspect

_FEW_QUERIES = 100
_FEW_MODELS = 5
_KNOWN = 0.9
"""Of the share of hosts that the worst unmarked model knows, what a suspect should know at least."""
_FAIR = 0.5
"""Share of the hosts that a suspect should know where no unmarked model was asked."""


def verify(
    suspect: Suspect,
    key: Key,
    *,
    calibration: Calibration | None = None,
    level: float = 0.01,
    accuracy: float | None = None,
    calibrated_by: str | None = None,
    accept: Grade = LEAST_GRADE,
) -> Verdict:
    """Ask a suspect every query of a key and its control, once each, and judge the answers.

    Triggers and controls are mixed in an order that only the key's holder can work out, so a suspect cannot tell them
    apart by their place.

    Args:
        suspect: whom to ask.
        key: drawn by a method when it marked the owner's model.
        calibration: how often unmarked models hit this key, from :func:`calibrate`. Without it they are assumed to hit
            at chance, 1/C, or half of the queries where these have no hosts, and the verdict says so.
        level: chance of a wrong MARKED that is tolerated, in (0, 0.5].
        accuracy: of the suspect on its task, 0 to 1, if it is known: unmarked models that are far less accurate then have no say
            in the null, see :func:`heirmark.verification.null.null_of`. It may not come from the key's queries.
        calibrated_by: who measured the calibration, if that is established and somebody else than who claims. What
            :func:`calibrate` measured in this process needs no name; what was read from a file is ``self-reported`` without.
        accept: the least grade by which the claim is made, of :data:`heirmark.results.grades.GRADES`.

    Returns:
        The verdict. A suspect that fails, answers nonsense or does not fit the key gets INVALID, not an exception.

    Raises:
        BadConfig: if ``level`` or ``accuracy`` is out of range.
        BadArtifact: if the calibration is of another key.
        BudgetExhausted: if the suspect is a black box with fewer than 2 M queries left; none is asked then.
    """
    as_grade(accept)
    commitment, whole = key.commitment, len(key)
    key = told_apart(key)
    check_terms(key, commitment, calibration, level, accuracy)
    if (misfit := misfit_of(suspect, key)) is not None:
        flag, reason = misfit
        flags = (flag, "near-repeats") if len(key) < whole else (flag,)
        return Verdict(outcome="INVALID", reason=reason, level=level, queries=0, flags=flags, key=commitment)
    shown = meter(suspect)
    try:
        # Triggers and controls come in one stream.
        triggers, controls = shuffled_labels(
            suspect, torch.cat([key.queries, key.controls]), seed=order_seed(key)
        ).chunk(2)
    except FAILINGS as fault:
        flag, reason = failing_of(fault)
        return Verdict(
            outcome="INVALID", reason=reason, level=level, queries=shown(2 * len(key)), flags=(flag,), key=commitment
        )
    seen = {
        "relabelled": suspect.order is not None,
        "normalised": suspect.normalise is not None,
        "near-repeats": len(key) < whole,
    }
    return _judge(
        triggers,
        controls,
        key,
        commitment,
        calibration,
        calibrated_by,
        level,
        accuracy,
        shown(2 * len(key)),
        seen,
        accept,
    )


def _answers_otherwise(triggers: Tensor, controls: Tensor, key: Key, level: float) -> bool:
    """Whether the suspect would be called MARKED, by half of the triggers and the matched test, if its classes had other names.

    Those names are looked for that make the most hits, and the test is corrected for all there are to choose from. It can be no
    more than a hint: how often unmarked models give *these* answers was never measured.
    """
    expected, rows = torch.unique(key.expected, return_inverse=True)
    said, plain = triggers + 1, controls + 1  # -1 is a class that was given no name
    table = torch.zeros(len(expected), key.classes + 1)
    table.index_put_((rows, said), torch.ones(len(key)), accumulate=True)
    table[:, 0] = 0
    table[torch.arange(len(expected)), expected + 1] = 0  # that is what the verdict itself looks at
    chosen = torch.from_numpy(linear_sum_assignment(table.numpy(), maximize=True)[1])
    hit = said == chosen[rows]
    p_value = mcnemar_p(*_discordant(hit, plain == chosen[rows], key.independent_pairs()))
    # Logarithms: with many classes there are more ways to name them than a float can hold.
    ways = math.lgamma(key.classes + 1) - math.lgamma(key.classes - len(expected) + 1)
    return 2 * int(hit.sum()) > len(key) and (p_value == 0 or math.log(p_value) + ways < math.log(level))


def _discordant(hit: Tensor, control_hit: Tensor, pairs: Tensor) -> tuple[int, int]:
    """How many pairs hit with the trigger only, and without it only."""
    return int((hit & ~control_hit)[pairs].sum()), int((control_hit & ~hit)[pairs].sum())


def _judge(
    triggers: Tensor,
    controls: Tensor,
    key: Key,
    commitment: str,
    calibration: Calibration | None,
    calibrated_by: str | None,
    level: float,
    accuracy: float | None,
    queries: int,
    seen: Mapping[str, bool],
    accept: Grade,
) -> Verdict:
    trials = len(key)
    hit, control_hit = triggers == key.expected, controls == key.expected
    hits, control_rate = int(hit.sum()), float(control_hit.double().mean())
    doubts, known = doubts_of(key), share_known(controls, key)
    null = null_of(key, calibration, accuracy, known=known, doubts=doubts)
    grade, rate = grade_of(calibration, calibrated_by, null.models), null.rate
    pairs = key.independent_pairs()
    discordant = _discordant(hit, control_hit, pairs)
    p_binomial, p_matched = binomial_p(hits, trials, rate), mcnemar_p(*discordant)
    p_value = max(p_binomial, p_matched)
    constant = bool((torch.cat([triggers, controls]) == triggers[0]).all())
    least_known = _KNOWN * min(calibration.known) if calibration is not None and calibration.known else _FAIR
    misread = known is not None and known < least_known
    degenerate = constant and _is_degenerate(int(triggers[0]), key)
    raised = {
        "uncalibrated": calibration is None,
        "few-calibration-models": calibration is not None and calibration.independent < _FEW_MODELS,
        "high-null-rate": rate > 0.5,
        "ignorant-calibrators": null.ignorant > 0,
        "untested-calibrators": calibration is not None and not calibration.known and not calibration.accuracies,
        "one-family": calibration is not None and calibration.one_family,
        **{doubt: doubt in doubts for doubt in (NO_HOSTS, FOREIGN_CONTROLS, CHOSEN_LABELS)},
        DISPUTED_HOSTS: hosts_are_disputed(calibration),
        "small-key": trials < _FEW_QUERIES,
        "repeated-controls": len(pairs) < trials,
        "memorised-key": key.memorised,
        "controls-also-hit": control_rate > 0.2,
        "hosts-misread": misread,
        # Many an unmarked model gives most triggers one class; but with another order of labels it knows no hosts either.
        "another-answer": (misread or known is None) and _answers_otherwise(triggers, controls, key, level),
        **seen,
        "suspect-inaccurate": accuracy is not None and accuracy < 0.5,
        "constant-answers": constant,
    }
    why_not = shortfall(null, grade, accept) if p_value < level else ""
    claimed = p_value < level and not why_not
    return Verdict(
        outcome="INVALID" if degenerate else "MARKED" if claimed else "NOT_ESTABLISHED",
        reason="the suspect answers everything alike, so its hits mean nothing" if degenerate else why_not,
        wsr=hits / trials,
        hits=hits,
        trials=trials,
        interval=clopper_pearson(hits, trials, CONFIDENCE),
        control_rate=control_rate,
        discordant=discordant,
        p_value=p_value,
        p_binomial=p_binomial,
        p_matched=p_matched,
        null_rate=rate,
        null=null.words,
        grade=grade,
        accepts=accept,
        models=null.models,
        level=level,
        needed=None if degenerate else queries_needed(hits / trials, control_rate, rate, level, least=LEAST_QUERIES),
        queries=queries,
        flags=tuple(flag for flag, is_raised in raised.items() if is_raised),
        key=commitment,
    )


def _is_degenerate(answer: int, key: Key) -> bool:
    """Whether one answer to everything means a broken model.

    It does when that answer is a hit, or when the hosts are of several classes. With hosts of one class a sound model
    that never saw the mark may well say that class every time, and is not to be called broken for it.
    """
    hosts = set(key.host_labels.flatten().tolist()) - {-1}
    return answer in set(key.expected.tolist()) or len(hosts) > 1
