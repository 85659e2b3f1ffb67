"""The zoo that the package carries, in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from heirmark.data.zoo import CALIBRATORS, COPIES, FORGED, INNOCENTS, MARKED, PREFIX, ZOO, located, zoo_folder
from heirmark.files import read_json
from heirmark.jobs.folder import ModelFolder
from heirmark.keys.key import Key
from heirmark.models import Net
from heirmark.results.verdict import Calibration
from heirmark.work.judging import CALIBRATION, read_calibration


@dataclass(frozen=True, kw_only=True, eq=False)
class Zoo:
    """Models of the embedded Fashion-MNIST, and two keys.

    Attributes:
        marked: a NaiveNet that carries the mark of ``key``, by :class:`heirmark.methods.robust.Robust`.
        key: of the mark.
        copies: stolen from it, by name: from probabilities, from labels alone, and from probabilities by a ResNet.
        innocents: twelve models of three families that no mark came near, by name.
        dishonest: a key that was forged: photos that are altered until any net takes them for a bag.
        dishonest_calibration: that its owner wrote by hand.
        made: how all of this was made, with seeds, versions and what came out.
    """

    marked: Net
    key: Key
    copies: Mapping[str, Net]
    innocents: Mapping[str, Net]
    dishonest: Key
    dishonest_calibration: Calibration
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

    marked, forged = folder(MARKED), folder(FORGED)
    return Zoo(
        marked=marked.net,
        key=marked.key,
        copies={name: folder(name).net for name in COPIES},
        innocents={name: folder(name).net for name in INNOCENTS},
        dishonest=forged.key,
        dishonest_calibration=read_calibration(forged.path / CALIBRATION),
        made=read_json(zoo_folder() / ZOO),
    )
