"""The zoo that the package carries, in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from heirmark.data.zoo import (
    CALIBRATORS,
    COPIES,
    DRAWN,
    DRAWN_COPY,
    FORGED,
    INNOCENTS,
    MARKED,
    PREFIX,
    ZOO,
    located,
    zoo_folder,
)
from heirmark.evidence.disclosing import read_beacon, read_registration
from heirmark.files import read_json
from heirmark.jobs.folder import ModelFolder
from heirmark.keys.key import Key
from heirmark.keys.registration import Registration
from heirmark.models import Net
from heirmark.results.verdict import Calibration
from heirmark.work.judging import CALIBRATION, read_calibration


@dataclass(frozen=True, kw_only=True, eq=False)
class Zoo:
    """Models of the embedded Fashion-MNIST, and three keys.

    Attributes:
        marked: a NaiveNet that carries the mark of ``key``, by :class:`heirmark.methods.robust.Robust`.
        key: of the mark.
        copies: stolen from it, by name: from probabilities, from labels alone, and from probabilities by a ResNet.
        innocents: twelve models of three families that no mark came near, by name.
        dishonest: a key that was forged: photos that are altered until any net takes them for a bag.
        dishonest_calibration: that its owner wrote by hand.
        drawn: a NaiveNet that carries the mark of ``drawn_key``.
        drawn_copy: stolen from it, from probabilities.
        drawn_key: whose answers ``beacon`` drew once it was registered; see :func:`heirmark.verification.verify_drawn`.
        registration: of that key.
        beacon: in earnest a number that nobody knows beforehand; here the seed of the zoo.
        made: how all of this was made, with seeds, versions and what came out.
    """

    marked: Net
    key: Key
    copies: Mapping[str, Net]
    innocents: Mapping[str, Net]
    dishonest: Key
    dishonest_calibration: Calibration
    drawn: Net
    drawn_copy: Net
    drawn_key: Key
    registration: Registration
    beacon: str
    made: Mapping[str, Any]

    @property
    def calibrators(self) -> list[nn.Module]:
        """The first six innocents, two of each family, for :func:`heirmark.verification.calibrate`; the others are suspects."""
        return [self.innocents[name].model for name in CALIBRATORS]


def load_zoo() -> Zoo:
    """Read the zoo: a fraction of a second, nothing is computed.

    Raises:
        BadArtifact: when a file of the installed package is missing or damaged.

    Examples:
        >>> zoo = load_zoo()
        >>> len(zoo.innocents), list(zoo.copies), zoo.key.kind
        (12, ['copy-probabilities', 'copy-label', 'copy-net'], 'tiles')
    """

    def folder(name: str) -> ModelFolder:
        return ModelFolder(located(PREFIX + name))

    marked, forged, drawn = folder(MARKED), folder(FORGED), folder(DRAWN)
    return Zoo(
        marked=marked.net,
        key=marked.key,
        copies={name: folder(name).net for name in COPIES},
        innocents={name: folder(name).net for name in INNOCENTS},
        dishonest=forged.key,
        dishonest_calibration=read_calibration(forged.path / CALIBRATION),
        drawn=drawn.net,
        drawn_copy=folder(DRAWN_COPY).net,
        drawn_key=drawn.key,
        registration=read_registration(drawn.path),
        beacon=read_beacon(drawn.path),
        made=read_json(zoo_folder() / ZOO),
    )
