"""Groups of options of ``verify``: how a suspect is fenced in, what the verifier knows of a draw, and what goes on the record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heirmark.errors import BadArtifact, BadConfig

if TYPE_CHECKING:
    from heirmark.isolation.limits import ProcessLimits
    from heirmark.keys.registration import Registration


@dataclass(frozen=True)
class Fence:
    """How a suspect is kept from doing harm by what it takes."""

    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate", help="Open the suspect, code or a folder, in a process of its own; ONNX files always are."
        ),
    ] = False
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            help="Seconds to open a suspect in a process of its own, and for each request; 300, and 3600 for a function here.",
            min=0.1,
        ),
    ] = None
    memory: Annotated[
        float, typer.Option("--memory", help="GiB that a suspect in a process of its own may take.", min=0.25)
    ] = 4.0

    @property
    def limits(self) -> ProcessLimits | None:
        """As limits of a process; None for the usual ones."""
        from heirmark.files import GIB
        from heirmark.isolation.limits import ProcessLimits

        usual = ProcessLimits(memory=int(self.memory * GIB))
        if self.timeout is None:
            return None if usual == ProcessLimits() else usual
        return replace(usual, seconds=self.timeout, total=max(usual.total, self.timeout))


@dataclass(frozen=True)
class Published:
    """What the verifier knows of a draw or a calibration, and not from who claims."""

    registration: Annotated[
        Path | None,
        typer.Option(
            "--registration", help="Of a drawn key: registration.json as it was published, not the one beside the key."
        ),
    ] = None
    beacon: Annotated[
        str | None,
        typer.Option("--beacon", help="Of a drawn key: the number that drew its answers, as it was published."),
    ] = None
    sealed_by: Annotated[
        str,
        typer.Option(
            "--sealed-by",
            help="Public key of a party whose word you take: --calibration is then a bundle that it sealed for the same key.",
        ),
    ] = ""

    def check(self, calibration: Path | None) -> None:
        """Make sure that the options go together."""
        if self.sealed_by and calibration is None:
            raise BadConfig("--sealed-by goes with --calibration BUNDLE, which that party sealed")

    def vouches_for(self, registration: Registration, beacon: str) -> bool:
        """Whether the verifier knows both.

        Raises:
            BadArtifact: when one that is known is another.
        """
        from heirmark.data.zoo import located
        from heirmark.evidence.disclosing import read_registration

        if self.registration is not None and read_registration(located(self.registration)) != registration:
            raise BadArtifact("the key was drawn from another registration than was published: it is a second draw")
        if self.beacon is not None and self.beacon.strip() != beacon.strip():
            raise BadArtifact("the key was drawn by another number than was published: it is a second draw")
        return self.registration is not None and self.beacon is not None


@dataclass(frozen=True)
class Record:
    """On whose record a suspect is asked."""

    evidence: Annotated[
        Path | None,
        typer.Option(
            "--evidence", help="Write a bundle that others can recheck; --key is then a shard that disclose wrote."
        ),
    ] = None
    signer: Annotated[
        Path | None,
        typer.Option(
            "--signer", help="With --evidence: file of your private key, made if missing: you say what was answered."
        ),
    ] = None
    trained_by: Annotated[
        str, typer.Option("--trained-by", help="With --evidence: who trained the --calibrators, in words.")
    ] = ""

    def check(self, *, wilcoxon: float | None, calibration: Path | None) -> None:
        """Make sure that the options go together."""
        if self.evidence is None:
            if self.signer is not None or self.trained_by:
                raise BadConfig("--signer and --trained-by go with --evidence FOLDER, which is written")
            return
        if self.signer is None:
            raise BadConfig("--evidence is signed by who asks: say --signer FILE, which is made if it is missing")
        if wilcoxon is not None or calibration is not None:
            raise BadConfig(
                "--evidence holds what is asked on the record and nothing else: leave --wilcoxon and --calibration out, and name "
                "unmarked models by --calibrators"
            )
