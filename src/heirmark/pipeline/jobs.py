"""What the commands do: single stages with folders of the user's at both ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heirmark.blackbox import BlackBox
from heirmark.configuration import to_json
from heirmark.errors import BadArtifact, BadConfig, BadData
from heirmark.methods import T2S, AnyMethod, Unmarked
from heirmark.methods.base import check_queries
from heirmark.models import CUSTOM, Factory, factory_of
from heirmark.models.storage import ONNX, load_model, load_spec
from heirmark.pipeline.context import Context, exact
from heirmark.pipeline.embedding import embed_stage
from heirmark.pipeline.exporting import TWIN, OnEvent, Origin, check_free, export_folder, labelled_store, read_origin
from heirmark.pipeline.judging import CALIBRATION, calibrate_stage, read_calibration, read_key
from heirmark.pipeline.named import check_architecture, check_given, describe_model
from heirmark.runtime import Runtime, derive_seed
from heirmark.task import Task
from heirmark.triggers import Entangled
from heirmark.verification import Calibration, Suspect, Verdict, verify
from heirmark.verification.verify import LEAST_QUERIES
from heirmark.verification.wilcoxon import WilcoxonResult, independent_triggers, verify_wilcoxon


def embed_job(
    method: AnyMethod,
    task: Task,
    out: Path,
    *,
    seed: int,
    runtime: Runtime,
    store: Path,
    origin: Origin,
    calibrators: int = 5,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Embed, calibrate, and write one folder with all of it.

    Args:
        method: with its settings.
        task: the data.
        out: gets ``model.*``, ``key/``, ``calibration.json``, ``task.json``, ``twin.json``, ``history.json`` and the pictures.
        seed: of the method; the models that calibrate have seeds derived from it.
        runtime: device, precision, progress.
        store: where finished stages are kept.
        origin: of the data, for ``task.json``.
        calibrators: how many unmarked models calibrate the key.
        on_event: told of every stage.

    Returns:
        Facts to show.

    Raises:
        BadConfig: when ``out`` is not free, the model does not fit the task, or the key could never be judged.
        BadData: when the data give too few triggers for a key.
    """
    check_free(out)
    key_filter = getattr(method, "key_filter", None)
    for asking in (method, key_filter):
        check_queries(task, getattr(asking, "queries", "owner"))
    surrogate = getattr(key_filter, "surrogate", None)
    for architecture in (method.model, *getattr(method, "thieves", ()), *([] if surrogate is None else [surrogate])):
        check_architecture(architecture, input_shape=task.input_shape, classes=task.num_classes)
    if method.key_size < LEAST_QUERIES:
        raise BadConfig(
            f"no verdict can rest on a key of {method.key_size} queries: set key_size to {LEAST_QUERIES} or more"
        )
    context = Context(task=task, runtime=runtime, factory=factory_of(method.model))
    # Nobody asks for the key of an unmarked model here, and to perturb one would cost more than to train the model.
    trigger = method.trigger.of if isinstance(method.trigger, Entangled) else method.trigger
    unmarked = Unmarked(model=method.model, pretraining=method.pretraining, trigger=trigger, key_size=method.key_size)
    clean = None if isinstance(method, Unmarked) else embed_stage(unmarked, context, seed=seed, kind="train")
    start = None
    if isinstance(method, T2S) and method.initial == "watermarked":
        start = embed_stage(method.first_phase(), context, seed=seed, clean=clean)
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
        labels[start.name] = "embed the watermark to rehearse"
    if calibration is not None:
        labels[calibration.name] = "calibrate the key"
    kept = labelled_store(store, labels, on_event)
    made = kept.get(stage, context)
    if made.summary["key_size"] < LEAST_QUERIES:
        filtered = key_filter is not None
        raise BadData(
            f"{'the key filter left' if filtered else 'the calibration split gave'} only {made.summary['key_size']} different "
            f"triggers, and no verdict can rest on fewer than {LEAST_QUERIES}: "
            + (
                "raise key_filter.candidates, or set key_filter=none"
                if filtered
                else "give it more images of the source classes"
            )
        )
    extra = {} if calibration is None else {CALIBRATION: kept.get(calibration, context).folder / CALIBRATION}
    export_folder(made, out, task=task, origin=origin, extra=extra, records={TWIN: to_json(unmarked)})
    return {
        "model": str(out),
        "key": str(out / "key"),
        "commitment": made.summary["commitment"],
        "key_size": made.summary["key_size"],
        "calibration": f"{calibrators} unmarked models" if others else "none",
        "seconds": made.record["seconds"],
    }


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
        # Above a folder named key lies what embed wrote with it; above any other, somebody else's calibration perhaps.
        folders = [key_folder, *([key_folder.absolute().parent] if key_folder.absolute().name == "key" else [])]
        calibration = next((folder / CALIBRATION for folder in folders if (folder / CALIBRATION).is_file()), None)
    measured: Calibration | None = None if calibration is None else read_calibration(calibration)
    file = onnx_of(suspect)
    if file is not None:
        asked = Suspect.from_onnx(file, classes=key.classes)
    else:
        check_given(load_spec(suspect), factory, suspect)
        model, spec = load_model(suspect, factory=factory)
        asked = Suspect.from_module(model, classes=spec.classes, input_shape=spec.input_shape, runtime=exact(runtime))
    return verify(asked, key, calibration=measured, level=level)


def onnx_of(suspect: Path) -> Path | None:
    """The ONNX file that a suspect is or that its folder holds instead of a model of PyTorch's; None without one."""
    if suspect.suffix.lower() == ".onnx":
        return suspect
    found = suspect / ONNX
    return found if found.is_file() and not (suspect / "model.json").is_file() else None


def check_wilcoxon(suspect: Path) -> None:
    """Make sure that a suspect gives probabilities.

    Raises:
        BadConfig: for an ONNX file, of which nothing says whether it does.
    """
    if onnx_of(suspect) is not None:
        raise BadConfig(
            "--wilcoxon needs probabilities, and nothing says whether an ONNX file gives them: leave it out, "
            "or use heirmark.verification.wilcoxon.verify_wilcoxon with a BlackBox"
        )


def wilcoxon_job(
    suspect: Path, key_folder: Path, *, margin: float, runtime: Runtime, factory: Factory | None = None
) -> WilcoxonResult:
    """Put the model in a folder to Feature Sharing's test, which asks it for probabilities.

    Args:
        suspect: folder.
        key_folder: folder of the key or of the marked model.
        margin: the paper's alpha.
        runtime: device and precision.
        factory: of a custom model.
    """
    model, spec = load_model(suspect, factory=factory)
    box = BlackBox(model, classes=spec.classes, input_shape=spec.input_shape, runtime=exact(runtime))
    key = read_key(key_folder)
    # A resample of fewer than 5 could never reject at 0.05.
    return verify_wilcoxon(box, key, margin=margin, share=max(0.1, min(1.0, 5 / len(independent_triggers(key)))))


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
            f"{len(calibration.hits)} unmarked models, {list(calibration.hits)} hits of {calibration.trials}"
        )
    origin = read_origin(path)
    if len(facts) == 1:
        raise BadArtifact(
            f"{path} holds no model, key or calibration of heirmark's: name a folder that embed or steal wrote"
        )
    if origin is not None:
        facts["data"], facts["split_seed"] = origin.data, origin.split_seed
    return facts


__all__ = ["check_wilcoxon", "embed_job", "inspect_folder", "verify_job", "wilcoxon_job"]
