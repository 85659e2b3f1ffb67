"""What a mark is worth on the day it is made: whether its own model is found, and a copy could be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from heirmark.results.verdict import Verdict
from heirmark.verification.statistics import binomial_p, least_hits
from heirmark.work.judging import Judged


@dataclass(frozen=True, kw_only=True)
class Worth:
    """A marked model judged with its own key.

    Attributes:
        verdict: about the model itself.
        accuracy: of the model on the test split, in [0, 1].
        clean_accuracy: of the unmarked model that it started from; None where there is none.
        least: hits that a copy needs to be called MARKED by the first test; None when all would be too few.
        shortcoming: why the mark is of no use, and what to do; empty when it is of use.
    """

    verdict: Verdict
    accuracy: float
    clean_accuracy: float | None
    least: int | None
    shortcoming: str


def worth_of(judged: Judged, *, clean: Judged | None, examples: int, marked: bool = True) -> Worth:
    """Judge what was judged.

    Args:
        judged: the marked model, with its own key.
        clean: the unmarked model that it started from, with the same key.
        examples: in the test split.
        marked: whether a mark was embedded at all; of a control none has to be found.
    """
    verdict = judged.verdict
    least = least_hits(verdict.trials, verdict.null_rate, verdict.level) if verdict.trials else None
    return Worth(
        verdict=verdict,
        accuracy=judged.accuracy,
        clean_accuracy=None if clean is None else clean.accuracy,
        least=least,
        shortcoming=_unlearned(judged, examples) or (_unfound(verdict, least) if marked else ""),
    )


FIGURES: Mapping[str, Callable[[Worth], Any]] = {
    "accuracy": lambda worth: worth.accuracy,
    "clean_accuracy": lambda worth: worth.clean_accuracy,
    "verdict": lambda worth: worth.verdict.outcome,
    "hits": lambda worth: worth.verdict.hits,
    "trials": lambda worth: worth.verdict.trials,
    "wsr": lambda worth: worth.verdict.wsr,
    "p_value": lambda worth: worth.verdict.p_value,
    "null_rate": lambda worth: worth.verdict.null_rate,
    "least_hits": lambda worth: worth.least,
    "queries_needed": lambda worth: worth.verdict.needed,
    "flags": lambda worth: list(worth.verdict.flags),
    "shortcoming": lambda worth: worth.shortcoming,
}
"""What is told of a worth, by name."""


def facts_of(worth: Worth) -> dict[str, Any]:
    """The worth as JSON."""
    return {name: figure(worth) for name, figure in FIGURES.items()}


def in_words(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with what :func:`facts_of` says put for people."""
    clean, least, trials, needed = (
        facts[name] for name in ("clean_accuracy", "least_hits", "trials", "queries_needed")
    )
    said = {
        "accuracy": f"{facts['accuracy']:.1%}" + ("" if clean is None else f", {clean:.1%} without the mark"),
        "own key": f"{facts['verdict']}: {facts['hits']} of {trials} hits, WSR {facts['wsr']:.1%}",
        "null rate": f"{facts['null_rate']:.3g}, which unmarked models are taken not to exceed",
        "a copy needs": "more hits than the key has queries" if least is None else f"{least} of {trials} hits",
        "queries needed": "no key would do"
        if needed is None
        else f"{needed} to find the model itself with a chance of 90 %",
        "flags": ", ".join(facts["flags"]) or "none",
    }
    plain = {name: value for name, value in facts.items() if name not in FIGURES.keys() | said.keys()}
    seconds = plain.pop("seconds")
    return {**plain, **said, "seconds": seconds}


def has_learned(accuracy: float, chance: float, examples: int) -> bool:
    """Whether a model is right more often than its answers in random order would be, at 1 %.

    Args:
        accuracy: in [0, 1].
        chance: accuracy of these answers in random order.
        examples: on which both are measured.
    """
    return binomial_p(round(accuracy * examples), examples, min(1.0, chance)) < 0.01


def _unlearned(judged: Judged, examples: int) -> str:
    """Whether a model has learned nothing of its task: it is right no more often than its answers in random order, at 1 %."""
    chance = min(1.0, judged.ignorant_accuracy)
    if has_learned(judged.accuracy, chance, examples):
        return ""
    return (
        f"nothing shows that the model has learned its task (accuracy {judged.accuracy:.1%} on {examples} test examples, and "
        f"{chance:.1%} for the same answers in random order): train it longer, at another learning_rate, or give more examples"
    )


def _unfound(verdict: Verdict, least: int | None) -> str:
    if verdict.outcome == "INVALID":
        return (
            f"the model cannot be judged with its own key ({verdict.reason}): use another trigger, or train it longer"
        )
    if least is None:
        return (
            f"unmarked models hit this key so often (null rate {verdict.null_rate:.3g}) that all of {verdict.trials} hits prove "
            "nothing: let the target be chosen (trigger.target=none), take another trigger, or another seed"
        )
    if verdict.outcome != "MARKED" and verdict.hits >= least:
        return (
            f"the model hits {verdict.control_rate:.1%} without the trigger, too (p-value {verdict.p_matched:.2g} against the "
            "hosts): it has learned the hosts for the trigger, so take another trigger, other source classes, or train it longer"
        )
    if verdict.outcome != "MARKED":
        return (
            f"the model hits {verdict.hits} of its own key's {verdict.trials} queries, and is not found by them (p-value "
            f"{verdict.p_value:.2g}): train the mark longer or with more trigger samples, or take another trigger"
        )
    return ""
