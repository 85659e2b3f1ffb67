"""What an audit consists of: the attacks of each profile, fitted to the model that is audited."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from heirmark.attacks import (
    DFME,
    EXTRACTIONS,
    MAZE,
    AdaptiveUnlearning,
    DistillTo,
    Knockoff,
    MislabelledMixes,
    Overwriting,
    Preprocessing,
    Removal,
    Transfer,
)
from heirmark.attacks.composites import Kind
from heirmark.errors import BadConfig
from heirmark.models import Architecture
from heirmark.pipeline.altering import Alteration
from heirmark.pipeline.audit_attacks import PAPER_ATTACKS, Sizes, fitted, quick_attacks, unfit
from heirmark.pipeline.profiles import QUICK as DEMO
from heirmark.pipeline.stealing import Theft
from heirmark.pipeline.trials import Probe, Trial
from heirmark.training import Recipe

EXTRACTION = "Extraction"
REMOVAL = "Removal from the marked model"
CHAIN = "Removal after theft"

RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of pruning, from 10 to 90 % as in MEA-Defender's Fig. 7; the steps between are inferred."""
BITS = (16, 8, 6, 4, 3, 2, 1)
"""Of weights, as in DeepTracer's Table 3; of T2S' Figs. 5 and 6 the text names 8 and 4."""
MILD_FRONTS: tuple[Literal["flip", "bits", "gaussian-blur", "downscale"], ...] = (
    "flip",
    "bits",
    "gaussian-blur",
    "downscale",
)
"""Transformations of queries that are tried at a mild strength."""
DEVIATIONS = (0.02, 0.05, 0.1, 0.2, 0.3)
"""Of noise on the inputs, whose pixels lie in [0, 1]."""
RETEACHING = (AdaptiveUnlearning, DistillTo, MislabelledMixes, Overwriting, Transfer)
LEFT_OUT_OF_QUICK = (
    "Left out, since the profile is quick: DFME and MAZE, whose copies know nothing yet after the queries of some minutes.",
    "Left out after theft, since the profile is quick: distillation, transfer, mislabelled mixes, overwriting and unlearning; "
    "they are tried on the marked model.",
)
QUICK_POOL = 20_000
"""Images of another data set that a thief asks about at most, where the profile is quick."""
GUESSES: dict[str, tuple[Kind, ...]] = {
    "tiles": ("tiles",),
    "mix": ("halves", "insets", "blend", "stripes"),
    "patch": ("patch",),
}
"""Composites that a thief makes who knows the method, by the public kind of its triggers: not which classes, which of the ways to
mix, which corner. An autoencoder's blend he guesses at by blending pixels. Triggers of other kinds are no composites."""


@dataclass(frozen=True, kw_only=True)
class Programme:
    """All that an audit does.

    Attributes:
        trials: extraction and removal attacks.
        inspections: searches for the mark.
        screenings: screens of queries.
        left_out: what is not tried and why, in sentences.
    """

    trials: tuple[Trial, ...]
    inspections: tuple[Probe, ...]
    screenings: tuple[Probe, ...]
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
        model="vgg-like:width=16,dropout=0.1", recipe=replace(quick_attacks()["distil-to"].recipe, epochs=6)
    )
    programme = _programme(quick_attacks(recipe), model, pool, trigger, sizes, other=other, most=QUICK_POOL)
    return replace(
        programme,
        trials=tuple(trial for trial in programme.trials if not _takes_long(trial)),
        left_out=(*programme.left_out, *LEFT_OUT_OF_QUICK),
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
    return _programme(PAPER_ATTACKS, model, pool, trigger, sizes, other=Knockoff(model="mobilenet-v2"))


PROFILES: dict[str, Callable[..., Programme]] = {"quick": quick, "full": full}
"""Programmes by name."""


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

    left = Programme(
        trials=tuple(trial for trial in programme.trials if wanted(f"{trial.group}: {trial.name}")),
        inspections=tuple(probe for probe in programme.inspections if wanted(f"inspection: {probe.name}")),
        screenings=tuple(probe for probe in programme.screenings if wanted(f"screening: {probe.name}")),
        left_out=programme.left_out,
    )
    if not (left.trials or left.inspections or left.screenings):
        names = [trial.name for trial in programme.trials if not trial.curve]
        names += [probe.name for probe in (*programme.inspections, *programme.screenings)]
        raise BadConfig(f"no attack is called {' or '.join(only)}: choose a part of one of {'; '.join(names)}")
    return left


def _takes_long(trial: Trial) -> bool:
    """Whether a trial has no place among those of ten minutes; see :data:`LEFT_OUT_OF_QUICK`."""
    last = trial.steps[-1].attack
    return isinstance(last, DFME | MAZE) or (trial.group == CHAIN and isinstance(last, RETEACHING))


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
        attacks, without = fitted(attacks, sizes), unfit(sizes)
    kinds = GUESSES.get(trigger or "", ())
    left_out = [f"Left out: {name}, since {why}." for name, why in without.items()]
    if trigger and not kinds:
        left_out.append(f"Left out: composites by one who knows the method, whose triggers ({trigger}) are none.")
    left_out += told
    thieves, foreign = (
        {name: replace(known[name], model=model) for name in EXTRACTIONS} for known in (attacks, on_pool)
    )
    stolen = Theft(attack=thieves["knockoff"])
    return Programme(
        trials=(
            *_extractions(thieves, other, pool, foreign),
            *_removals(attacks, (), REMOVAL, pool, kinds, without),
            Trial(name="second extraction", group=CHAIN, steps=(stolen, stolen)),
            *_removals(attacks, (stolen,), CHAIN, None, kinds, without),
        ),
        inspections=tuple(
            Probe(name=words, attack=attacks[name], stolen=(stolen,))
            for name, words in (("neural-cleanse", "Neural Cleanse"), ("abs", "ABS"), ("mix-probing", "mix probing"))
            if name not in without
        ),
        screenings=tuple(_screenings(attacks, kinds)),
        left_out=tuple(left_out),
    )


def _screenings(attacks: Mapping[str, Any], kinds: tuple[Kind, ...]) -> Iterator[Probe]:
    for on in ("inputs", "features"):
        yield Probe(name=f"local outlier factor on {on}", attack=replace(attacks["lof"], on=on))
    yield Probe(name="composites of every kind", attack=attacks["composites"])
    if kinds:
        yield Probe(name=f"composites, {_informed(kinds)}", attack=replace(attacks["composites"], kinds=kinds))


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

    def trial(name: str, attack: Any, **answers: Any) -> Trial:
        return Trial(name=name, group=EXTRACTION, steps=(Theft(attack=attack, **answers),))

    yield trial("Knockoff, probabilities", knockoff)
    yield trial("Knockoff, top 3", knockoff, answers="top-k", k=3)
    yield trial("Knockoff, one decimal", knockoff, decimals=1)
    yield trial("Knockoff, 5 levels", knockoff, levels=5)
    yield trial("Knockoff, labels", knockoff, answers="label")
    yield trial(f"Knockoff by {str(other.model).partition(':')[0]}, labels", other, answers="label")
    if pool is not None:
        for answers, short in (("probabilities", "probabilities"), ("label", "labels")):
            yield trial(f"Knockoff with {pool}, {short}", foreign["knockoff"], answers=answers, pool=pool)
        yield trial(f"adaptive Knockoff with {pool}, probabilities", foreign["knockoff-adaptive"], pool=pool)
        yield trial(f"ActiveThief with {pool}, labels", foreign["active-thief"], answers="label", pool=pool)
    yield trial("adaptive Knockoff, probabilities", thieves["knockoff-adaptive"])
    yield trial("distillation, probabilities", thieves["distillation"])
    yield trial("ActiveThief, labels", thieves["active-thief"], answers="label")
    for name, words in (("jbda", "JBDA"), ("dfme", "DFME"), ("maze", "MAZE")):
        yield trial(f"{words}, probabilities", thieves[name])
        yield trial(f"{words}, labels", thieves[name], answers="label")


def _removals(
    attacks: Mapping[str, Any],
    before: tuple[Theft, ...],
    group: str,
    pool: str | None,
    kinds: tuple[Kind, ...],
    without: Mapping[str, str],
) -> Iterator[Trial]:
    def trial(name: str, attack: Removal, curve: tuple[str, float] | None = None, other: str | None = None) -> Trial:
        return Trial(name=name, group=group, steps=(*before, Alteration(attack=attack, pool=other)), curve=curve)

    tuning = attacks["fine-tuning"]
    for kind, words in (
        ("ftal", "fine-tuning, all layers"),
        ("ftll", "fine-tuning, last layer"),
        ("rtal", "fresh last layer, all layers tuned"),
        ("rtll", "fresh last layer"),
    ):
        yield trial(words, replace(tuning, kind=kind))
    yield trial("fine-pruning", attacks["fine-pruning"])
    yield trial("int8 by ONNX Runtime", attacks["int8"])
    yield trial("distilled, with labels", attacks["distil-to"])
    yield trial("transfer there and back", attacks["transfer"])
    if pool is not None:
        yield trial(f"transfer to {pool} and back", attacks["transfer"], other=pool)
    if "mislabelled-mixes" not in without:
        yield trial("mislabelled mixes", attacks["mislabelled-mixes"])
    yield trial("overwriting", attacks["overwriting"])
    yield trial("unlearning of composites of every kind", attacks["adaptive"])
    if kinds:
        yield trial(f"unlearning {_informed(kinds)}", replace(attacks["adaptive"], kinds=kinds))
    for front in MILD_FRONTS:
        yield trial(f"queries through {front}", Preprocessing(kind=front))
    for rate in RATES:
        yield trial(f"pruning of {rate:.0%}", replace(attacks["pruning"], rate=rate), ("pruning rate", rate))
    for bits in BITS:
        yield trial(f"weights of {bits} bits", replace(attacks["quantisation"], bits=bits), ("bits a weight", bits))
    for deviation in DEVIATIONS:
        attack = Preprocessing(kind="noise", strength=deviation)
        yield trial(f"queries with noise {deviation:g}", attack, ("noise on queries", deviation))
