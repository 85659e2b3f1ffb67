"""The methods by name, each imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heirmark.configuration import Registry

if TYPE_CHECKING:
    from heirmark.methods.encoders.base import EncoderSettings
    from heirmark.methods.watermark import Method

METHODS: Registry[type[Method]] = Registry(
    "heirmark.methods",
    {
        "robust": "robust:Robust",
        "t2s": "t2s:T2S",
        "mea-defender": "mea_defender:MEADefender",
        "deeptracer": "deeptracer:DeepTracer",
        "feature-sharing": "feature_sharing:FeatureSharing",
        "ewe": "ewe:EWE",
        "ssw-p": "ssw:SSWP",
        "ssw-s": "ssw:SSWS",
        "margin": "margin:Margin",
        "composite": "composite:Composite",
        "badnets": "badnets:BadNets",
        "content": "content:Content",
        "noise": "noise:Noise",
        "unrelated": "unrelated:Unrelated",
        "abstract": "abstract:Abstract",
        "vanilla": "vanilla:Vanilla",
        "fingerprint": "fingerprint:Fingerprint",
        "unmarked": "unmarked:Unmarked",
    },
)
"""Methods: heirmark's own, the four papers', the baselines that these compare with, a fingerprint, the unmarked control arm."""

ENCODER_METHODS: Registry[type[EncoderSettings]] = Registry(
    "heirmark.methods.encoders",
    {
        "robust": "robust:RobustEncoder",
        "t2s": "t2s:T2SEncoder",
        "mea-defender": "mea_defender:MEADefenderEncoder",
        "ssl-guard": "ssl_guard:SSLGuard",
        "joint": "joint:JointEncoder",
        "unmarked": "base:UnmarkedEncoder",
    },
)
"""The same for encoders, in Python: called with a task, they give an encoder and a key that is asked behind a probe."""
