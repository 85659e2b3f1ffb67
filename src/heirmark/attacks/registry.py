"""The attacks by name, each imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heirmark.configuration import Registry

if TYPE_CHECKING:
    from heirmark.attacks.base import Extraction, Inspection, Removal, Screening

EXTRACTIONS: Registry[type[Extraction]] = Registry(
    "heirmark.attacks.extraction",
    {
        "knockoff": "knockoff:Knockoff",
        "knockoff-adaptive": "knockoff_adaptive:KnockoffAdaptive",
        "distillation": "distillation:Distillation",
        "active-thief": "active_thief:ActiveThief",
        "jbda": "jbda:JBDA",
        "dfme": "dfme:DFME",
        "maze": "maze:MAZE",
    },
)
"""Extraction attacks: a black box and data in, a stolen model out."""

ENCODER_EXTRACTIONS: Registry[type[Extraction]] = Registry(
    "heirmark.attacks.extraction",
    {
        "feature-distillation": "feature_distillation:FeatureDistillation",
        "stolen-encoder": "stolen_encoder:StolenEncoder",
        "cont-steal": "cont_steal:ContSteal",
    },
)
"""The same on encoders: the box shows features in place of answers about classes."""

REMOVALS: Registry[type[Removal]] = Registry(
    "heirmark.attacks.removal",
    {
        "fine-tuning": "fine_tuning:FineTuning",
        "fine-pruning": "fine_pruning:FinePruning",
        "int8": "int8:Int8",
        "distil-to": "distillation:DistillTo",
        "transfer": "transfer:Transfer",
        "mislabelled-mixes": "mislabelled_mixes:MislabelledMixes",
        "overwriting": "overwriting:Overwriting",
        "wrk": "wrk:WRK",
        "mark-erase": "mark_erase:MarkErase",
        "adaptive": "adaptive:AdaptiveUnlearning",
        "pruning": "pruning:Pruning",
        "quantisation": "quantisation:Quantisation",
        "preprocessing": "preprocessing:Preprocessing",
    },
)
"""Removal attacks: a model and labelled data in, an altered model out."""

INSPECTIONS: Registry[type[Inspection]] = Registry(
    "heirmark.attacks.detection",
    {
        "neural-cleanse": "neural_cleanse:NeuralCleanse",
        "abs": "abs:ABS",
        "mix-probing": "mix_probing:MixProbing",
    },
)
"""Detection attacks on models: a model and data in, suspected target classes out."""

SCREENINGS: Registry[type[Screening]] = Registry(
    "heirmark.attacks.detection",
    {
        "lof": "local_outliers:LocalOutliers",
        "composites": "composite_screen:CompositeScreen",
    },
)
"""Detection attacks on queries: a model and data in, a screen out."""
