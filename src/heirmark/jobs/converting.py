"""Write a marked model as an ONNX file, for release, if the file still carries the mark."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from heirmark.attacks import Int8
from heirmark.attacks.removal.int8 import check_writable, to_onnx
from heirmark.errors import BadConfig
from heirmark.files import atomic_write_bytes
from heirmark.jobs.folder import Data, ModelFolder
from heirmark.jobs.verify import calibration_for
from heirmark.models import Net
from heirmark.models.storage import ONNX
from heirmark.querying.asking import floats_for
from heirmark.results.verdict import Verdict
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split
from heirmark.verification import Suspect, verify
from heirmark.work.context import exact
from heirmark.work.judging import OWN_EYES, share

SUFFIX = ".onnx"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What came out.

    Attributes:
        facts: to show: how far both answer alike, and what the key says of each.
        lost: why the file was not to be written; empty where it carries the mark.
        written: whether it was.
    """

    facts: dict[str, Any]
    lost: str
    written: bool


def export_job(
    model: ModelFolder,
    key: ModelFolder,
    data: Data,
    out: Path,
    *,
    seed: int,
    runtime: Runtime,
    int8: Int8 | None = None,
    anyway: bool = False,
) -> Exported:
    """Convert a model, ask model and file the same questions, and write the file unless the mark is lost.

    The key is judged with the calibration beside it, for the owner's own eyes: any grade will do. What is judged is the file
    as it is written. Labels are compared on the test split.

    Args:
        model: what is converted; stays as it is.
        key: of the mark.
        data: of the model. The ranges of int8 are measured on the owner's own split.
        out: the file, which may not be there yet.
        seed: of the inputs that ranges are measured on.
        runtime: device.
        int8: how it is quantised; None leaves float32.
        anyway: write it though the mark be lost.

    Raises:
        BadConfig: when ``out`` is taken or no ``.onnx`` file, ONNX is not installed, or the model cannot be written in it.
        BadArtifact: when the model or the key is missing or damaged.
        ShapeMismatch: when model or key are not of the data.
    """
    _check_file(out)
    model.check_fit(data.task)
    key.check_key(data.task)
    net, eyes, calibration = model.net, exact(runtime), calibration_for(key, None)
    check_writable(net)
    content = _converted(net, data.task.owner, int8, seed=seed, runtime=runtime)
    with tempfile.TemporaryDirectory(prefix="heirmark-export-") as folder:
        file = Path(folder) / ONNX
        file.write_bytes(content)
        suspects = {
            "before": Suspect.from_net(net, runtime=eyes),
            "after": Suspect.from_onnx(file, classes=net.spec.classes),
        }
        labels = {when: suspect.labels(data.task.test.inputs) for when, suspect in suspects.items()}
        verdicts = {
            when: verify(suspect, key.key, calibration=calibration, accept=OWN_EYES)
            for when, suspect in suspects.items()
        }
    lost = _lost(verdicts["before"], verdicts["after"])
    written = anyway or not lost
    if written:
        atomic_write_bytes(out, content)
    facts: dict[str, Any] = {
        "file": str(out) if written else "not written",
        "bytes": len(content),
        "numbers": "float32" if int8 is None else "int8",
        "same_labels": share(labels["before"] == labels["after"]),
    }
    for when, verdict in verdicts.items():
        facts |= {f"{name}_{when}": value for name, value in _told(verdict, labels[when], data.task.test).items()}
    return Exported(facts=facts | {"grade": verdicts["after"].grade}, lost=lost, written=written)


def _check_file(out: Path) -> None:
    if out.suffix.lower() != SUFFIX:
        raise BadConfig(f"{out} does not end in {SUFFIX}: name the file to write so with --out")
    if out.exists():
        raise BadConfig(f"{out} is there already: choose another --out, or remove it yourself")


def _converted(net: Net, data: Split, int8: Int8 | None, *, seed: int, runtime: Runtime) -> bytes:
    """The file's content."""
    if int8 is None:
        return to_onnx(net.working_copy().eval().cpu(), floats_for(data.inputs[:2]).cpu())
    made = int8(net, data, seed=seed, runtime=runtime).onnx
    assert made is not None
    return made


def _told(verdict: Verdict, labels: Tensor, test: Split) -> dict[str, Any]:
    """One side's figures."""
    return {
        "accuracy": share(labels == test.labels),
        "outcome": verdict.outcome,
        "wsr": verdict.wsr,
        "p_value": verdict.p_value,
    }


def _lost(before: Verdict, after: Verdict) -> str:
    """Why a file is not to be released as the marked model."""
    if after.outcome == "MARKED":
        return ""
    if before.outcome != "MARKED":
        return (
            "the key does not find its mark in the model itself, so the file cannot carry it: name its own with --key"
        )
    return "the mark is lost in the file: leave --int8 out, set its fields (--set per=channel), or mark more strongly"
