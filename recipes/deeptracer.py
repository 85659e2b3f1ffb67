"""Tables and figures of DeepTracer (arXiv 2511.08985)."""

from __future__ import annotations

from dataclasses import replace

from common import DEFAULTS, NOTE, QUICK, Bench, Grid, block, compressions, paper, printed, quick, stolen, thefts
from heirmark.attacks import FineTuning, Quantisation
from heirmark.bench import Marking
from heirmark.bench.recipes import Scale
from heirmark.methods import T2S, AnyMethod, DeepTracer, MEADefender, Vanilla
from heirmark.methods.deeptracer import ADAM
from heirmark.pipeline.altering import Alteration
from heirmark.pipeline.audit_plan import BITS
from heirmark.pipeline.trials import Trial
from heirmark.triggers import Tiles

TABLE_1 = printed(
    "DeepTracer, Table 1",
    {"mea-defender": {"": (88.86, 95.01)}, "deeptracer": {"": (91.49, 100.0)}},
)
TABLE_2 = printed(
    "DeepTracer, Table 2",
    {
        "mea-defender": {
            "JBDA, soft": (84.66, 46.17),
            "JBDA, label": (82.42, 8.61),
            "Knockoff, soft": (64.49, 91.22),
            "Knockoff, label": (59.86, 26.35),
            "DFME, soft": (44.00, 0.0),
            "DFME, label": (46.92, 0.0),
        },
        "deeptracer": {
            "JBDA, soft": (85.02, 91.65),
            "JBDA, label": (80.69, 86.90),
            "Knockoff, soft": (87.16, 100.0),
            "Knockoff, label": (64.57, 100.0),
            "DFME, soft": (70.03, 100.0),
            "DFME, label": (68.21, 100.0),
        },
    },
)
TABLE_3 = printed(
    "DeepTracer, Table 3",
    {
        "deeptracer": {
            f"weights of {bits} bits": figures
            for bits, figures in {
                16: (87.23, 100.0),
                8: (87.39, 100.0),
                6: (86.59, 100.0),
                4: (53.78, 98.70),
                3: (10.0, 0.0),
                2: (10.0, 0.0),
                1: (10.0, 0.0),
            }.items()
        }
    },
)
TABLE_4 = printed(
    "DeepTracer, Table 4 (CIFAR-10)",
    {
        "L_wm and L_intra": {"": (85.41, 99.97), "Knockoff, soft": (75.78, 89.62)},
        "L_wm and L_inter": {"": (84.94, 99.99), "Knockoff, soft": (75.07, 84.35)},
        "L_intra and L_inter": {"": (84.16, 64.38), "Knockoff, soft": (75.88, 5.58)},
        "L_wm, L_intra and L_inter": {"": (85.59, 100.0), "Knockoff, soft": (75.87, 94.61)},
    },
)


def _bench(scale: Scale) -> Bench:
    return quick() if scale == "cpu" else paper("fashion-mnist", "naivenet", ADAM)


def _deeptracer(scale: Scale) -> DeepTracer:
    return QUICK.deeptracer() if scale == "cpu" else DeepTracer()


def _methods(scale: Scale) -> dict[str, AnyMethod]:
    if scale == "cpu":
        return {
            "vanilla": QUICK.vanilla(),
            "mea-defender": QUICK.mea_defender(),
            "deeptracer": QUICK.deeptracer(),
            "feature-sharing": QUICK.feature_sharing(),
            "t2s": QUICK.t2s(),
        }
    model = "naivenet"
    return {
        "vanilla": Vanilla(model=model, trigger=Tiles(), pretraining=ADAM),
        "mea-defender": MEADefender(model=model),
        "deeptracer": DeepTracer(),
        "t2s": T2S(model=model, trigger=Tiles(), pretraining=ADAM),
    }


def _note(scale: Scale) -> str:
    return NOTE if scale == "cpu" else DEFAULTS


def table_1(scale: Scale) -> Grid:
    """Harmlessness and effectiveness: accuracy and WSR of marked models, WSR of unmarked ones."""
    return Grid(
        name="deeptracer-table-1",
        title="What a mark costs, and whether unmarked models have it",
        note=_note(scale),
        blocks=(block("Fashion-MNIST", _bench(scale), _methods(scale), trigger=Tiles()),),
        papers=TABLE_1,
    )


def table_2(scale: Scale) -> Grid:
    """Every watermark against JBDA, Knockoff and DFME, on probabilities and on labels."""
    bench = _bench(scale)
    return Grid(
        name="deeptracer-table-2",
        title="Which watermarks survive which theft",
        note=_note(scale),
        blocks=(
            block("Fashion-MNIST", bench, _methods(scale), thefts(bench, "jbda", "knockoff", "dfme"), trigger=Tiles()),
        ),
        papers=TABLE_1 + TABLE_2,
    )


def table_3(scale: Scale) -> Grid:
    """Quantisation of the stolen model."""
    bench = _bench(scale)
    trials = [
        Trial(
            name=f"weights of {bits} bits",
            group="After theft",
            steps=(stolen(bench), Alteration(attack=Quantisation(bits=bits))),
            curve=("bits a weight", float(bits)),
        )
        for bits in BITS
    ]
    return Grid(
        name="deeptracer-table-3",
        title="DeepTracer's copies with fewer bits",
        note=_note(scale),
        blocks=(block("Fashion-MNIST", bench, {"deeptracer": _deeptracer(scale)}, trials, trigger=Tiles()),),
        papers=TABLE_3,
    )


def table_4(scale: Scale) -> Grid:
    """Parts of the loss left out."""
    bench, whole = _bench(scale), replace(_deeptracer(scale), key_filter=None)
    methods = {
        "L_wm": replace(whole, weight_coupling=0.0),
        "L_wm and L_intra": replace(whole, weight_inter=0.0),
        "L_wm and L_inter": replace(whole, weight_intra=0.0),
        "L_intra and L_inter": replace(whole, weight_watermark=0.0),
        "L_wm, L_intra and L_inter": whole,
    }
    return Grid(
        name="deeptracer-table-4",
        title="What each part of DeepTracer's loss does",
        note=_note(scale),
        blocks=(block("Fashion-MNIST", bench, methods, thefts(bench, "knockoff"), trigger=Tiles()),),
        papers=TABLE_4,
    )


def figure_3(scale: Scale) -> Grid:
    """Fine-tuning of all layers of the stolen model, by epochs."""
    bench = _bench(scale)
    tuning = FineTuning().recipe if scale == "paper" else replace(bench.recipe, learning_rate=0.02, warmup=0.0)
    trials = [
        Trial(
            name=f"fine-tuned for {epochs} epochs",
            group="After theft",
            steps=(stolen(bench), Alteration(attack=FineTuning(recipe=replace(tuning, epochs=epochs)))),
            curve=("epochs of fine-tuning", float(epochs)),
        )
        for epochs in ((1, 2, 4, 8) if scale == "cpu" else (10, 20, 50, 100))
    ]
    return Grid(
        name="deeptracer-figure-3",
        title="Fine-tuning of DeepTracer's copies",
        note=_note(scale),
        blocks=(block("Fashion-MNIST", bench, {"deeptracer": _deeptracer(scale)}, trials, trigger=Tiles()),),
    )


def figure_4(scale: Scale) -> Grid:
    """Pruning of the stolen model."""
    bench = _bench(scale)
    trials = [
        trial for trial in compressions(stolen(bench)) if trial.curve is not None and trial.curve[0] == "pruning rate"
    ]
    return Grid(
        name="deeptracer-figure-4",
        title="Pruning of DeepTracer's copies",
        note=_note(scale),
        blocks=(block("Fashion-MNIST", bench, {"deeptracer": _deeptracer(scale)}, trials, trigger=Tiles()),),
    )


def figure_5(scale: Scale) -> Grid:
    """Source classes chosen to span the data, and at random."""
    bench, method = _bench(scale), replace(_deeptracer(scale), key_filter=None)
    methods = {
        "adaptive": method,
        "random": replace(method, trigger=Tiles(selection="random")),
    }
    return Grid(
        name="deeptracer-figure-5",
        title="How DeepTracer's classes are chosen",
        note=_note(scale),
        blocks=(block("Fashion-MNIST", bench, methods, thefts(bench, "knockoff"), trigger=Tiles()),),
        seeds=(0, 1, 2),
    )


def figure_6(scale: Scale) -> Grid:
    """With the key filter and without it."""
    bench, method = _bench(scale), _deeptracer(scale)
    methods = [
        Marking(name="no filter", method=replace(method, key_filter=None)),
        Marking(name="two stages", method=method),
    ]
    return Grid(
        name="deeptracer-figure-6",
        title="What DeepTracer's key filter is worth",
        note=_note(scale),
        blocks=(block("Fashion-MNIST", bench, methods, thefts(bench, "knockoff"), trigger=Tiles()),),
    )
