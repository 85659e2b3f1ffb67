"""Watermarking methods by name. Each is one file citing its paper."""

from heirmark.methods.abstract import Abstract
from heirmark.methods.badnets import BadNets
from heirmark.methods.base import Marked
from heirmark.methods.composite import Composite
from heirmark.methods.content import Content
from heirmark.methods.deeptracer import DeepTracer
from heirmark.methods.encoders.base import UnmarkedEncoder
from heirmark.methods.encoders.joint import JointEncoder
from heirmark.methods.encoders.mea_defender import MEADefenderEncoder
from heirmark.methods.encoders.robust import RobustEncoder
from heirmark.methods.encoders.ssl_guard import SSLGuard
from heirmark.methods.encoders.t2s import T2SEncoder
from heirmark.methods.ewe import EWE
from heirmark.methods.feature_sharing import FeatureSharing
from heirmark.methods.fingerprint import Fingerprint
from heirmark.methods.key_filter import KeyFilter
from heirmark.methods.margin import Margin
from heirmark.methods.mea_defender import MEADefender
from heirmark.methods.noise import Noise
from heirmark.methods.power_filter import PowerFilter
from heirmark.methods.registry import ENCODER_METHODS, METHODS
from heirmark.methods.robust import Robust
from heirmark.methods.ssw import SSWP, SSWS
from heirmark.methods.t2s import T2S
from heirmark.methods.unmarked import Unmarked
from heirmark.methods.unrelated import Unrelated
from heirmark.methods.vanilla import Vanilla
from heirmark.methods.watermark import Method, Watermark

__all__ = [
    "ENCODER_METHODS",
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
    "Fingerprint",
    "JointEncoder",
    "KeyFilter",
    "MEADefender",
    "MEADefenderEncoder",
    "Margin",
    "Marked",
    "Method",
    "Noise",
    "PowerFilter",
    "Robust",
    "RobustEncoder",
    "SSLGuard",
    "T2SEncoder",
    "Unmarked",
    "UnmarkedEncoder",
    "Unrelated",
    "Vanilla",
    "Watermark",
]
