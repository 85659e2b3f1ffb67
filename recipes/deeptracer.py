"""Tables and figures of DeepTracer (arXiv 2511.08985)."""

from __future__ import annotations

from dataclasses import replace

from common import DEFAULTS, NOTE, QUICK, Bench, Grid, block, compressions, paper, printed, quick, stolen, thefts
from heirmark.attacks import FineTuning, Quantisation
from heirmark.bench import Marking
from heirmark.bench.recipes import Scale
from heirmark.methods import METHODS, T2S, AnyMethod, DeepTracer, MEADefender, Vanilla
from heirmark.methods.deeptracer import ADAM
from heirmark.pipeline.altering import Alteration
from heirmark.pipeline.audit_plan import BITS
from heirmark.pipeline.trials import Trial
from heirmark.triggers import Tiles

BASELINES = ("badnets", "composite", "abstract", "content", "noise", "unrelated", "ewe", "margin")
"""The watermarks that the paper compares with, in its order, MEA-Defender aside."""
TABLE_1 = printed(
    "DeepTracer, Table 1",
    {
        name: {"": figures}
        for name, figures in {
            "badnets": (91.13, 99.99),
            "composite": (89.78, 95.38),
            "abstract": (91.32, 100.0),
            "content": (91.41, 99.82),
            "noise": (91.28, 99.53),
            "unrelated": (91.28, 100.0),
            "ewe": (86.33, 100.0),
            "margin": (92.34, 100.0),
            "mea-defender": (88.86, 95.01),
            "deeptracer": (91.49, 100.0),
        }.items()
    },
)
COLUMNS = ("JBDA, soft", "JBDA, label", "Knockoff, soft", "Knockoff, label", "DFME, soft", "DFME, label")
ROWS: dict[str, tuple[tuple[float, float], ...]] = {
    "badnets": ((86.56, 25.61), (81.48, 13.51), (83.05, 38.91), (57.22, 11.6), (68.35, 98.66), (57.48, 85.18)),
    "composite": ((85.59, 27.97), (81.26, 3.38), (48.65, 96.14), (42.23, 80.61), (34.99, 0), (46.42, 0)),
    "abstract": ((84.41, 19.04), (84.27, 18.3), (72.07, 39.98), (55.05, 18.26), (57.6, 17.16), (65.1, 16.38)),
    "content": ((87.49, 11.51), (82.63, 12.24), (83.21, 18.05), (54.16, 5.58), (68.13, 9.39), (69.92, 5.85)),
    "noise": ((84.86, 12.51), (81.72, 13.13), (68.85, 1.79), (38.41, 1.91), (18.31, 88.21), (25.25, 49.53)),
    "unrelated": ((86.63, 96.17), (83.75, 92.66), (80.55, 26.54), (48.73, 5.15), (58.36, 94.31), (61.43, 96.03)),
    "ewe": ((80.75, 63.74), (83.58, 56.96), (49.08, 0), (38.62, 0), (29.36, 0), (54.46, 0)),
    "margin": ((86.05, 49.92), (80.73, 41.12), (79.63, 10.4), (43.92, 12.96), (63.2, 5.12), (66, 5.28)),
    "mea-defender": ((84.66, 46.17), (82.42, 8.61), (64.49, 91.22), (59.86, 26.35), (44, 0), (46.92, 0)),
    "deeptracer": ((85.02, 91.65), (80.69, 86.9), (87.16, 100), (64.57, 100), (70.03, 100), (68.21, 100)),
}
QUERIES = "cifar10"
"""What other images Knockoff asks about: the paper does not say, and what is asked decides (docs/comparison.md)."""
TABLE_2 = printed(
    "DeepTracer, Table 2",
    {
        name: {
            trial: figure
            for column, figure in zip(COLUMNS, figures, strict=True)
            for trial in dict.fromkeys((column, column.replace("Knockoff", f"Knockoff with {QUERIES}")))
        }
        for name, figures in ROWS.items()
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
        "L_wm": {"": (84.94, 99.99), "Knockoff, soft": (75.07, 82.30)},
        "L_wm and L_intra": {"": (85.41, 99.97), "Knockoff, soft": (75.78, 89.62)},
        "L_wm and L_inter": {"": (84.94, 99.99), "Knockoff, soft": (75.07, 84.35)},
        "L_intra and L_inter": {"": (84.16, 64.38), "Knockoff, soft": (75.88, 5.58)},
        "L_wm, L_intra and L_inter": {"": (85.59, 100.0), "Knockoff, soft": (75.87, 94.61)},
    },
)


def _bench(scale: Scale) -> Bench:
    return quick() if scale == "cpu" else paper("fashion-mnist", "naivenet", ADAM)


def _deeptracer(scale: Scale) -> DeepTracer:
    """At the small scale the key filter's surrogate asks foreign images, as the paper's: of fresh ones it inherits nothing."""
    return replace(QUICK, surrogate_queries="foreign").deeptracer() if scale == "cpu" else DeepTracer()


def _methods(scale: Scale) -> dict[str, AnyMethod]:
    if scale == "cpu":
        return {
            "vanilla": QUICK.vanilla(),
            **{name: QUICK.method(name) for name in BASELINES},
            "mea-defender": QUICK.mea_defender(),
            "deeptracer": _deeptracer(scale),
            "feature-sharing": QUICK.feature_sharing(),
            "t2s": QUICK.t2s(),
        }
    model = "naivenet"
    return {
        "vanilla": Vanilla(model=model, trigger=Tiles(), pretraining=ADAM),
        **{name: replace(METHODS[name](), model=model) for name in BASELINES},
        "mea-defender": MEADefender(model=model),
        "deeptracer": DeepTracer(),
        "t2s": T2S(model=model, trigger=Tiles(), pretraining=ADAM),
    }


def _foreign(scale: Scale) -> str | None:
    """DeepTracer's surrogate takes images of another data set at the small scale, EWE and Unrelated at the paper's."""
    return QUERIES if scale == "cpu" else "mnist"


def _note(scale: Scale) -> str:
    return NOTE if scale == "cpu" else DEFAULTS


def _grid(name: str, title: str, scale: Scale, markings, trials=(), papers=()) -> Grid:  # type: ignore[no-untyped-def]
    made = block(
        "Fashion-MNIST",
        _bench(scale),
        markings,
        trials,
        trigger=Tiles(),
        pools=(QUERIES,),
        foreign=_foreign(scale),
    )
    return Grid(name=f"deeptracer-{name}", title=title, note=_note(scale), blocks=(made,), papers=papers)


def table_1(scale: Scale) -> Grid:
    """Harmlessness and effectiveness: accuracy and WSR of marked models, WSR of unmarked ones."""
    title = "What a mark costs, and whether unmarked models have it"
    return _grid("table-1", title, scale, _methods(scale), papers=TABLE_1)


def table_2(scale: Scale) -> Grid:
    """Every watermark against JBDA, Knockoff and DFME, on probabilities and on labels."""
    trials = thefts(_bench(scale), "jbda", "knockoff", f"knockoff with {QUERIES}", "dfme")
    return _grid("table-2", "Which watermarks survive which theft", scale, _methods(scale), trials, TABLE_1 + TABLE_2)


def table_3(scale: Scale) -> Grid:
    """Quantisation of the stolen model."""
    trials = [
        Trial(
            name=f"weights of {bits} bits",
            group="After theft",
            steps=(stolen(_bench(scale), QUERIES), Alteration(attack=Quantisation(bits=bits))),
            curve=("bits a weight", float(bits)),
        )
        for bits in BITS
    ]
    methods = {"deeptracer": _deeptracer(scale)}
    return _grid("table-3", "DeepTracer's copies with fewer bits", scale, methods, trials, TABLE_3)


def table_4(scale: Scale) -> Grid:
    """Parts of the loss left out."""
    whole = replace(_deeptracer(scale), key_filter=None)
    methods = {
        "L_wm": replace(whole, weight_coupling=0.0),
        "L_wm and L_intra": replace(whole, weight_inter=0.0),
        "L_wm and L_inter": replace(whole, weight_intra=0.0),
        "L_intra and L_inter": replace(whole, weight_watermark=0.0),
        "L_wm, L_intra and L_inter": whole,
    }
    return _grid("table-4", "What each part of DeepTracer's loss does", scale, methods, _knockoffs(scale), TABLE_4)


def figure_3(scale: Scale) -> Grid:
    """Fine-tuning of all layers of the stolen model, by epochs."""
    bench = _bench(scale)
    tuning = FineTuning().recipe if scale == "paper" else replace(bench.recipe, learning_rate=0.02, warmup=0.0)
    trials = [
        Trial(
            name=f"fine-tuned for {epochs} epochs",
            group="After theft",
            steps=(stolen(bench, QUERIES), Alteration(attack=FineTuning(recipe=replace(tuning, epochs=epochs)))),
            curve=("epochs of fine-tuning", float(epochs)),
        )
        for epochs in ((1, 2, 4, 8) if scale == "cpu" else (10, 20, 50, 100))
    ]
    return _grid("figure-3", "Fine-tuning of DeepTracer's copies", scale, {"deeptracer": _deeptracer(scale)}, trials)


def figure_4(scale: Scale) -> Grid:
    """Pruning of the stolen model."""
    trials = [
        trial
        for trial in compressions(stolen(_bench(scale), QUERIES))
        if trial.curve is not None and trial.curve[0] == "pruning rate"
    ]
    return _grid("figure-4", "Pruning of DeepTracer's copies", scale, {"deeptracer": _deeptracer(scale)}, trials)


def figure_5(scale: Scale) -> Grid:
    """Source classes chosen to span the data, and at random."""
    method = replace(_deeptracer(scale), key_filter=None)
    methods = {
        "adaptive": method,
        "random": replace(method, trigger=Tiles(selection="random")),
    }
    return _grid("figure-5", "How DeepTracer's classes are chosen", scale, methods, _knockoffs(scale))


def figure_6(scale: Scale) -> Grid:
    """With the key filter and without it."""
    method = _deeptracer(scale)
    methods = [
        Marking(name="no filter", method=replace(method, key_filter=None)),
        Marking(name="two stages", method=method),
    ]
    return _grid("figure-6", "What DeepTracer's key filter is worth", scale, methods, _knockoffs(scale))


def _knockoffs(scale: Scale) -> list[Trial]:
    return thefts(_bench(scale), "knockoff", f"knockoff with {QUERIES}")
