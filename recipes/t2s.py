"""Tables and figures of T2S (arXiv 2606.11698)."""

from __future__ import annotations

from dataclasses import replace

from common import DEFAULTS, NOTE, QUICK, Bench, Grid, block, compressions, paper, printed, quick, stolen, thefts
from heirmark.attacks import DistillTo
from heirmark.bench import Marking
from heirmark.bench.recipes import Scale
from heirmark.methods import EWE, METHODS, T2S, AnyMethod
from heirmark.models import Architecture
from heirmark.pipeline.altering import Alteration
from heirmark.pipeline.audit_attacks import quick_attacks
from heirmark.pipeline.trials import Trial
from heirmark.training import Recipe
from heirmark.triggers import AnyTrigger, Entangled, Feature, Mix, OutOfDistribution, Tiles

BASELINES = ("content", "ewe", "ssw-p", "ssw-s")
"""The watermarks that the paper compares with, in its order."""
TABLES_1_2 = printed(
    "T2S, Tables I-II (CIFAR-10, ResNet-18)",
    {
        name: dict(zip(("", "Knockoff, soft", "Knockoff, label", "DFME, soft"), figures, strict=True))
        for name, figures in {
            "content": ((89.32, 100.0), (85.94, 1.20), (81.25, 0.0), (89.32, 84.80)),
            "ewe": ((89.15, 100.0), (87.10, 15.0), (83.46, 0.60), (88.05, 87.40)),
            "ssw-p": ((89.52, 100.0), (85.02, 65.25), (83.13, 21.60), (85.39, 100.0)),
            "ssw-s": ((89.01, 100.0), (85.34, 89.60), (83.19, 72.40), (86.18, 100.0)),
            "t2s": ((89.54, 100.0), (86.87, 99.87), (82.01, 97.56), (85.27, 100.0)),
        }.items()
    },
)
TABLE_7 = printed(
    "T2S, Table VII (CIFAR-10, ResNet-18)",
    {
        "ood, rehearsed": {"Knockoff, soft": (86.10, 94.47)},
        "mix, rehearsed": {"Knockoff, soft": (83.31, 99.73)},
        "feature, rehearsed": {"Knockoff, soft": (86.87, 99.87)},
        "ood, not rehearsed": {"Knockoff, soft": (86.04, 52.33)},
        "mix, not rehearsed": {"Knockoff, soft": (86.69, 31.30)},
        "feature, not rehearsed": {"Knockoff, soft": (86.97, 3.73)},
    },
)


def _bench(scale: Scale) -> Bench:
    """In the paper Knockoff asks images of the target's training set; at the small scale, fresh ones, which is harder."""
    return quick() if scale == "cpu" else paper("cifar10", "resnet18", Recipe(), pool="owner")


def _t2s(scale: Scale, trigger: AnyTrigger | None = None) -> T2S:
    """The paper's trigger at its own scale; tiles at the small one, on which the balanced update was settled."""
    if scale == "cpu":
        return replace(QUICK.t2s(), trigger=trigger or Tiles())
    return T2S() if trigger is None else T2S(trigger=trigger)


def _foreign(scale: Scale) -> dict[str, str]:
    """EWE and SSW take images of another data set; at the small scale theirs are generated."""
    return {} if scale == "cpu" else {"foreign": "svhn"}


def _note(scale: Scale) -> str:
    return NOTE if scale == "cpu" else DEFAULTS


def _grid(name: str, title: str, scale: Scale, markings, trials, papers=(), **options) -> Grid:  # type: ignore[no-untyped-def]
    data = "Fashion-MNIST" if scale == "cpu" else "CIFAR-10"
    return Grid(
        name=name,
        title=title,
        note=_note(scale),
        blocks=(block(data, _bench(scale), markings, trials, trigger=Tiles(), **options),),
        papers=papers,
    )


def _methods(scale: Scale) -> dict[str, AnyMethod]:
    if scale == "cpu":
        return {
            "joint training": _t2s(scale).vanilla(),
            **{name: QUICK.method(name) for name in BASELINES},
            "t2s": _t2s(scale),
        }
    baselines = {name: replace(METHODS[name](), model="resnet18") for name in BASELINES}
    # EWE as its code has it for CIFAR-10, but for the foreign data set, of which one serves all: SSW's.
    ewe = EWE()
    baselines["ewe"] = replace(
        ewe,
        model="resnet18",
        trigger=Entangled(of=OutOfDistribution(source=9)),
        pretraining=replace(ewe.pretraining, epochs=50),
        training=replace(ewe.training, extras=(16, 16)),  # one batch in five
        factors=(1e5, 1e5, 1e5),
    )
    return {**baselines, "t2s": _t2s(scale)}


def table_1(scale: Scale) -> Grid:
    """Marked models: accuracy and WSR, beside unmarked ones."""
    return _grid(
        "t2s-table-1", "What a mark costs its model", scale, _methods(scale), (), TABLES_1_2, **_foreign(scale)
    )


def table_2(scale: Scale) -> Grid:
    """Knockoff on probabilities and labels, and DFME."""
    bench = _bench(scale)
    trials, title = thefts(bench, "knockoff", "dfme"), "Which watermarks survive which theft"
    return _grid("t2s-table-2", title, scale, _methods(scale), trials, TABLES_1_2, **_foreign(scale))


def table_3(scale: Scale) -> Grid:
    """Thieves of other architectures."""
    bench = _bench(scale)
    nets: dict[str, Architecture] = (
        {
            "NaiveNet": bench.model,
            "VGG-like": "vgg-like:width=16,dropout=0.1",
            "MobileNetV2": "mobilenet-v2:width=0.25",
            "AlexNet": "alexnet:width=16",
        }
        if scale == "cpu"
        else {"ResNet-18": "resnet18", "WRN-16-4": "wrn-16-4", "ViT-S": "vit-s", "MobileViT-S": "mobilevit-s"}
    )
    trials = [
        Trial(
            name=f"by {name}",
            group="Extraction",
            steps=(stolen(replace(bench, knockoff=replace(bench.knockoff, model=architecture))),),
        )
        for name, architecture in nets.items()
    ]
    papers = printed(
        "T2S, Table III (CIFAR-10)",
        {
            "t2s": {
                "by ResNet-18": (86.87, 99.87),
                "by WRN-16-4": (88.96, 99.96),
                "by ViT-S": (70.81, 80.53),
                "by MobileViT-S": (83.04, 85.20),
            }
        },
    )
    return _grid("t2s-table-3", "Thieves of other architectures", scale, {"t2s": _t2s(scale)}, trials, papers)


def table_4(scale: Scale) -> Grid:
    """Queries with other data."""
    bench = _bench(scale)
    pools = ("cifar10",) if scale == "cpu" else ("cifar100",)
    trials = [
        Trial(name="the victim's kind", group="Extraction", steps=(stolen(bench),)),
        *(Trial(name=f"with {pool}", group="Extraction", steps=(stolen(bench, pool),)) for pool in pools),
    ]
    papers = printed(
        "T2S, Table IV (CIFAR-10, ResNet-18)",
        {"t2s": {"the victim's kind": (86.87, 99.87), "with cifar100": (82.30, 99.76)}},
    )
    return _grid("t2s-table-4", "Thieves who ask other data", scale, {"t2s": _t2s(scale)}, trials, papers, pools=pools)


def table_5(scale: Scale) -> Grid:
    """A second extraction, of the stolen model."""
    bench = _bench(scale)
    trial = Trial(name="second extraction", group="After theft", steps=(stolen(bench), stolen(bench)))
    papers = printed("T2S, Table V (CIFAR-10, ResNet-18)", {"t2s": {"second extraction": (86.84, 99.93)}})
    return _grid("t2s-table-5", "A copy of the copy", scale, {"t2s": _t2s(scale)}, (trial,), papers)


def table_6(scale: Scale) -> Grid:
    """Distillation of the marked model into a smaller net, with true labels."""
    attack = quick_attacks()["distil-to"] if scale == "cpu" else DistillTo()
    trial = Trial(name="distilled with labels", group="On the model", steps=(Alteration(attack=attack),))
    papers = printed("T2S, Table VI (CIFAR-10)", {"t2s": {"distilled with labels": (90.18, 73.87)}})
    methods = {"joint training": _t2s(scale).vanilla(), "t2s": _t2s(scale)}
    return _grid("t2s-table-6", "Compression by distillation", scale, methods, (trial,), papers)


def table_7(scale: Scale) -> Grid:
    """Three kinds of trigger, rehearsed and not."""
    bench = _bench(scale)
    triggers: dict[str, AnyTrigger] = {
        "ood": OutOfDistribution(dataset="mnist") if scale == "cpu" else OutOfDistribution(),
        "mix": Mix(),
        "feature": Feature(),
    }
    methods: dict[str, AnyMethod] = {}
    for name, trigger in triggers.items():
        method = _t2s(scale, trigger)
        methods[f"{name}, not rehearsed"] = method.vanilla()
        methods[f"{name}, rehearsed"] = method
    return _grid(
        "t2s-table-7",
        "What rehearsal is worth by trigger",
        scale,
        methods,
        thefts(bench, "knockoff"),
        TABLE_7,
        foreign="mnist" if scale == "cpu" else "svhn",
    )


def figure_3(scale: Scale) -> Grid:
    """The copy's WSR by epochs of rehearsal."""
    bench, method = _bench(scale), _t2s(scale)
    markings = [
        Marking(name="0 epochs", method=method.vanilla(), curve=("epochs of rehearsal", 0.0)),
        *(
            Marking(
                name=f"{epochs} epochs",
                method=replace(method, rehearsal=replace(method.rehearsal, epochs=epochs)),
                curve=("epochs of rehearsal", float(epochs)),
            )
            for epochs in ((1, 2, 4, 8) if scale == "cpu" else (1, 2, 3, 5))
        ),
    ]
    return _grid("t2s-figure-3", "How soon rehearsal works", scale, markings, thefts(bench, "knockoff")[:1])


def figure_4(scale: Scale) -> Grid:
    """Where the target starts: watermarked, clean, or from scratch."""
    bench, method = _bench(scale), _t2s(scale)
    methods = {start: replace(method, initial=start) for start in ("watermarked", "clean", "scratch")}
    trials = thefts(bench, "knockoff")[:1]
    return _grid("t2s-figure-4", "Where rehearsal starts", scale, methods, trials, pictures=("history",))


def figure_5(scale: Scale) -> Grid:
    """Quantisation and pruning of the stolen model."""
    trials = compressions(stolen(_bench(scale)))
    return _grid("t2s-figure-5", "Compression of a copy", scale, {"t2s": _t2s(scale)}, trials)


def figure_6(scale: Scale) -> Grid:
    """Quantisation and pruning of the marked model."""
    return _grid("t2s-figure-6", "Compression of the marked model", scale, {"t2s": _t2s(scale)}, compressions())


def figure_7(scale: Scale) -> Grid:
    """The weight of utility (lambda of eq. 9) by trigger; at the small scale rho of the balanced update, which has no lambda."""
    bench = _bench(scale)
    triggers: dict[str, AnyTrigger] = {"feature": Feature(), "mix": Mix()}
    markings = []
    for name, trigger in triggers.items():
        method = _t2s(scale, trigger)
        if scale == "cpu":
            markings += [
                Marking(
                    name=f"{name}, rho {rho:g}",
                    method=replace(method, rehearsal=replace(method.rehearsal, rho=rho)),
                    curve=("rho", rho),
                )
                for rho in (0.5, 1.0, 2.0, 4.0)
            ]
        else:
            markings += [
                Marking(
                    name=f"{name}, lambda {weight:g}",
                    method=replace(method, rehearsal=replace(method.rehearsal, utility_weight=weight)),
                    curve=("lambda", weight),
                )
                for weight in (10.0, 20.0, 50.0, 100.0, 200.0)
            ]
    return _grid("t2s-figure-7", "What the weight of utility does", scale, markings, thefts(bench, "knockoff")[:1])


def figure_9(scale: Scale) -> Grid:
    """Every source with every target class, of the model (Fig. 9) and of its copy (Fig. 10)."""
    bench = _bench(scale)
    classes = range(0, 10, 3) if scale == "cpu" else range(10)
    markings = [
        Marking(
            name=f"{source} to {target}",
            method=_t2s(scale, Feature(source=source, target=target)),
            cell=(str(source), str(target)),
        )
        for source in classes
        for target in classes
        if source != target
    ]
    return _grid("t2s-figure-9", "Source and target classes", scale, markings, thefts(bench, "knockoff")[:1])
