"""Attacks by name. Each is one file citing its paper."""

from heirmark.attacks.base import (
    Extraction,
    Inspected,
    Inspection,
    Removal,
    Reversed,
    Screen,
    Screening,
)
from heirmark.attacks.detection.abs import ABS
from heirmark.attacks.detection.composite_screen import CompositeScreen
from heirmark.attacks.detection.local_outliers import LocalOutliers
from heirmark.attacks.detection.mix_probing import MixProbing
from heirmark.attacks.detection.neural_cleanse import NeuralCleanse
from heirmark.attacks.extraction.active_thief import ActiveThief
from heirmark.attacks.extraction.dfme import DFME
from heirmark.attacks.extraction.distillation import Distillation
from heirmark.attacks.extraction.jbda import JBDA
from heirmark.attacks.extraction.knockoff import Knockoff
from heirmark.attacks.extraction.knockoff_adaptive import KnockoffAdaptive
from heirmark.attacks.extraction.maze import MAZE
from heirmark.attacks.registry import EXTRACTIONS, INSPECTIONS, REMOVALS, SCREENINGS
from heirmark.attacks.removal.adaptive import AdaptiveUnlearning
from heirmark.attacks.removal.distillation import DistillTo
from heirmark.attacks.removal.fine_pruning import FinePruning
from heirmark.attacks.removal.fine_tuning import FineTuning
from heirmark.attacks.removal.int8 import Int8
from heirmark.attacks.removal.mislabelled_mixes import MislabelledMixes
from heirmark.attacks.removal.overwriting import Overwriting
from heirmark.attacks.removal.preprocessing import Preprocessing
from heirmark.attacks.removal.pruning import Pruning
from heirmark.attacks.removal.quantisation import Quantisation
from heirmark.attacks.removal.transfer import Transfer

__all__ = [
    "ABS",
    "DFME",
    "EXTRACTIONS",
    "INSPECTIONS",
    "JBDA",
    "MAZE",
    "REMOVALS",
    "SCREENINGS",
    "ActiveThief",
    "AdaptiveUnlearning",
    "CompositeScreen",
    "DistillTo",
    "Distillation",
    "Extraction",
    "FinePruning",
    "FineTuning",
    "Inspected",
    "Inspection",
    "Int8",
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
    "Removal",
    "Reversed",
    "Screen",
    "Screening",
    "Transfer",
]
