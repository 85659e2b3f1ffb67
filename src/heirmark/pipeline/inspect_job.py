"""What a folder of the user's holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heirmark.errors import BadArtifact
from heirmark.models import CUSTOM, Factory
from heirmark.models.storage import ONNX, load_model, load_spec
from heirmark.pipeline.exporting import read_origin
from heirmark.pipeline.judging import CALIBRATION, read_calibration, read_key
from heirmark.pipeline.loading import check_given, describe_model
from heirmark.verification import Suspect


def inspect_folder(path: Path, *, secrets: bool = False, factory: Factory | None = None) -> dict[str, Any]:
    """What a folder holds, read through the same checks as any use of it.

    Args:
        path: folder of a model, a key, or both.
        secrets: tell the trigger too.
        factory: of a custom model, whose weights are read only with it.

    Raises:
        BadArtifact: when it holds nothing of heirmark's, or something damaged.
    """
    facts: dict[str, Any] = {"folder": str(path)}
    if (path / "model.json").is_file():
        spec = load_spec(path)
        facts |= {"model": describe_model(spec), "input_shape": list(spec.input_shape), "classes": spec.classes}
        if spec.front:
            facts["queries_meet"] = [f"{kind} {strength:g}" for kind, strength in spec.front]
        if spec.name != CUSTOM or factory is not None:
            check_given(spec, factory, path)
            model, _ = load_model(path, factory=factory)
            facts["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    elif (path / ONNX).is_file():
        facts |= {"model": "an ONNX file", "bytes": (path / ONNX).stat().st_size}
        Suspect.from_onnx(path / ONNX)
    key = None
    if (path / "key.json").is_file() or (path / "key" / "key.json").is_file():
        key = read_key(path)
        facts |= {"method": key.method, "queries": len(key), "key_classes": key.classes, "commitment": key.commitment}
        if secrets:
            facts["trigger"] = key.trigger
    if (path / CALIBRATION).is_file():
        calibration = read_calibration(path / CALIBRATION)
        if key is not None and calibration.key != key.commitment:
            raise BadArtifact(f"{path / CALIBRATION} belongs to another key than the one beside it: remove it")
        facts["calibration"] = (
            f"{calibration.independent} unmarked models and {calibration.copies} copies of such, "
            f"{list(calibration.hits)} hits of {calibration.trials}"
        )
    origin = read_origin(path)
    if len(facts) == 1:
        raise BadArtifact(
            f"{path} holds no model, key or calibration of heirmark's: name a folder that embed or steal wrote"
        )
    if origin is not None:
        facts["data"], facts["split_seed"] = origin.data, origin.split_seed
    return facts
