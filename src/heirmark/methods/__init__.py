"""Watermarking methods by name. Each is one file citing its paper."""

from heirmark.methods.base import Marked, Method
from heirmark.methods.deeptracer import DeepTracer
from heirmark.methods.feature_sharing import FeatureSharing
from heirmark.methods.key_filter import KeyFilter
from heirmark.methods.mea_defender import MEADefender
from heirmark.methods.t2s import T2S
from heirmark.methods.unmarked import Unmarked
from heirmark.methods.vanilla import Vanilla

__all__ = [
    "METHODS",
    "T2S",
    "AnyMethod",
    "DeepTracer",
    "FeatureSharing",
    "KeyFilter",
    "MEADefender",
    "Marked",
    "Method",
    "Unmarked",
    "Vanilla",
]

AnyMethod = T2S | MEADefender | DeepTracer | FeatureSharing | Vanilla | Unmarked
"""The methods that a configuration may name."""

METHODS: dict[str, type[AnyMethod]] = {
    "t2s": T2S,
    "mea-defender": MEADefender,
    "deeptracer": DeepTracer,
    "feature-sharing": FeatureSharing,
    "vanilla": Vanilla,
    "unmarked": Unmarked,
}
"""Methods, the unmarked control arm among them."""
