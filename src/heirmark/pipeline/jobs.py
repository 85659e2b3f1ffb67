"""What the commands do: single stages with folders of the user's at both ends."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heirmark.data import load_task
from heirmark.errors import BadArtifact, BadConfig, HeirmarkError
from heirmark.files import atomic_write_json, read_bytes, read_json
from heirmark.methods import T2S, Unmarked, Vanilla
from heirmark.models import Architecture, Factory
from heirmark.models.storage import load_model
from heirmark.pipeline.context import Context
from heirmark.pipeline.embedding import embed_stage
from heirmark.pipeline.judging import CALIBRATION, calibrate_stage, read_calibration, read_key
from heirmark.pipeline.stage import Artifact
from heirmark.pipeline.stealing import Theft, steal_stage
from heirmark.pipeline.store import Event, Store
from heirmark.runtime import Runtime, derive_seed
from heirmark.task import Task
from heirmark.verification import Calibration, Suspect, Verdict, verify

TASK = "task.json"
OnEvent = Callable[[Event, str], None]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model of :func:`embed_job` comes from, as its folder says.

    Attributes:
        data: name of the data set, or ``module:function``.
        split_seed: of who got which example.
        model: architecture by name; None for a user's own.
    """

    data: str = "fashion-mini"
    split_seed: int = 0
    model: str | None = None


def user_object(path: str) -> Any:
    """Import ``package.module:name`` of the user's own code; the current folder is searched first.

    Raises:
        BadConfig: when it cannot be imported.
    """
    module, _, name = path.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadConfig(
            f"cannot import {path!r} ({error}): write package.module:name of code that Python finds"
        ) from error
    if not callable(found):
        raise BadConfig(f"{path!r} is not callable: name a function or a class")
    return found


def load_named_task(data: str, *, seed: int, root: Path | None) -> Task:
    """A built-in data set's task by name, or the task that a user's function ``package.module:function`` returns."""
    if ":" not in data:
        return load_task(data, seed=seed, root=root)
    task = user_object(data)()
    if not isinstance(task, Task):
        raise BadConfig(f"{data!r} returned {type(task).__name__}: return a heirmark.Task")
    return task


def embed_job(
    method: T2S | Vanilla | Unmarked,
    task: Task,
    out: Path,
    *,
    seed: int,
    runtime: Runtime,
    store: Path,
    origin: Origin,
    factory: Factory | None = None,
    calibrators: int = 5,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Embed, calibrate, and write one folder with all of it.

    Args:
        method: with its settings.
        task: the data.
        out: gets ``model.*``, ``key/``, ``calibration.json``, ``task.json``, ``history.json`` and the pictures.
        seed: of the method; the models that calibrate have seeds derived from it.
        runtime: device, precision, progress.
        store: where finished stages are kept.
        origin: of the data, for ``task.json``.
        factory: of a custom model.
        calibrators: how many unmarked models calibrate the key.
        on_event: told of every stage.

    Returns:
        Facts to show.

    Raises:
        BadConfig: when ``out`` is not empty.
    """
    check_free(out)
    context = Context(task=task, runtime=runtime, factory=factory)
    unmarked = Unmarked(
        model=method.model, pretraining=method.pretraining, trigger=method.trigger, key_size=method.key_size
    )
    clean = None if isinstance(method, Unmarked) else embed_stage(unmarked, context, seed=seed, kind="train")
    start = None
    if isinstance(method, T2S) and method.initial == "watermarked":
        vanilla = Vanilla(
            model=method.model,
            trigger=method.trigger,
            triggers=method.triggers,
            key_size=method.key_size,
            pretraining=method.pretraining,
            trigger_batch=method.trigger_batch,
        )
        start = embed_stage(vanilla, context, seed=seed, clean=clean)
    stage = embed_stage(method, context, seed=seed, clean=clean, watermarked=start)
    others = [
        embed_stage(unmarked, context, seed=derive_seed(seed, "calibrator", index), kind="train")
        for index in range(calibrators)
    ]
    calibration = calibrate_stage(stage, others, context) if others else None
    labels = {
        stage.name: "embed",
        **{other.name: f"train unmarked model {index + 1}" for index, other in enumerate(others)},
    }
    if clean is not None:
        labels[clean.name] = "train the clean model"
    if start is not None:
        labels[start.name] = "embed the vanilla watermark"
    if calibration is not None:
        labels[calibration.name] = "calibrate the key"
    kept = _store(store, labels, on_event)
    made = kept.get(stage, context)
    extra = {} if calibration is None else {CALIBRATION: kept.get(calibration, context).folder / CALIBRATION}
    facts = {
        "data": origin.data,
        "split_seed": origin.split_seed,
        "model": origin.model,
        "digest": task.digest(),
        "classes": list(task.classes),
    }
    export_folder(made, out, extra=extra, task=facts)
    return {
        "model": str(out),
        "key": str(out / "key"),
        "commitment": made.summary["commitment"],
        "key_size": made.summary["key_size"],
        "calibration": f"{calibrators} unmarked models" if others else "none",
        "seconds": made.record["seconds"],
    }


def steal_job(
    theft: Theft,
    victim: Path,
    task: Task,
    out: Path,
    *,
    seed: int,
    runtime: Runtime,
    store: Path,
    factory: Factory | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Steal the model in a folder and write the copy to another.

    Raises:
        BadConfig: when ``out`` is not empty.
        BudgetExhausted: when the attack asks more than the budget.
    """
    check_free(out)
    context = Context(task=task, runtime=runtime, factory=factory, victim=victim)
    stage = steal_stage(theft, folder_digest(victim), context, seed=seed)
    made = _store(store, {stage.name: "steal"}, on_event).get(stage, context)
    export_folder(made, out)
    return {"model": str(out), "queries": made.summary["queries"], "seconds": made.record["seconds"]}


def verify_job(
    suspect: Path,
    key_folder: Path,
    calibration: Path | None,
    *,
    level: float,
    runtime: Runtime,
    factory: Factory | None = None,
) -> Verdict:
    """Judge the model in a folder, or in an ONNX file, with a key.

    Args:
        suspect: folder or ``.onnx`` file.
        key_folder: folder of the key or of the marked model.
        calibration: its file; None looks for ``calibration.json`` beside the key.
        level: of significance.
        runtime: device and precision.
        factory: of a custom model.
    """
    key = read_key(key_folder)
    if calibration is None:
        beside = [folder / CALIBRATION for folder in (key_folder, key_folder.absolute().parent)]
        calibration = next((path for path in beside if path.is_file()), None)
    measured: Calibration | None = None if calibration is None else read_calibration(calibration)
    if suspect.suffix == ".onnx":
        asked = Suspect.from_onnx(suspect, classes=key.classes)
    else:
        model, spec = load_model(suspect, factory=factory)
        asked = Suspect.from_module(model, classes=spec.classes, input_shape=spec.input_shape, runtime=runtime)
    return verify(asked, key, calibration=measured, level=level)


def inspect_folder(path: Path, *, secrets: bool = False) -> dict[str, Any]:
    """What a folder holds, read through the same checks as any use of it.

    Raises:
        BadArtifact: when it holds nothing of heirmark's, or something damaged.
    """
    facts: dict[str, Any] = {"folder": str(path)}
    if (path / "model.json").is_file():
        from heirmark.models.storage import load_spec

        spec = load_spec(path)
        facts["model"] = spec.name + ("" if not spec.options else f" {dict(spec.options)}")
        facts["input_shape"], facts["classes"] = list(spec.input_shape), spec.classes
        if spec.name != "custom":
            model, _ = load_model(path)
            facts["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    if (path / "key.json").is_file() or (path / "key" / "key.json").is_file():
        key = read_key(path)
        facts |= {"method": key.method, "queries": len(key), "key_classes": key.classes, "commitment": key.commitment}
        if secrets:
            facts["trigger"] = key.trigger
    if (path / CALIBRATION).is_file():
        calibration = read_calibration(path / CALIBRATION)
        facts["calibration"] = (
            f"{len(calibration.hits)} unmarked models, {list(calibration.hits)} hits of {calibration.trials}"
        )
    if (path / TASK).is_file():
        origin = read_origin(path)
        facts["data"], facts["split_seed"] = origin.data, origin.split_seed
    if len(facts) == 1:
        raise BadArtifact(
            f"{path} holds no model, key or calibration of heirmark's: name a folder that embed or steal wrote"
        )
    return facts


def read_origin(folder: Path) -> Origin:
    """What ``task.json`` says; the default where there is none."""
    path = folder / TASK
    if not path.is_file():
        return Origin()
    record = read_json(path, max_bytes=1 << 20)
    try:
        data, split_seed, model = record["data"], record["split_seed"], record["model"]
        if not (isinstance(data, str) and isinstance(split_seed, int) and (model is None or isinstance(model, str))):
            raise TypeError("a field of the wrong type")
    except (KeyError, TypeError) as error:
        raise BadArtifact(f"{path} is foreign or damaged ({error}): name the data yourself with --data") from error
    return Origin(data=data, split_seed=split_seed, model=model)


def folder_digest(folder: Path) -> str:
    """SHA-256 over a model's two files."""
    digest = hashlib.sha256()
    for name in ("model.json", "model.safetensors"):
        path = folder / name
        if not path.is_file():
            raise BadArtifact(f"{folder} holds no model (no {name}): name a folder that heirmark embed or steal wrote")
        digest.update(hashlib.sha256(read_bytes(path, max_bytes=1 << 33)).digest())
    return digest.hexdigest()


def check_free(out: Path) -> None:
    """Refuse to write where something is, before hours of work.

    Raises:
        BadConfig: when ``out`` is a file or a folder that is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadConfig(f"{out} is not empty: choose another --out, or remove it yourself")


def export_folder(
    artifact: Artifact, out: Path, *, extra: Mapping[str, Path] | None = None, task: Mapping[str, Any] | None = None
) -> None:
    """Copy an artifact's files to a new folder that appears whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for name in artifact.record["files"]:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(artifact.folder / name, partial / name)
        for name, source in (extra or {}).items():
            shutil.copy2(source, partial / name)
        if task is not None:
            atomic_write_json(partial / TASK, dict(task))
        partial.chmod(0o755)
        partial.replace(out)
    except OSError as error:
        raise HeirmarkError(f"cannot write {out} ({error}): choose another --out") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _store(root: Path, labels: Mapping[str, str], on_event: OnEvent | None) -> Store:
    tell = on_event or (lambda event, label: None)
    return Store(root, on_event=lambda event: tell(event, labels.get(event.name, "")))


def architecture_name(architecture: Architecture) -> str | None:
    """The name of a built-in architecture; None for a user's own."""
    return architecture if isinstance(architecture, str) else None


__all__ = [
    "Origin",
    "architecture_name",
    "embed_job",
    "inspect_folder",
    "load_named_task",
    "read_origin",
    "steal_job",
    "user_object",
    "verify_job",
]
