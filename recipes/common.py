"""What the recipes share: profiles by scale, thieves, and how a table becomes blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from heirmark.attacks import DFME, JBDA, Knockoff, Pruning, Quantisation
from heirmark.attacks.removal.pruning import RATES
from heirmark.attacks.removal.quantisation import BITS
from heirmark.data import data_root
from heirmark.grids import Block, Grid, Marking, Published, Workload
from heirmark.grids.fitting import quick_attacks
from heirmark.methods import EWE, Method, Unmarked
from heirmark.models import Architecture
from heirmark.profiles import QUICK, Profile
from heirmark.querying.blackbox import Api
from heirmark.tasks.task import Protocol
from heirmark.training.fitting import Recipe
from heirmark.triggers import AnyTrigger, Entangled, OutOfDistribution
from heirmark.work.altering import Alteration
from heirmark.work.answering import ADVERSARY
from heirmark.work.stealing import Theft
from heirmark.work.trials import Trial

NOTE = (
    "cpu scale: 9,000 images of Fashion-MNIST for the owner and as many others for the thief, a NaiveNet with BatchNorm, the "
    "demo's settings; JBDA asks 4,800 queries and DFME 100,000, Knockoff 9,000. The papers' figures stand beside, not as a goal: "
    "data, nets, epochs and queries are others."
)
DEFAULTS = (
    "paper scale: nets, epochs and settings of methods and attacks are their papers', as far as they tell; data are cut into "
    "disjoint parts for owner, thief, keys and measurement, so an owner has fewer images, and a thief fewer to ask about."
)
OWNERS = (
    "Knockoff asks about the very images that its victim learned from, as in the paper: about every image of the owner's part, "
    "which is 45 % of the training images."
)
"""For papers whose thieves do so, besides :data:`DEFAULTS`."""


def noted(*texts: str) -> str:
    """A grid's note: the texts that are not empty, one after the other."""
    return " ".join(filter(None, texts))


BERT = "bert-base-uncased"
"""Folder in the data root with config.json, model.safetensors and tokenizer.json, for the papers' scale on texts."""


def pretrained() -> tuple[str, str]:
    """BERT as ``--model`` has it, and the option by which data have its tokenizer."""
    place = data_root() / BERT
    return f"transformer:{place}", f"tokenizer={place}"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a scale stands for, on one data set.

    Attributes:
        data: name of the data set.
        model: architecture of victims and, unless said otherwise, of thieves.
        recipe: of unmarked models.
        calibration_models: architectures of the models that calibrate, in turn.
        calibration_recipe: how these are trained.
        knockoff, jbda, dfme: thieves.
        pool: what Knockoff asks about unless said otherwise: the adversary's images, or ``"owner"`` for those the victim learned
            from, as some papers have it.
        protocol: ``"paper"`` where the owner has nearly all training images, and thieves the same ones.
    """

    data: str
    model: Architecture
    recipe: Recipe
    calibration_models: tuple[Architecture, ...]
    calibration_recipe: Recipe
    knockoff: Knockoff
    jbda: JBDA
    dfme: DFME
    pool: str = ADVERSARY
    protocol: Protocol = "disjoint"


def quick(profile: Profile = QUICK) -> Bench:
    """Minutes a cell on two cores."""
    attacks = quick_attacks(profile.recipe)
    return Bench(
        data=profile.data,
        model=profile.model,
        recipe=profile.recipe,
        calibration_models=profile.calibration_models or (profile.model,),
        calibration_recipe=profile.calibration_recipe,
        knockoff=profile.knockoff(),
        jbda=replace(attacks["jbda"], model=profile.model),
        dfme=replace(attacks["dfme"], model=profile.model),
    )


def paper(
    data: str, model: Architecture, recipe: Recipe, pool: str = ADVERSARY, protocol: Protocol = "disjoint"
) -> Bench:
    """The papers' thieves, with the victim's architecture and as many queries as there are images in the pool."""
    return Bench(
        data=data,
        model=model,
        recipe=recipe,
        calibration_models=(model,),
        calibration_recipe=recipe,
        knockoff=Knockoff(model=model),
        jbda=JBDA(model=model),
        dfme=DFME(model=model),
        pool=pool,
        protocol=protocol,
    )


def block(
    name: str,
    bench: Bench,
    markings: Mapping[str, Method] | Sequence[Marking],
    trials: Sequence[Trial] = (),
    *,
    pools: tuple[str, ...] = (),
    foreign: str | None = None,
    trigger: AnyTrigger | None = None,
    calibrators: int = 5,
    pictures: tuple[str, ...] = (),
) -> Block:
    """A block of a grid with the bench's control and calibrators.

    Args:
        name: of the block.
        bench: nets, data and thieves.
        markings: methods by name, or ready.
        trials: attacks.
        pools: other data that thieves ask about.
        foreign: other data that owners have.
        trigger: of the control's own key, which judges nothing; it must suit the data.
        calibrators: how many unmarked models calibrate, copies of these aside; with fewer than five, verdicts are flagged.
        pictures: that the report shows besides.
    """
    if isinstance(markings, Mapping):
        markings = [Marking(name=label, method=method) for label, method in markings.items()]
    unmarked = Unmarked(model=bench.model, pretraining=bench.recipe, key_size=100)
    if trigger is not None:
        unmarked = replace(unmarked, trigger=trigger)
    return Block(
        name=name,
        workload=Workload(
            data=bench.data,
            pools=tuple(dict.fromkeys((*(() if bench.pool == ADVERSARY else (bench.pool,)), *pools))),
            foreign=foreign,
            protocol=bench.protocol,
        ),
        markings=tuple(markings),
        trials=tuple(trials),
        unmarked=unmarked,
        pictures=pictures,
        calibrators=tuple(
            replace(
                unmarked,
                model=bench.calibration_models[index % len(bench.calibration_models)],
                pretraining=bench.calibration_recipe,
            )
            for index in range(calibrators)
        ),
    )


def thefts(bench: Bench, *names: str) -> list[Trial]:
    """Thieves by name, each on probabilities and on labels; ``"knockoff with NAME"`` asks another data set."""
    words = {"knockoff": "Knockoff", "jbda": "JBDA", "dfme": "DFME"}
    trials = []
    for name in names:
        kind, _, pool = name.partition(" with ")
        theft = stolen(bench, pool) if kind == "knockoff" else Theft(attack=getattr(bench, kind))
        called = f"{words[kind]} with {pool}" if pool else words[kind]
        for answers, short in (("probabilities", "soft"), ("label", "label")):
            step = replace(theft, api=Api(answers=answers))  # type: ignore[arg-type]
            trials.append(Trial(name=f"{called}, {short}", group="Extraction", steps=(step,)))
    return trials


def stolen(bench: Bench, pool: str = "") -> Theft:
    """Knockoff, as it is before a removal too.

    Args:
        bench: with the thief.
        pool: another data set that he asks about: no more of it than of his own images at the small scale, and else all.
    """
    if not pool:
        return Theft(attack=bench.knockoff, pool=bench.pool)
    return Theft(attack=replace(bench.knockoff, queries=9000 if bench.data == QUICK.data else None), pool=pool)


def compressions(*before: Theft) -> list[Trial]:
    """The curves of pruning and quantisation, on the model or on what a theft left."""
    group = "After theft" if before else "On the model"
    return [
        *(
            Trial(
                name=f"pruning of {rate:.0%}",
                group=group,
                steps=(*before, Alteration(attack=Pruning(rate=rate))),
                curve=("pruning rate", rate),
            )
            for rate in RATES
        ),
        *(
            Trial(
                name=f"weights of {bits} bits",
                group=group,
                steps=(*before, Alteration(attack=Quantisation(bits=bits))),
                curve=("bits a weight", float(bits)),
            )
            for bits in BITS
        ),
    ]


def ewe_on_photographs(model: Architecture) -> EWE:
    """EWE as its code has it for CIFAR-10, made of the nines of SVHN; on ResNet-18, which its code has, at its code's layers."""
    usual, of = EWE(), OutOfDistribution(source=9)
    layers = ("features.9", "features.10", "features.13") if model == "resnet18" else ()
    return replace(
        usual,
        model=model,
        trigger=Entangled(of=of, layers=layers),
        pretraining=replace(usual.pretraining, epochs=50),
        # One batch in five, six times four epochs.
        training=replace(
            usual.training, recipe=replace(usual.training.recipe, epochs=24), extras={"watermark": 16, "target": 16}
        ),
        factors=(1e5, 1e5, 1e5),
        layers=layers,
    )


def printed(
    source: str, rows: Mapping[str, Mapping[str, tuple[float | None, float | None]]], block: str = ""
) -> tuple[Published, ...]:
    """Figures of a paper in percent, (ACC, WSR) by marking and trial, of one block or of every one that has the cell."""
    return tuple(
        Published(
            source=source,
            block=block,
            marking=marking,
            trial=trial,
            accuracy=None if accuracy is None else round(accuracy / 100, 6),
            wsr=None if wsr is None else round(wsr / 100, 6),
        )
        for marking, cells in rows.items()
        for trial, (accuracy, wsr) in cells.items()
    )


__all__ = [
    "BERT",
    "DEFAULTS",
    "NOTE",
    "OWNERS",
    "QUICK",
    "Bench",
    "Grid",
    "block",
    "compressions",
    "ewe_on_photographs",
    "paper",
    "pretrained",
    "printed",
    "quick",
    "stolen",
    "thefts",
]
