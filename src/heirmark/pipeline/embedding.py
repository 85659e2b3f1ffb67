"""Stages that train or embed: a method's configuration in, a marked model and its key out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heirmark.methods.base import Method
from heirmark.models.storage import load_model
from heirmark.pipeline.context import Context, context_of
from heirmark.pipeline.folders import save_marked
from heirmark.pipeline.stage import Job, Stage


def embed_stage(
    method: Method,
    context: Context,
    *,
    seed: int,
    kind: str = "embed",
    clean: Stage | None = None,
    watermarked: Stage | None = None,
) -> Stage:
    """A method at work.

    Args:
        method: its configuration is part of the stage's identity.
        context: data and hardware.
        seed: of the method.
        kind: ``"train"`` says that nothing is embedded.
        clean: a stage whose model the method takes for the owner's unmarked one.
        watermarked: a stage whose model T2S starts from.
    """
    inputs = {name: stage for name, stage in (("clean", clean), ("watermarked", watermarked)) if stage is not None}
    return Stage(kind=kind, run=run_embed, config=method, inputs=inputs, seed=seed, external=context.external())


def run_embed(job: Job) -> Mapping[str, Any]:
    """Run a method and write what it returns; see :func:`heirmark.pipeline.folders.save_marked`."""
    context = context_of(job)
    given = {name: load_model(found.folder, factory=context.factory)[0] for name, found in job.inputs.items()}
    marked = job.config(context.task, seed=job.seed, runtime=context.runtime, **given)
    save_marked(marked, job.folder)
    return {"commitment": marked.key.commitment, "key_size": len(marked.key)}
