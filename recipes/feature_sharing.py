"""Tables and figures of Feature Sharing (ICLR 2022 submission XHxRBwjpEQ)."""

from __future__ import annotations

from dataclasses import replace

from common import DEFAULTS, QUICK, Bench, Grid, block, compressions, paper, printed, quick, stolen, thefts
from heirmark.attacks import FinePruning
from heirmark.bench import Marking
from heirmark.bench.recipes import Scale
from heirmark.methods import EWE, AnyMethod, FeatureSharing, Vanilla
from heirmark.pipeline.altering import Alteration
from heirmark.pipeline.audit_attacks import quick_attacks
from heirmark.pipeline.profiles import Profile
from heirmark.pipeline.trials import Trial
from heirmark.triggers import Entangled, OutOfDistribution, Patch

NOTE = (
    "cpu scale: MNIST, nearly half of its training images for the owner and as many for the thief, a NaiveNet without BatchNorm "
    "by Adam, 4 epochs. WSR is of held-out triggers; the paper's is of its own watermark samples."
)
RECIPE = replace(QUICK.recipe, epochs=4, optimizer="adam", nesterov=False, learning_rate=1e-3, weight_decay=0.0)
MNIST: Profile = replace(
    QUICK,
    data="mnist",
    model="naivenet",
    recipe=RECIPE,
    calibration_recipe=RECIPE,
    calibration_models=tuple(f"naivenet:width={width}" for width in (32, 16, 48, 24)),
)


def _bench(scale: Scale) -> Bench:
    return quick(MNIST) if scale == "cpu" else paper("mnist", "naivenet", FeatureSharing().pretraining)


def _methods(scale: Scale, trigger: Patch | OutOfDistribution) -> dict[str, AnyMethod]:
    if scale == "cpu":
        sharing = replace(MNIST.feature_sharing(), trigger=trigger)
        baseline = replace(MNIST.vanilla(), trigger=trigger)
    else:
        sharing = FeatureSharing(trigger=trigger)
        baseline = Vanilla(model=sharing.model, trigger=trigger, pretraining=sharing.pretraining)
    return {
        "baseline": baseline,
        "ewe": replace(MNIST.ewe() if scale == "cpu" else EWE(), model=sharing.model, trigger=Entangled(of=trigger)),
        "feature-sharing": sharing,
        "feature-sharing, fully connected layers": replace(sharing, frozen=2),
    }


def _grid(name: str, title: str, scale: Scale, markings, trials, papers=(), **options) -> Grid:  # type: ignore[no-untyped-def]
    return Grid(
        name=name,
        title=title,
        note=NOTE if scale == "cpu" else DEFAULTS,
        blocks=(block("MNIST", _bench(scale), markings, trials, trigger=Patch(), **options),),
        papers=papers,
    )


def table_2(scale: Scale) -> Grid:
    """In-distribution watermark: a white square in a corner."""
    papers = printed(
        "Feature Sharing, Table 2 (MNIST)",
        {
            "baseline": {"": (99.21, 99.99), "Knockoff, soft": (98.83, 0.51)},
            "ewe": {"": (98.16, 99.85), "Knockoff, soft": (98.80, 60.11)},
            "feature-sharing": {"": (98.71, 99.95), "Knockoff, soft": (98.25, 99.72)},
        },
    )
    trials = thefts(_bench(scale), "knockoff")
    return _grid(
        "feature-sharing-table-2", "A patch in the decision layers", scale, _methods(scale, Patch()), trials, papers
    )


def table_3(scale: Scale) -> Grid:
    """Out-of-distribution watermark: images of another data set."""
    papers = printed(
        "Feature Sharing, Table 3 (MNIST)",
        {
            "baseline": {"": (99.15, 99.99), "Knockoff, soft": (98.81, 0.15)},
            "ewe": {"": (98.12, 99.90), "Knockoff, soft": (98.76, 65.68)},
            "feature-sharing": {"": (98.71, 99.95), "Knockoff, soft": (98.25, 99.84)},
        },
    )
    trigger = OutOfDistribution(dataset="fashion-mnist")
    return _grid(
        "feature-sharing-table-3",
        "Foreign images in the decision layers",
        scale,
        _methods(scale, trigger),
        thefts(_bench(scale), "knockoff"),
        papers,
        foreign="fashion-mnist",
    )


def figure_4(scale: Scale) -> Grid:
    """How well the mark transfers by how many layers are frozen."""
    sharing = _methods(scale, Patch())["feature-sharing"]
    assert isinstance(sharing, FeatureSharing)
    markings = [
        Marking(
            name=f"{count} layers frozen", method=replace(sharing, frozen=count), curve=("frozen layers", float(count))
        )
        for count in range(4)
    ]
    trials = thefts(_bench(scale), "knockoff")[:1]
    return _grid("feature-sharing-figure-4", "Where the mark is, and whether it transfers", scale, markings, trials)


def figure_5(scale: Scale) -> Grid:
    """Pruning and quantisation (Fig. 7) of the stolen model."""
    methods = {"feature-sharing": _methods(scale, Patch())["feature-sharing"]}
    trials = compressions(stolen(_bench(scale)))
    return _grid("feature-sharing-figure-5", "Compression of a copy", scale, methods, trials)


def figure_6(scale: Scale) -> Grid:
    """Fine-pruning of the stolen model."""
    bench = _bench(scale)
    attack = quick_attacks(bench.recipe)["fine-pruning"] if scale == "cpu" else FinePruning()
    trials = [
        Trial(
            name=f"{rate:.0%} of channels cut, then tuned",
            group="After theft",
            steps=(stolen(bench), Alteration(attack=replace(attack, rate=rate))),
            curve=("share of channels cut", rate),
        )
        for rate in (0.2, 0.5, 0.8, 0.95)
    ]
    methods = {"feature-sharing": _methods(scale, Patch())["feature-sharing"]}
    return _grid("feature-sharing-figure-6", "Fine-pruning of a copy", scale, methods, trials)
