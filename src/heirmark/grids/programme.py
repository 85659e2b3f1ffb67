"""What an audit consists of: the attacks of each profile, fitted to the model that is audited."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heirmark.attacks import EXTRACTIONS, INSPECTIONS, REMOVALS, SCREENINGS, Knockoff
from heirmark.attacks.base import Removal, Sizes, brief_retraining
from heirmark.attacks.composites import Kind
from heirmark.errors import BadConfig
from heirmark.grids.fitting import fitted, on_inputs, paper_attacks, quick_attacks, unfit
from heirmark.models import Architecture
from heirmark.profiles import QUICK as DEMO
from heirmark.querying.blackbox import AnswerKind, Api
from heirmark.suiting import NETS
from heirmark.training.fitting import Recipe
from heirmark.work.altering import Alteration
from heirmark.work.answering import ADVERSARY
from heirmark.work.stealing import Theft
from heirmark.work.trials import Probe, Trial

EXTRACTION = "Extraction"
REMOVAL = "Removal from the marked model"
CHAIN = "Removal after theft"

SHOWN: dict[AnswerKind, str] = {"probabilities": "probabilities", "top-k": "top k", "label": "labels"}
"""What a thief is shown, for people."""
QUICK_POOL = 20_000
"""Images of another data set that a thief asks about at most, where the profile is quick."""
GUESSES: dict[str, tuple[Kind, ...]] = {
    "tiles": ("tiles",),
    "mix": ("halves", "insets", "blend", "stripes"),
    "patch": ("patch",),
    "groups": ("tiles", "halves", "insets", "blend", "stripes"),
}
"""Composites that a thief makes who knows the method, by the public kind of its triggers: not which classes, which of the ways to
mix, which corner. An autoencoder's blend he guesses at by blending pixels. Triggers of other kinds are no composites."""


@dataclass(frozen=True, kw_only=True)
class Programme:
    """All that an audit does.

    Attributes:
        trials: extraction and removal attacks.
        probes: searches for the mark, and screens of queries.
        left_out: what is not tried and why, in sentences.
    """

    trials: tuple[Trial, ...]
    probes: tuple[Probe, ...]
    left_out: tuple[str, ...] = ()


def quick(
    model: Architecture,
    *,
    pool: str | None = None,
    trigger: str | None = None,
    sizes: Sizes | None = None,
    recipe: Recipe = DEMO.recipe,
) -> Programme:
    """Every attack with settings for minutes on a CPU and small images, each once or at a few strengths.

    Args:
        model: the victim's architecture, which its thieves take.
        pool: another data set, which a thief asks about and learns as another task.
        trigger: the kind of the method's triggers, as its key names it (``"tiles"``, ``"mix"`` ...), which is public: the thief
            who knows the method knows it, and no more of the key.
        sizes: what the adversary has; None leaves the settings as they are.
        recipe: by which the victim learned, and its thieves do.
    """
    # Of another kind than the victim, and so by an optimiser that suits nets with BatchNorm and without.
    other = Knockoff(
        model=_other(sizes, "vgg-like:width=16,dropout=0.1"), recipe=brief_retraining(DEMO.recipe, epochs=6)
    )
    programme = _programme(quick_attacks(recipe), model, pool, trigger, sizes, other=other, most=QUICK_POOL)
    return replace(
        programme,
        trials=tuple(trial for trial in programme.trials if not _takes_long(trial)),
        left_out=(*programme.left_out, *_left_out()),
    )


def full(
    model: Architecture,
    *,
    pool: str | None = None,
    trigger: str | None = None,
    sizes: Sizes | None = None,
    recipe: Recipe = DEMO.recipe,
) -> Programme:
    """Every attack with its paper's settings, whatever the recipe: hours, and a GPU where nets and images are not small.

    See :func:`quick`.
    """
    return _programme(paper_attacks(), model, pool, trigger, sizes, other=Knockoff(model=_other(sizes, "mobilenet-v2")))


PROFILES: dict[str, Callable[..., Programme]] = {"quick": quick, "full": full}
"""Programmes by name."""


def _other(sizes: Sizes | None, usual: str) -> str:
    """A thief's net of another kind than the victim's: the usual one for images, and one that takes other inputs."""
    found = None if sizes is None or sizes.space is None else NETS.get(len(sizes.space.shape))
    return usual if found is None else found[1]


def select(programme: Programme, only: list[str]) -> Programme:
    """The part of a programme whose groups or names hold one of some words, upper or lower case; all of it without any.

    Raises:
        BadConfig: when nothing is left, or a word is empty.
    """
    if not only:
        return programme
    if not all(word.strip() for word in only):
        raise BadConfig("an empty word is a part of every name: leave --only out to run all attacks")

    def wanted(text: str) -> bool:
        return any(word.lower() in text.lower() for word in only)

    left = replace(
        programme,
        trials=tuple(trial for trial in programme.trials if wanted(f"{trial.group}: {trial.name}")),
        probes=tuple(
            probe
            for probe in programme.probes
            if wanted(f"{'screening' if probe.screens else 'inspection'}: {probe.name}")
        ),
    )
    if not (left.trials or left.probes):
        names = [trial.name for trial in programme.trials if not trial.curve]
        names += [probe.name for probe in programme.probes]
        raise BadConfig(f"no attack is called {' or '.join(only)}: choose a part of one of {'; '.join(names)}")
    return left


def _takes_long(trial: Trial) -> bool:
    """Whether a trial has no place among those of ten minutes; see :func:`_left_out`."""
    last = trial.steps[-1].attack
    return bool(last.slow) or (trial.group == CHAIN and last.reteaches)


def _left_out() -> Iterator[str]:
    """What :func:`_takes_long` leaves out, in sentences."""
    reasons: dict[str, list[str]] = {}
    for kind in EXTRACTIONS.values():
        reasons.setdefault(kind.slow, []).append(kind.title)
    for why, titles in reasons.items():
        if why:
            yield f"Left out, since the profile is quick: {_listed(titles)}, {why}."
    names = [name for name, removal in REMOVALS.items() if removal.reteaches]
    yield f"Left out after theft, since the profile is quick: {_listed(names)}; they are tried on the marked model."


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _programme(
    attacks: Mapping[str, Any],
    model: Architecture,
    pool: str | None,
    trigger: str | None,
    sizes: Sizes | None,
    *,
    other: Knockoff,
    most: int | None = None,
) -> Programme:
    on_pool, told = _on_pool(attacks, pool, sizes, most)
    without: dict[str, str] = {}
    if sizes is not None:
        attacks, without = fitted(attacks, sizes), unfit(attacks, sizes)
    kinds = GUESSES.get(trigger or "", ())
    left_out = [f"Left out: {name}, since {why}." for name, why in without.items()]
    if trigger and not kinds:
        left_out.append(f"Left out: composites by one who knows the method, whose triggers ({trigger}) are none.")
    left_out += told
    thieves, foreign = (
        {name: replace(known[name], model=model) for name in EXTRACTIONS} for known in (attacks, on_pool)
    )
    stolen = Theft(attack=thieves["knockoff"])
    trials = (
        *_extractions(thieves, other, pool, foreign),
        *_removals(attacks, (), REMOVAL, pool, kinds, without),
        Trial(name="second extraction", group=CHAIN, steps=(stolen, stolen)),
        *_removals(attacks, (stolen,), CHAIN, None, kinds, without),
    )
    inspections = (
        Probe(name=attempt.name + (", in a stolen copy" if before else ""), attack=attempt.attack, stolen=before)
        for name in INSPECTIONS
        if name not in without
        for attempt in attacks[name].attempts()
        for before in ((), (stolen,))
    )
    trials, probes, untried = on_inputs(trials, (*inspections, *_screenings(attacks, kinds)), sizes)
    if untried:
        left_out.append(f"Left out: {_listed(untried)}, which do not work on such inputs.")
    return Programme(trials=trials, probes=probes, left_out=tuple(left_out))


def _screenings(attacks: Mapping[str, Any], kinds: tuple[Kind, ...]) -> Iterator[Probe]:
    for attack in (attacks[name] for name in SCREENINGS):
        for attempt in attack.attempts():
            yield Probe(name=attempt.name, attack=attempt.attack)
        if kinds and attack.informed:
            yield Probe(name=attack.informed.format(_informed(kinds)), attack=replace(attack, kinds=kinds))


def _informed(kinds: tuple[Kind, ...]) -> str:
    return f"by one who knows the method ({', '.join(kinds)})"


def _on_pool(
    attacks: Mapping[str, Any], pool: str | None, sizes: Sizes | None, most: int | None
) -> tuple[Mapping[str, Any], list[str]]:
    """Attacks as thieves make them who ask about a pool, and what is to be told of that."""
    if pool is None or sizes is None or sizes.pool is None:
        return attacks, []
    fits = fitted(attacks, sizes.on_pool())
    if most is None or sizes.pool <= most:
        return fits, []
    fits["knockoff"] = replace(fits["knockoff"], queries=most)
    fits["knockoff-adaptive"] = replace(fits["knockoff-adaptive"], queries=most // 2)
    return fits, [
        f"Of the {sizes.pool} images of {pool} a thief asks about {most} at most, since the profile is quick."
    ]


def _extractions(
    thieves: Mapping[str, Any], other: Knockoff, pool: str | None, foreign: Mapping[str, Any]
) -> Iterator[Trial]:
    knockoff = thieves["knockoff"]

    def trial(name: str, attack: Any, *, pool: str = ADVERSARY, **shown: Any) -> Trial:
        return Trial(name=name, group=EXTRACTION, steps=(Theft(attack=attack, api=Api(**shown), pool=pool),))

    yield trial("Knockoff, probabilities", knockoff)
    yield trial("Knockoff, top 3", knockoff, answers="top-k", k=3)
    yield trial("Knockoff, one decimal", knockoff, decimals=1)
    yield trial("Knockoff, 5 levels", knockoff, levels=5)
    yield trial("Knockoff, labels", knockoff, answers="label")
    yield trial(f"Knockoff by {str(other.model).partition(':')[0]}, labels", other, answers="label")
    if pool is not None:
        for attack in foreign.values():
            for answers in attack.shown_on_pool:
                yield trial(f"{attack.title} with {pool}, {SHOWN[answers]}", attack, answers=answers, pool=pool)
    for name, attack in thieves.items():
        if name != "knockoff":
            for answers in attack.shown:
                yield trial(f"{attack.title}, {SHOWN[answers]}", attack, answers=answers)


def _removals(
    attacks: Mapping[str, Any],
    before: tuple[Theft, ...],
    group: str,
    pool: str | None,
    kinds: tuple[Kind, ...],
    without: Mapping[str, str],
) -> Iterator[Trial]:
    def trial(name: str, attack: Removal, curve: tuple[str, float] | None = None, other: str | None = None) -> Trial:
        name += ", after theft" if before else ""  # no two rows of a grid have one name
        return Trial(name=name, group=group, steps=(*before, Alteration(attack=attack, pool=other)), curve=curve)

    tried = [attacks[name] for name in REMOVALS if name not in without]
    for attack in tried:
        yield from (trial(each.name, each.attack) for each in attack.attempts() if each.curve is None)
        if pool is not None and attack.title_with_other:
            yield trial(attack.title_with_other.format(pool), attack, other=pool)
        if kinds and attack.informed:
            yield trial(attack.informed.format(_informed(kinds)), replace(attack, kinds=kinds))
    for attack in tried:
        yield from (trial(each.name, each.attack, each.curve) for each in attack.attempts() if each.curve is not None)
