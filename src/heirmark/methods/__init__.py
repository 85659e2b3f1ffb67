"""Watermarking methods by name. Each is one file citing its paper."""

from heirmark.methods.abstract import Abstract
from heirmark.methods.badnets import BadNets
from heirmark.methods.base import Marked
from heirmark.methods.composite import Composite
from heirmark.methods.content import Content
from heirmark.methods.deeptracer import DeepTracer
from heirmark.methods.ewe import EWE
from heirmark.methods.feature_sharing import FeatureSharing
from heirmark.methods.key_filter import KeyFilter
from heirmark.methods.margin import Margin
from heirmark.methods.mea_defender import MEADefender
from heirmark.methods.noise import Noise
from heirmark.methods.ssw import SSWP, SSWS
from heirmark.methods.t2s import T2S
from heirmark.methods.unmarked import Unmarked
from heirmark.methods.unrelated import Unrelated
from heirmark.methods.vanilla import Vanilla
from heirmark.methods.watermark import Method, Watermark

__all__ = [
    "EWE",
    "METHODS",
    "SSWP",
    "SSWS",
    "T2S",
    "Abstract",
    "BadNets",
    "Composite",
    "Content",
    "DeepTracer",
    "FeatureSharing",
    "KeyFilter",
    "MEADefender",
    "Margin",
    "Marked",
    "Method",
    "Noise",
    "Unmarked",
    "Unrelated",
    "Vanilla",
    "Watermark",
]

METHODS: dict[str, type[Method]] = {
    "t2s": T2S,
    "mea-defender": MEADefender,
    "deeptracer": DeepTracer,
    "feature-sharing": FeatureSharing,
    "ewe": EWE,
    "ssw-p": SSWP,
    "ssw-s": SSWS,
    "margin": Margin,
    "composite": Composite,
    "badnets": BadNets,
    "content": Content,
    "noise": Noise,
    "unrelated": Unrelated,
    "abstract": Abstract,
    "vanilla": Vanilla,
    "unmarked": Unmarked,
}
"""Methods: the four that are made against extraction, the baselines that they compare with, and the unmarked control arm."""
