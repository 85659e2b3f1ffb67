"""Tables and figures of T2S (arXiv 2606.11698): on CIFAR-10 and CIFAR-100 at the paper's scale.

What is not here, and why: Tiny-ImageNet (in Tables I-V) and STL-10 (in Tables IV and V) have no reader. What Table I prints of
models without a watermark has no place beside a row, and is in the note of ``table_1``. Of the figures the text has lost captions
and most numbers: those that it names stand beside Figs. 4, 6 and 10, its bounds in the notes of Figs. 5 and 6. That Fig. 8 is
Fig. 7 on the other data set is inferred, and so are the places on the axes of Figs. 3, 7 and 8, and on those of Figs. 5 and 6 all
but 8 and 4 bits and pruning of 50 and 70 %. Figs. 1 and 2 are drawings of the method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from common import (
    NOTE,
    QUICK,
    Bench,
    Grid,
    block,
    compressions,
    ewe_on_photographs,
    noted,
    paper,
    printed,
    quick,
    stolen,
    thefts,
)
from heirmark.attacks import DistillTo
from heirmark.grids import Marking, Published
from heirmark.grids.fitting import quick_attacks
from heirmark.grids.recipes import Scale
from heirmark.methods import METHODS, T2S, Method
from heirmark.models import Architecture
from heirmark.rehearsal.settings import Balanced, Paper
from heirmark.training.fitting import Recipe
from heirmark.triggers import AnyTrigger, Feature, Mix, OutOfDistribution, Tiles
from heirmark.work.altering import Alteration
from heirmark.work.trials import Trial

BASELINES = ("content", "ewe", "ssw-p", "ssw-s")
"""The watermarks that the paper compares with, in its order."""
OURS = ("robust",)
"""What stands beside T2S, of the methods that there are."""
M = TypeVar("M", bound=Method)
Cells = Mapping[str, Mapping[str, tuple[float | None, float | None]]]
DATA: dict[Scale, tuple[str, ...]] = {"cpu": ("fashion-mini",), "paper": ("cifar10", "cifar100")}
NAMES = {"fashion-mini": "Fashion-MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
OTHER = {"fashion-mini": "cifar10", "cifar10": "cifar100", "cifar100": "cifar10"}
"""What else thieves ask about."""
WEIGHTS = {"cifar10": 50.0, "cifar100": 15.0}
"""Lambda of eq. 9."""
OWN = (
    "By the paper's protocol: an owner has 95 % of the training images, Knockoff asks about these very images, 47,500 of them "
    "(paper 50,000), and keys are made of the rest. Nets, epochs and settings of methods and attacks are their papers', as far "
    "as they tell; horizontal flips in all trainings and rehearsals in batches of 64 are inferred: the paper tells memory and "
    "time for two sizes of batches, and 64 fits the smaller. Its figures are means of five trials, ours of 3 seeds."
)
"""What the paper's scale has otherwise than the paper."""
FLIPPED = Recipe(augment="flip")
"""Of models at the paper's scale."""
UNMARKED = {
    "cifar10": "90.05 %, and WSR 0.10 (content), 0.00 (ewe), 3.00 (ssw-p), 0.60 (ssw-s) and 0.32 % (t2s)",
    "cifar100": "70.28 %, and WSR 0.00 (content), 0.00 (ewe), 0.26 (ssw-p), 0.22 (ssw-s) and 0.12 % (t2s)",
}
"""ACC of Table I's models without a watermark, and how they answer the keys."""
TABLES_1_2 = {
    data: {
        name: dict(zip(("", "Knockoff, soft", "Knockoff, label", "DFME, soft"), figures, strict=True))
        for name, figures in rows.items()
    }
    for data, rows in {
        "cifar10": {
            "content": ((89.32, 100.0), (85.94, 1.20), (81.25, 0.0), (89.32, 84.80)),
            "ewe": ((89.15, 100.0), (87.10, 15.0), (83.46, 0.60), (88.05, 87.40)),
            "ssw-p": ((89.52, 100.0), (85.02, 65.25), (83.13, 21.60), (85.39, 100.0)),
            "ssw-s": ((89.01, 100.0), (85.34, 89.60), (83.19, 72.40), (86.18, 100.0)),
            "t2s": ((89.54, 100.0), (86.87, 99.87), (82.01, 97.56), (85.27, 100.0)),
        },
        "cifar100": {
            "content": ((70.31, 100.0), (65.07, 34.69), (58.76, 0.0), (33.64, 72.03)),
            "ewe": ((70.12, 100.0), (64.93, 50.76), (57.87, 3.62), (35.51, 75.44)),
            "ssw-p": ((70.52, 100.0), (64.98, 91.24), (58.98, 15.41), (36.83, 100.0)),
            "ssw-s": ((70.87, 100.0), (65.15, 92.73), (59.71, 34.75), (35.80, 100.0)),
            "t2s": ((70.02, 100.0), (65.27, 95.42), (59.49, 68.68), (30.82, 100.0)),
        },
    }.items()
}
TABLE_7 = {
    data: {name: {"Knockoff, soft": figures} for name, figures in rows.items()}
    for data, rows in {
        "cifar10": {
            "ood, rehearsed": (86.10, 94.47),
            "mix, rehearsed": (83.31, 99.73),
            "feature, rehearsed": (86.87, 99.87),
            "ood, not rehearsed": (86.04, 52.33),
            "mix, not rehearsed": (86.69, 31.30),
            "feature, not rehearsed": (86.97, 3.73),
        },
        "cifar100": {
            "ood, rehearsed": (62.92, 94.60),
            "mix, rehearsed": (65.14, 94.67),
            "feature, rehearsed": (65.80, 97.40),
            "ood, not rehearsed": (66.21, 52.67),
            "mix, not rehearsed": (66.39, 21.53),
            "feature, not rehearsed": (66.28, 28.87),
        },
    }.items()
}


def _bench(scale: Scale, data: str) -> Bench:
    """In the paper Knockoff asks images of the target's training set; at the small scale, fresh ones, which is harder."""
    if scale == "paper":
        bench = paper(data, "resnet18", FLIPPED, protocol="paper")
        thief = replace(bench.knockoff, recipe=replace(bench.knockoff.recipe, augment=FLIPPED.augment))
        return replace(bench, knockoff=thief)
    bench = quick(replace(QUICK, data=data))
    # As many as the small data set has for him.
    return bench if data == QUICK.data else replace(bench, knockoff=replace(bench.knockoff, queries=9000))


def _t2s(scale: Scale, data: str, trigger: AnyTrigger | None = None) -> T2S:
    """The paper's trigger at its own scale; tiles at the small one, on which the balanced update was settled."""
    if scale == "cpu":
        return replace(QUICK.t2s(), trigger=trigger or Tiles())
    return _by_the_paper(T2S() if trigger is None else T2S(trigger=trigger), data)


def _by_the_paper(method: T2S, data: str) -> T2S:
    """Eq. 9 in batches of 64. In the runtime's precision, for on a GPU bfloat16 and a recorded step make it minutes."""
    usual = method.rehearsal
    recipe = replace(usual.recipe, batch_size=64, augment=FLIPPED.augment)
    rehearsal = replace(usual, recipe=recipe, update=Paper(utility_weight=WEIGHTS[data]), precision="runtime")
    return replace(_flipped(method), rehearsal=rehearsal)


def _flipped(method: M) -> M:
    """A method whose models learn from flipped images too."""
    return replace(method, pretraining=replace(method.pretraining, augment=FLIPPED.augment))


def _rehearsed_for(method: T2S, epochs: int) -> T2S:
    recipe = replace(method.rehearsal.recipe, epochs=epochs)
    return replace(method, rehearsal=replace(method.rehearsal, recipe=recipe))


def _triggers(scale: Scale) -> dict[str, AnyTrigger]:
    foreign = OutOfDistribution(dataset="mnist") if scale == "cpu" else OutOfDistribution()
    return {"ood": foreign, "mix": Mix(), "feature": Feature()}


def _shown(scale: Scale) -> str:
    """Whose images out-of-distribution triggers are."""
    return "mnist" if scale == "cpu" else "svhn"


def _foreign(scale: Scale) -> str | None:
    """EWE and SSW take images of another data set; at the small scale theirs are generated."""
    return None if scale == "cpu" else "svhn"


def _grid(
    name: str,
    title: str,
    scale: Scale,
    markings: Callable[[str], Mapping[str, Method] | Sequence[Marking]],
    trials: Callable[[Bench], Sequence[Trial]] = lambda bench: (),
    *,
    table: str = "",
    papers: Mapping[str, Cells] | None = None,
    data: tuple[str, ...] = (),
    foreign: str | None = None,
    asks_other: bool = False,
    pictures: tuple[str, ...] = (),
    told: str = "",
) -> Grid:
    """A block for every data set.

    Args:
        name: of the table or figure.
        title: of the report.
        scale: of the recipe.
        markings: watermarks, by data set.
        trials: attacks, by bench.
        table: of the paper.
        papers: what it prints, by data set. Figures of CIFAR-10 stand beside whatever the small scale has.
        data: sets; none takes the scale's.
        foreign: other data that owners have.
        asks_other: whether thieves ask about other data.
        pictures: that the report shows besides.
        told: what the text says without a number for a cell.
    """
    sets = data or DATA[scale]
    blocks = tuple(
        block(
            NAMES[each],
            _bench(scale, each),
            markings(each),
            trials(_bench(scale, each)),
            trigger=Tiles(),
            pools=(OTHER[each],) if asks_other else (),
            foreign=foreign,
            pictures=pictures,
        )
        for each in sets
    )
    shown: list[Published] = []
    for each, cells in (papers or {}).items():
        where = NAMES[each] if scale == "paper" else ""
        if each in sets or (scale == "cpu" and each == "cifar10"):
            shown += printed(f"T2S, {table} ({NAMES[each]}, ResNet-18)", cells, block=where)
    note = noted(NOTE if scale == "cpu" else OWN, told)
    return Grid(name=f"t2s-{name}", title=title, note=note, blocks=blocks, papers=tuple(shown))


def _methods(scale: Scale, data: str) -> dict[str, Method]:
    ours = [name for name in OURS if name in METHODS]
    if scale == "cpu":
        return {
            "joint training": _t2s(scale, data).vanilla(),
            **{name: QUICK.method(name) for name in BASELINES},
            "t2s": _t2s(scale, data),
            **{name: QUICK.method(name) for name in ours},
        }
    baselines = {name: replace(METHODS[name](), model="resnet18") for name in BASELINES}
    baselines["ewe"] = ewe_on_photographs("resnet18")  # of one foreign data set, which serves SSW too
    others = {name: replace(METHODS[name](), model="resnet18") for name in ours}
    return {
        **{name: _flipped(method) for name, method in baselines.items()},
        "t2s": _t2s(scale, data),
        **{name: _flipped(method) for name, method in others.items()},
    }


def _knockoff(bench: Bench) -> list[Trial]:
    """On probabilities."""
    return thefts(bench, "knockoff")[:1]


def table_1(scale: Scale) -> Grid:
    """Marked models: accuracy and WSR, beside unmarked ones."""
    shown = {data: figures for data, figures in UNMARKED.items() if scale == "paper" or data == "cifar10"}
    return _grid(
        "table-1",
        "What a mark costs its model",
        scale,
        lambda data: _methods(scale, data),
        table="Table I",
        papers={data: {name: {"": cells[""]} for name, cells in rows.items()} for data, rows in TABLES_1_2.items()},
        foreign=_foreign(scale),
        told=" ".join(
            f"Without a watermark the paper's models have on {NAMES[data]} ACC {figures}."
            for data, figures in shown.items()
        ),
    )


def table_2(scale: Scale) -> Grid:
    """Knockoff on probabilities and labels, and DFME."""
    return _grid(
        "table-2",
        "Which watermarks survive which theft",
        scale,
        lambda data: _methods(scale, data),
        lambda bench: thefts(bench, "knockoff", "dfme"),
        table="Tables I-II",
        papers=TABLES_1_2,
        foreign=_foreign(scale),
    )


def tables_1_2(scale: Scale) -> Grid:
    """T2S and its thefts by Knockoff on CIFAR-10, by the paper's protocol at both scales; a seed is minutes on a large GPU.

    At the small scale the net is a quarter as wide, all trainings have 10 epochs, and it takes hours. At both, thieves train as
    victims do, since the paper does not say how, and calibrators a quarter as long.
    """
    model = "resnet18:width=16" if scale == "cpu" else "resnet18"
    recipe = replace(QUICK.recipe, epochs=10) if scale == "cpu" else FLIPPED
    recipe = replace(recipe, augment=FLIPPED.augment)
    bench = paper("cifar10", model, recipe, protocol="paper")
    bench = replace(
        bench,
        knockoff=replace(bench.knockoff, recipe=recipe),
        calibration_recipe=replace(recipe, epochs=max(5, recipe.epochs // 4)),
    )
    t2s = _by_the_paper(T2S(model=model, pretraining=recipe), "cifar10")
    markings: dict[str, Method] = {"joint training": t2s.vanilla(), "t2s": t2s}
    for name in OURS:
        if name in METHODS:
            markings[name] = replace(METHODS[name](), model=model, pretraining=recipe)
    return Grid(
        name="t2s-tables-1-2",
        title="T2S where its paper has it",
        note=OWN
        if scale == "paper"
        else f"{OWN} Here the net is {model}, and all trainings have {recipe.epochs} epochs.",
        blocks=(block(NAMES["cifar10"], bench, markings, thefts(bench, "knockoff"), pictures=("history",)),),
        papers=printed(
            "T2S, Tables I-II (CIFAR-10, ResNet-18)",
            {
                "t2s": {
                    trial: cell for trial, cell in TABLES_1_2["cifar10"]["t2s"].items() if not trial.startswith("DFME")
                }
            },
        ),
    )


def table_3(scale: Scale) -> Grid:
    """Thieves of other architectures."""
    nets: dict[str, Architecture] = (
        {
            "NaiveNet": QUICK.model,
            "VGG-like": "vgg-like:width=16,dropout=0.1",
            "MobileNetV2": "mobilenet-v2:width=0.25",
            "AlexNet": "alexnet:width=16",
        }
        if scale == "cpu"
        else {"ResNet-18": "resnet18", "WRN-16-4": "wrn-16-4", "ViT-S": "vit-s", "MobileViT-S": "mobilevit-s"}
    )
    figures: Cells = {
        "t2s": {
            "by ResNet-18": (86.87, 99.87),
            "by WRN-16-4": (88.96, 99.96),
            "by ViT-S": (70.81, 80.53),
            "by MobileViT-S": (83.04, 85.20),
        }
    }

    def trials(bench: Bench) -> list[Trial]:
        return [
            Trial(
                name=f"by {name}",
                group="Extraction",
                steps=(stolen(replace(bench, knockoff=replace(bench.knockoff, model=architecture))),),
            )
            for name, architecture in nets.items()
        ]

    return _grid(
        "table-3",
        "Thieves of other architectures",
        scale,
        lambda data: {"t2s": _t2s(scale, data)},
        trials,
        table="Table III",
        papers={"cifar10": figures},
        data=DATA[scale][:1],
    )


def table_4(scale: Scale) -> Grid:
    """Queries with other data."""

    def trials(bench: Bench) -> list[Trial]:
        pool = OTHER[bench.data]
        return [
            Trial(name="the victim's kind", group="Extraction", steps=(stolen(bench),)),
            Trial(name=f"with {pool}", group="Extraction", steps=(stolen(bench, pool),)),
        ]

    return _grid(
        "table-4",
        "Thieves who ask other data",
        scale,
        lambda data: {"t2s": _t2s(scale, data)},
        trials,
        table="Table IV",
        papers={
            "cifar10": {"t2s": {"the victim's kind": (86.87, 99.87), "with cifar100": (82.30, 99.76)}},
            "cifar100": {"t2s": {"the victim's kind": (65.27, 95.42), "with cifar10": (59.24, 94.48)}},
        },
        asks_other=True,
    )


def table_5(scale: Scale) -> Grid:
    """A second extraction, of the stolen model."""
    return _grid(
        "table-5",
        "A copy of the copy",
        scale,
        lambda data: {"t2s": _t2s(scale, data)},
        lambda bench: [Trial(name="second extraction", group="After theft", steps=(stolen(bench), stolen(bench)))],
        table="Table V",
        papers={
            "cifar10": {"t2s": {"second extraction": (86.84, 99.93)}},
            "cifar100": {"t2s": {"second extraction": (66.56, 96.73)}},
        },
    )


def table_6(scale: Scale) -> Grid:
    """Distillation of the marked model into a smaller net, with true labels, beside SSW.

    It gets the labelled images that the model learned from, as in the paper; at the small scale, the adversary's.
    """
    attack = quick_attacks()["distil-to"] if scale == "cpu" else DistillTo()
    trial = Trial(name="distilled with labels", group="On the model", steps=(Alteration(attack=attack),))
    names = ("joint training", "ssw-p", "ssw-s", "t2s")
    figures = {
        "cifar10": {"ssw-p": (89.39, 60.36), "ssw-s": (89.42, 60.00), "t2s": (90.18, 73.87)},
        "cifar100": {"ssw-p": (67.40, 56.60), "ssw-s": (68.01, 45.40), "t2s": (68.13, 80.67)},
    }
    return _grid(
        "table-6",
        "Compression by distillation",
        scale,
        lambda data: {name: method for name, method in _methods(scale, data).items() if name in names},
        lambda bench: (trial,),
        table="Table VI",
        papers={data: {name: {trial.name: cell} for name, cell in rows.items()} for data, rows in figures.items()},
        foreign=_foreign(scale),
    )


def table_7(scale: Scale) -> Grid:
    """Three kinds of trigger, rehearsed and not."""

    def markings(data: str) -> dict[str, Method]:
        methods: dict[str, Method] = {}
        for name, trigger in _triggers(scale).items():
            method = _t2s(scale, data, trigger)
            methods[f"{name}, not rehearsed"] = method.vanilla()
            methods[f"{name}, rehearsed"] = method
        return methods

    return _grid(
        "table-7",
        "What rehearsal is worth by trigger",
        scale,
        markings,
        lambda bench: thefts(bench, "knockoff"),
        table="Table VII",
        papers=TABLE_7,
        foreign=_shown(scale),
    )


def figure_3(scale: Scale) -> Grid:
    """The copy's WSR by epochs of rehearsal."""

    def markings(data: str) -> list[Marking]:
        method = _t2s(scale, data)
        return [
            Marking(name="0 epochs", method=method.vanilla(), curve=("epochs of rehearsal", 0.0)),
            *(
                Marking(
                    name=f"{epochs} epochs",
                    method=_rehearsed_for(method, epochs),
                    curve=("epochs of rehearsal", float(epochs)),
                )
                for epochs in ((1, 2, 4, 8) if scale == "cpu" else (1, 2, 3, 5))
            ),
        ]

    return _grid("figure-3", "How soon rehearsal works", scale, markings, _knockoff)


def figure_4(scale: Scale) -> Grid:
    """Where the target starts: watermarked, clean, or from scratch.

    From scratch it is rehearsed for as many epochs as both phases take together: 30, says the paper (section III-D).
    """

    def markings(data: str) -> dict[str, Method]:
        method = _t2s(scale, data)
        epochs = method.pretraining.epochs + method.rehearsal.recipe.epochs if scale == "cpu" else 30
        return {
            "watermarked": method,
            "clean": replace(method, initial="clean"),
            "scratch": _rehearsed_for(replace(method, initial="scratch"), epochs),
        }

    return _grid(
        "figure-4",
        "Where rehearsal starts",
        scale,
        markings,
        _knockoff,
        table="section III-D",
        papers={"cifar10": {"scratch": {"": (36.47, 23.0)}}},
        pictures=("history",),
    )


def figure_5(scale: Scale) -> Grid:
    """Quantisation and pruning of the stolen model."""
    return _grid(
        "figure-5",
        "Compression of a copy",
        scale,
        lambda data: {"t2s": _t2s(scale, data)},
        lambda bench: compressions(stolen(bench)),
        told="WSR of the paper's copies stays above 95 % at 4 bits, and above 90 % until over 70 % of the weights are pruned.",
    )


def figure_6(scale: Scale) -> Grid:
    """Quantisation and pruning of the marked model."""
    grid = _grid(
        "figure-6",
        "Compression of the marked model",
        scale,
        lambda data: {"t2s": _t2s(scale, data)},
        lambda bench: compressions(),
        told=(
            "ACC of the paper's models drops by more than 5 % at 4 bits; WSR drops where over 70 % of the weights are pruned."
        ),
    )
    # The text does not say of which data set.
    return replace(grid, papers=printed("T2S, Fig. 6 (text)", {"t2s": {"weights of 4 bits": (None, 100.0)}}))


def figure_7(scale: Scale) -> Grid:
    """The weight of utility (lambda of eq. 9) by trigger; at the small scale rho of the balanced update, which has no lambda."""
    return _weights("figure-7", scale, DATA[scale][0], (0.5, 1.0, 2.0, 4.0), (10.0, 20.0, 50.0, 100.0, 200.0))


def figure_8(scale: Scale) -> Grid:
    """The same on the other data set: CIFAR-100, at the small scale 22,500 images of CIFAR-10."""
    return _weights(
        "figure-8", scale, "cifar10" if scale == "cpu" else "cifar100", (0.5, 2.0), (5.0, 10.0, 15.0, 30.0, 60.0)
    )


def _weights(name: str, scale: Scale, data: str, rhos: tuple[float, ...], lambdas: tuple[float, ...]) -> Grid:
    def markings(data: str) -> list[Marking]:
        made = []
        for kind, trigger in _triggers(scale).items():
            method = _t2s(scale, data, trigger)
            for weight in rhos if scale == "cpu" else lambdas:
                axis = "rho" if scale == "cpu" else "lambda"
                update = Balanced(rho=weight, enough=0.5) if scale == "cpu" else Paper(utility_weight=weight)
                tuned = replace(method, rehearsal=replace(method.rehearsal, update=update))
                named = f"{kind}, {axis} {weight:g}"
                made.append(Marking(name=named, method=tuned, curve=(axis, weight)))
        return made

    title = "What the weight of utility does"
    return _grid(name, title, scale, markings, _knockoff, data=(data,), foreign=_shown(scale))


def figure_9(scale: Scale) -> Grid:
    """Every source with every target class: the marked model."""
    return _grid("figure-9", "Source and target classes", scale, lambda data: _pairs(scale, data), data=DATA[scale][:1])


def figure_10(scale: Scale) -> Grid:
    """Every source with every target class: the stolen copy, beside the marked model of Fig. 9."""
    return _grid(
        "figure-10",
        "Source and target classes, of the copy",
        scale,
        lambda data: _pairs(scale, data),
        _knockoff,
        table="section IV-E3",
        # Of copies by the context; the sentence does not say.
        papers={"cifar10": {"3 to 5": {"Knockoff, soft": (None, 78.0)}}} if scale == "paper" else None,
        data=DATA[scale][:1],
        told="The lowest WSR of the paper's copies is 78 %, from cat (3) to dog (5) on CIFAR-10.",
    )


def _pairs(scale: Scale, data: str) -> list[Marking]:
    classes = range(0, 10, 3) if scale == "cpu" else range(10)
    return [
        Marking(
            name=f"{source} to {target}",
            method=_t2s(scale, data, Feature(source=source, target=target)),
            cell=(str(source), str(target)),
        )
        for source in classes
        for target in classes
        if source != target
    ]
