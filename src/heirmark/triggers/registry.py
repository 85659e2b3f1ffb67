"""The kinds of trigger by name, each imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heirmark.configuration import Registry

if TYPE_CHECKING:
    from heirmark.triggers.base import Trigger

TRIGGERS: Registry[type[Trigger]] = Registry(
    "heirmark.triggers",
    {
        "feature": "feature:Feature",
        "mix": "mix:Mix",
        "out-of-distribution": "out_of_distribution:OutOfDistribution",
        "patch": "patch:Patch",
        "tone": "tone:Tone",
        "phrase": "phrase:Phrase",
        "tiles": "tiles:Tiles",
        "text-stamp": "stamps:TextStamp",
        "gaussian-noise": "stamps:GaussianNoise",
        "abstract-images": "abstract:AbstractImages",
        "entangled": "entangled:Entangled",
        "random-labels": "random_labels:RandomLabels",
        "mistakes": "mistakes:Mistakes",
        "groups": "groups:Groups",
    },
)
"""The kinds that a method's configuration may name."""
