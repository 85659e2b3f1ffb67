"""heirmark: black-box watermarks that copies made by model extraction inherit, and a sound proof that they did.

The whole in a few lines::

    import heirmark as hm

    task = hm.load_task("fashion-mini", seed=0)  # disjoint owner / adversary / calibration / test splits
    marked = hm.T2S(model="naivenet", trigger=hm.Tiles())(task, seed=0)  # model, key, history
    box = hm.BlackBox(marked.model, classes=10, answers="label", budget=50_000)  # all that a thief sees
    stolen = hm.Knockoff(model="naivenet")(box, task.adversary, seed=1)  # never sees the key
    print(hm.verify(hm.Suspect.from_module(stolen.model, classes=10), marked.key))

README.md has settings with which this takes minutes, and the calibration that a verdict should rest on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from heirmark.version import __version__

if TYPE_CHECKING:
    from heirmark.asking import predict
    from heirmark.attacks import (
        ABS,
        DFME,
        EXTRACTIONS,
        INSPECTIONS,
        JBDA,
        MAZE,
        REMOVALS,
        SCREENINGS,
        ActiveThief,
        AdaptiveUnlearning,
        Altered,
        CompositeScreen,
        Distillation,
        DistillTo,
        FinePruning,
        FineTuning,
        Inspected,
        Int8,
        Knockoff,
        KnockoffAdaptive,
        LocalOutliers,
        MislabelledMixes,
        MixProbing,
        NeuralCleanse,
        Overwriting,
        Preprocessing,
        Pruning,
        Quantisation,
        Stolen,
        Transfer,
    )
    from heirmark.blackbox import Answers, BlackBox
    from heirmark.data import DATASETS, load_images, load_task
    from heirmark.errors import HeirmarkError, HeirmarkWarning
    from heirmark.joint import Phase
    from heirmark.key import Key, make_key
    from heirmark.methods import (
        EWE,
        METHODS,
        SSWP,
        SSWS,
        T2S,
        Abstract,
        BadNets,
        Composite,
        Content,
        DeepTracer,
        FeatureSharing,
        KeyFilter,
        Margin,
        Marked,
        MEADefender,
        Noise,
        Unmarked,
        Unrelated,
        Vanilla,
    )
    from heirmark.models import MODELS, ModelSpec, build
    from heirmark.models.storage import load_model, save_model
    from heirmark.pipeline.preflight import preflight
    from heirmark.rehearsal import DistillationLoss, rehearsal_step
    from heirmark.runtime import Runtime
    from heirmark.task import Split, Task, make_task
    from heirmark.training import Recipe, accuracy, fit
    from heirmark.triggers import (
        AbstractImages,
        AutoencoderBlend,
        CropPaste,
        Entangled,
        Feature,
        GaussianNoise,
        Mix,
        OutOfDistribution,
        Patch,
        PixelBlend,
        RandomLabels,
        Stripes,
        TextStamp,
        Tiles,
    )
    from heirmark.tuning import Rehearsal, rehearse
    from heirmark.verification import (
        Calibration,
        Suspect,
        Verdict,
        WilcoxonResult,
        calibrate,
        verify,
        verify_wilcoxon,
    )

_HOMES = {
    "asking": ("predict",),
    "attacks": (
        "ABS",
        "ActiveThief",
        "AdaptiveUnlearning",
        "Altered",
        "CompositeScreen",
        "DFME",
        "DistillTo",
        "Distillation",
        "EXTRACTIONS",
        "FinePruning",
        "FineTuning",
        "INSPECTIONS",
        "Inspected",
        "Int8",
        "JBDA",
        "MAZE",
        "Knockoff",
        "KnockoffAdaptive",
        "LocalOutliers",
        "MislabelledMixes",
        "MixProbing",
        "NeuralCleanse",
        "Overwriting",
        "Preprocessing",
        "Pruning",
        "Quantisation",
        "REMOVALS",
        "SCREENINGS",
        "Stolen",
        "Transfer",
    ),
    "blackbox": ("Answers", "BlackBox"),
    "data": ("DATASETS", "load_images", "load_task"),
    "errors": ("HeirmarkError", "HeirmarkWarning"),
    "key": ("Key", "make_key"),
    "joint": ("Phase",),
    "methods": (
        "METHODS",
        "T2S",
        "Abstract",
        "BadNets",
        "Composite",
        "Content",
        "EWE",
        "Margin",
        "Noise",
        "SSWP",
        "SSWS",
        "Unrelated",
        "DeepTracer",
        "FeatureSharing",
        "KeyFilter",
        "MEADefender",
        "Marked",
        "Unmarked",
        "Vanilla",
    ),
    "models": ("MODELS", "ModelSpec", "build"),
    "models.storage": ("load_model", "save_model"),
    "pipeline.preflight": ("preflight",),
    "rehearsal": ("DistillationLoss", "rehearsal_step"),
    "runtime": ("Runtime",),
    "task": ("Split", "Task", "make_task"),
    "training": ("Recipe", "accuracy", "fit"),
    "triggers": (
        "AbstractImages",
        "Entangled",
        "GaussianNoise",
        "RandomLabels",
        "TextStamp",
        "AutoencoderBlend",
        "CropPaste",
        "Feature",
        "Mix",
        "OutOfDistribution",
        "Patch",
        "PixelBlend",
        "Stripes",
        "Tiles",
    ),
    "tuning": ("Rehearsal", "rehearse"),
    "verification": (
        "Calibration",
        "Suspect",
        "Verdict",
        "WilcoxonResult",
        "calibrate",
        "verify",
        "verify_wilcoxon",
    ),
}
_HOME = {name: f"heirmark.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 (in the order of use)
    "__version__",
    "load_task",
    "load_images",
    "DATASETS",
    "Task",
    "Split",
    "make_task",
    "MODELS",
    "ModelSpec",
    "build",
    "save_model",
    "load_model",
    "Runtime",
    "Recipe",
    "fit",
    "predict",
    "accuracy",
    "Feature",
    "Mix",
    "CropPaste",
    "PixelBlend",
    "Stripes",
    "AutoencoderBlend",
    "OutOfDistribution",
    "Patch",
    "Tiles",
    "TextStamp",
    "GaussianNoise",
    "AbstractImages",
    "Entangled",
    "RandomLabels",
    "METHODS",
    "T2S",
    "MEADefender",
    "DeepTracer",
    "FeatureSharing",
    "Phase",
    "KeyFilter",
    "EWE",
    "SSWP",
    "SSWS",
    "Margin",
    "Composite",
    "BadNets",
    "Content",
    "Noise",
    "Unrelated",
    "Abstract",
    "Vanilla",
    "Unmarked",
    "Marked",
    "preflight",
    "Rehearsal",
    "rehearse",
    "rehearsal_step",
    "DistillationLoss",
    "EXTRACTIONS",
    "Knockoff",
    "KnockoffAdaptive",
    "Distillation",
    "JBDA",
    "MAZE",
    "ActiveThief",
    "DFME",
    "Stolen",
    "REMOVALS",
    "FineTuning",
    "Pruning",
    "FinePruning",
    "Quantisation",
    "Int8",
    "Transfer",
    "DistillTo",
    "MislabelledMixes",
    "Overwriting",
    "AdaptiveUnlearning",
    "Preprocessing",
    "Altered",
    "INSPECTIONS",
    "NeuralCleanse",
    "ABS",
    "MixProbing",
    "Inspected",
    "SCREENINGS",
    "LocalOutliers",
    "CompositeScreen",
    "BlackBox",
    "Answers",
    "Key",
    "make_key",
    "Suspect",
    "Calibration",
    "Verdict",
    "calibrate",
    "verify",
    "WilcoxonResult",
    "verify_wilcoxon",
    "HeirmarkError",
    "HeirmarkWarning",
]


def __getattr__(name: str) -> Any:
    # Names are fetched when they are used, so that `heirmark --help` does not wait for torch.
    if name not in _HOME:
        raise AttributeError(f"module 'heirmark' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
