"""Tables and figures of DeepTracer (arXiv 2511.08985): on three data sets at the paper's scale.

What is not here, and why: ImageNet and Tiny-ImageNet have no reader, so the key filter's surrogate asks the owner's images at the
paper's scale and CIFAR-10 at the small one. The filter's first stage alone, between the two of Fig. 6, is no option of it. What
the paper says of benign models (Table 1, Figs. 5 and 6) has no place beside a row, and is in the notes. The epochs of Fig. 3 and
the rates of Fig. 4 are in no text: their places are inferred. Fig. 1 shows activations, which no picture of a report does; Fig. 2
is a drawing of the method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from common import (
    DEFAULTS,
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
from deeptracer_printed import BENIGN, COLUMNS, TABLE_1, TABLE_2, TABLE_3, TABLE_4
from heirmark.attacks import FineTuning, Quantisation
from heirmark.attacks.removal.quantisation import BITS
from heirmark.grids import Marking, Published
from heirmark.grids.recipes import Scale
from heirmark.methods import METHODS, T2S, DeepTracer, FeatureSharing, MEADefender, Method, Unrelated, Vanilla
from heirmark.methods.deeptracer import ADAM
from heirmark.triggers import OutOfDistribution, Tiles
from heirmark.work.altering import Alteration
from heirmark.work.trials import Trial

BASELINES = ("badnets", "composite", "abstract", "content", "noise", "unrelated", "ewe", "margin")
"""The watermarks that the paper compares with, in its order, MEA-Defender aside."""
JOINT = ("badnets", "content", "noise", "unrelated")
"""Those that train once, by the clean model's recipe."""
DATA: dict[Scale, tuple[str, ...]] = {"cpu": ("fashion-mini",), "paper": ("fashion-mnist", "cifar10", "cifar100")}
ABLATION: dict[Scale, tuple[str, ...]] = {"cpu": ("fashion-mini",), "paper": ("cifar10",)}
"""Of Table 4 and, as its figures tell, of Fig. 6; of Fig. 5 inferred."""
NAMES = {
    "fashion-mini": "Fashion-MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}
NETS = {"fashion-mnist": "naivenet", "cifar10": "vgg-like", "cifar100": "resnet18"}
QUERIES = {"fashion-mini": "cifar10", "fashion-mnist": "cifar10", "cifar10": "cifar100", "cifar100": "cifar10"}
"""What other images Knockoff asks about: the paper does not say, and what is asked decides (docs/comparison.md)."""
Cells = Mapping[str, Mapping[str, tuple[float | None, float | None]]]


def _bench(scale: Scale, data: str) -> Bench:
    return quick() if scale == "cpu" else paper(data, NETS[data], ADAM)


def _deeptracer(scale: Scale, data: str) -> DeepTracer:
    """At the small scale the key filter's surrogate asks foreign images, as the paper's: of fresh ones it inherits nothing."""
    if scale == "cpu":
        return DeepTracer.quick(replace(QUICK, surrogate_queries="foreign"))
    return DeepTracer(model=NETS[data])


def _methods(scale: Scale, data: str) -> dict[str, Method]:
    """At the paper's scale joint training is by Adam, as all victims' there; other baselines keep their own papers' recipes.

    Margin trains by its paper's, but the clean model that it is handed is the block's, by Adam, and its field says so.
    """
    if scale == "cpu":
        return {
            "vanilla": QUICK.vanilla(),
            **{name: QUICK.method(name) for name in BASELINES},
            "mea-defender": MEADefender.quick(QUICK),
            "deeptracer": _deeptracer(scale, data),
            "feature-sharing": FeatureSharing.quick(QUICK),
            "t2s": QUICK.t2s(),
        }
    model = NETS[data]
    baselines = {name: replace(METHODS[name](), model=model) for name in BASELINES}
    if data != "fashion-mnist":  # one foreign data set serves both
        baselines["ewe"] = ewe_on_photographs(model)
        baselines["unrelated"] = Unrelated(model=model, trigger=OutOfDistribution(dataset=_foreign(scale, data)))
    baselines |= {name: replace(baselines[name], pretraining=ADAM) for name in (*JOINT, "margin")}
    return {
        "vanilla": Vanilla(model=model, trigger=Tiles(), pretraining=ADAM),
        **baselines,
        "mea-defender": MEADefender(model=model),
        "deeptracer": _deeptracer(scale, data),
        "t2s": T2S(model=model, trigger=Tiles(), pretraining=ADAM),
    }


def _foreign(scale: Scale, data: str) -> str:
    """DeepTracer's surrogate takes images of another data set at the small scale, EWE and Unrelated at the paper's."""
    if scale == "cpu":
        return QUERIES[data]
    return "mnist" if data == "fashion-mnist" else "svhn"


def _grid(
    name: str,
    title: str,
    scale: Scale,
    markings: Callable[[str], Mapping[str, Method] | Sequence[Marking]],
    trials: Callable[[Bench], Sequence[Trial]] = lambda bench: (),
    papers: tuple[Published, ...] = (),
    sets: Mapping[Scale, tuple[str, ...]] = DATA,
    told: str = "",
) -> Grid:
    """A block for every data set, with watermarks by its name and attacks by its bench; ``told`` is what has no cell."""
    blocks = tuple(
        block(
            NAMES[data],
            _bench(scale, data),
            markings(data),
            trials(_bench(scale, data)),
            trigger=Tiles(),
            pools=(QUERIES[data],),
            foreign=_foreign(scale, data),
        )
        for data in sets[scale]
    )
    names = {made.name for made in blocks}
    shown = tuple(item for item in papers if item.block in ("", *names))
    return Grid(
        name=f"deeptracer-{name}",
        title=title,
        note=noted(NOTE if scale == "cpu" else DEFAULTS, told),
        blocks=blocks,
        papers=shown,
    )


def _printed(table: int, figures: Mapping[str, Cells]) -> tuple[Published, ...]:
    return tuple(
        item
        for data, cells in figures.items()
        for item in printed(f"DeepTracer, Table {table}", cells, block=NAMES[data])
    )


def _models() -> tuple[Published, ...]:
    return _printed(1, {data: {name: {"": cell} for name, cell in rows.items()} for data, rows in TABLE_1.items()})


def _copies() -> tuple[Published, ...]:
    return _printed(
        2,
        {
            data: {name: _beside(data, dict(zip(COLUMNS, cells, strict=True))) for name, cells in rows.items()}
            for data, rows in TABLE_2.items()
        },
    )


def _beside(
    data: str, cells: Mapping[str, tuple[float | None, float | None]]
) -> dict[str, tuple[float | None, float | None]]:
    """The figures of Knockoff stand beside both of ours."""
    return {
        trial: cell
        for column, cell in cells.items()
        for trial in dict.fromkeys((column, column.replace("Knockoff", f"Knockoff with {QUERIES[data]}")))
    }


def _knockoffs(bench: Bench) -> list[Trial]:
    return thefts(bench, "knockoff", f"knockoff with {QUERIES[bench.data]}")


def _copied(scale: Scale) -> Callable[[str], Mapping[str, Method]]:
    return lambda data: {"deeptracer": _deeptracer(scale, data)}


def table_1(scale: Scale) -> Grid:
    """Harmlessness and effectiveness: accuracy and WSR of marked models, WSR of unmarked ones."""
    names = {NAMES[data] for data in DATA[scale]}
    told = " ".join(
        f"Without a watermark the paper's models have on {NAMES[data]} {figures}."
        for data, figures in BENIGN.items()
        if NAMES[data] in names
    )
    title = "What a mark costs, and whether unmarked models have it"
    return _grid("table-1", title, scale, lambda data: _methods(scale, data), papers=_models(), told=told)


def table_2(scale: Scale) -> Grid:
    """Every watermark against JBDA, Knockoff and DFME, on probabilities and on labels."""

    def trials(bench: Bench) -> list[Trial]:
        return thefts(bench, "jbda", "knockoff", f"knockoff with {QUERIES[bench.data]}", "dfme")

    title = "Which watermarks survive which theft"
    return _grid("table-2", title, scale, lambda data: _methods(scale, data), trials, _models() + _copies())


def table_3(scale: Scale) -> Grid:
    """Quantisation of the stolen model."""

    def trials(bench: Bench) -> list[Trial]:
        return [
            Trial(
                name=f"weights of {bits} bits",
                group="After theft",
                steps=(stolen(bench, QUERIES[bench.data]), Alteration(attack=Quantisation(bits=bits))),
                curve=("bits a weight", float(bits)),
            )
            for bits in BITS
        ]

    figures = {
        data: {"deeptracer": {f"weights of {bits} bits": cell for bits, cell in rows.items()}}
        for data, rows in TABLE_3.items()
    }
    return _grid("table-3", "DeepTracer's copies with fewer bits", scale, _copied(scale), trials, _printed(3, figures))


def table_4(scale: Scale) -> Grid:
    """Parts of the loss left out."""

    def markings(data: str) -> dict[str, Method]:
        whole = replace(_deeptracer(scale, data), key_filter=None)
        coupled = replace(whole, weight_watermark=0.0)
        return {
            "L_wm": replace(whole, weight_coupling=0.0),
            "L_intra": replace(coupled, weight_inter=0.0),
            "L_inter": replace(coupled, weight_intra=0.0),
            "L_wm and L_intra": replace(whole, weight_inter=0.0),
            "L_wm and L_inter": replace(whole, weight_intra=0.0),
            "L_intra and L_inter": coupled,
            "L_wm, L_intra and L_inter": whole,
        }

    data = ABLATION[scale][0]
    cells = {name: _beside(data, dict(zip(("", "Knockoff, soft"), row, strict=True))) for name, row in TABLE_4.items()}
    papers = printed("DeepTracer, Table 4 (CIFAR-10)", cells)
    return _grid("table-4", "What each part of DeepTracer's loss does", scale, markings, _knockoffs, papers, ABLATION)


def figure_3(scale: Scale) -> Grid:
    """Fine-tuning of all layers of the stolen model, by epochs."""

    def trials(bench: Bench) -> list[Trial]:
        tuning = FineTuning().recipe if scale == "paper" else replace(bench.recipe, learning_rate=0.02, warmup=0.0)
        return [
            Trial(
                name=f"fine-tuned for {epochs} epochs",
                group="After theft",
                steps=(
                    stolen(bench, QUERIES[bench.data]),
                    Alteration(attack=FineTuning(recipe=replace(tuning, epochs=epochs))),
                ),
                curve=("epochs of fine-tuning", float(epochs)),
            )
            for epochs in ((1, 2, 4, 8) if scale == "cpu" else (10, 20, 50, 100))
        ]

    return _grid("figure-3", "Fine-tuning of DeepTracer's copies", scale, _copied(scale), trials)


def figure_4(scale: Scale) -> Grid:
    """Pruning of the stolen model."""

    def trials(bench: Bench) -> list[Trial]:
        return [
            trial
            for trial in compressions(stolen(bench, QUERIES[bench.data]))
            if trial.curve is not None and trial.curve[0] == "pruning rate"
        ]

    return _grid("figure-4", "Pruning of DeepTracer's copies", scale, _copied(scale), trials)


def figure_5(scale: Scale) -> Grid:
    """Source classes chosen to span the data, and at random."""

    def markings(data: str) -> dict[str, Method]:
        method = replace(_deeptracer(scale, data), key_filter=None)
        return {"adaptive": method, "random": replace(method, trigger=Tiles(selection="random"))}

    told = "In the paper adaptive classes have 4.39 % less WSR on benign models than random ones, and 9.35 % more on copies."
    title = "How DeepTracer's classes are chosen"
    return _grid("figure-5", title, scale, markings, _knockoffs, sets=ABLATION, told=told)


def figure_6(scale: Scale) -> Grid:
    """With the key filter and without it."""

    def markings(data: str) -> dict[str, Method]:
        method = _deeptracer(scale, data)
        return {"no filter": replace(method, key_filter=None), "two stages": method}

    papers = printed(
        "DeepTracer, Fig. 6 (text; CIFAR-10 by Tables 2 and 4)",
        {
            name: _beside(ABLATION[scale][0], {"Knockoff, soft": (None, wsr)})
            for name, wsr in {"no filter": 94.61, "two stages": 98.75}.items()
        },
    )
    told = "The first stage alone lowers WSR of the paper's benign models from 0.07 to 0 % and raises its copies' to 95.86 %."
    title = "What DeepTracer's key filter is worth"
    return _grid("figure-6", title, scale, markings, _knockoffs, papers, ABLATION, told)
