"""What a folder of the user's holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heirmark.errors import BadArtifact
from heirmark.jobs.folder import ModelFolder
from heirmark.loading import describe_model
from heirmark.models import CUSTOM, Factory
from heirmark.models.storage import load_spec, onnx_in
from heirmark.verification import Suspect


def inspect_folder(path: Path, *, secrets: bool = False, factory: Factory | None = None) -> dict[str, Any]:
    """What a folder of a model, a key, or both holds, read through the same checks as any use of it.

    The weights of a custom model are read only with its factory; with ``secrets`` the trigger is told too.

    Raises:
        BadArtifact: when it holds nothing of heirmark's, or something damaged.
    """
    folder = ModelFolder(path, factory)
    path = folder.path
    facts: dict[str, Any] = {"folder": str(path)}
    if (path / "model.json").is_file():
        spec = load_spec(path)
        facts |= {"model": describe_model(spec), "input_shape": list(spec.input_shape), "classes": spec.classes}
        if spec.front:
            facts["queries_meet"] = [f"{kind} {strength:g}" for kind, strength in spec.front]
        if spec.name != CUSTOM or factory is not None:
            facts["parameters"] = sum(parameter.numel() for parameter in folder.net.model.parameters())
    elif (file := onnx_in(path)) is not None:
        facts |= {"model": "an ONNX file", "bytes": file.stat().st_size}
        Suspect.from_onnx(file)
    if folder.has_key:
        key = folder.key
        facts |= {"method": key.method, "queries": len(key), "key_classes": key.classes, "commitment": key.commitment}
        if secrets:
            facts["trigger"] = key.trigger
    calibration = folder.calibration
    if calibration is not None:
        facts["calibration"] = (
            f"{calibration.independent} unmarked models and {calibration.copies} copies of them, "
            f"{list(calibration.hits)} hits of {calibration.trials}"
        )
    if len(facts) == 1:
        raise BadArtifact(
            f"{path} holds no model, key or calibration of heirmark's: name a folder that embed or steal wrote"
        )
    if folder.origin is not None:
        facts["data"], facts["split_seed"] = folder.origin.data, folder.origin.split_seed
        facts["protocol"] = folder.origin.protocol
    return facts
