"""Stages that train or embed: a method's configuration in, a marked model and its key out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from heirmark.methods import Method, Unmarked
from heirmark.methods.nets import net_of
from heirmark.models.storage import load_model, rounded, save_model
from heirmark.stages.stage import Job, Stage
from heirmark.work.context import Context, context_of
from heirmark.work.marked_folder import save_marked


def embed_stage(
    method: Method,
    context: Context,
    *,
    seed: int,
    kind: str = "embed",
    clean: Stage | None = None,
    given: Mapping[str, Stage] | None = None,
) -> Stage:
    """A method at work.

    It takes the model of ``clean`` for the owner's unmarked one, and starts from those of ``given``, by the names that its
    ``builds_on`` gives them. Of the kind ``"train"`` is what embeds nothing.
    """
    return context.stage(run_embed, method, kind=kind, inputs={"clean": clean, **(given or {})}, seed=seed)


def marked_stage(method: Method, owner: Callable[[Method], Context], *, seed: int, clean: Stage) -> Stage:
    """A method at work, on the model of another method where it starts from such: that one is computed first, and once.

    ``owner`` gives the owner's data and hardware for a method, of which some take foreign images.
    """
    given = {role: marked_stage(first, owner, seed=seed, clean=clean) for role, first in method.builds_on().items()}
    return embed_stage(method, owner(method), seed=seed, clean=clean, given=given)


def run_embed(job: Job) -> Mapping[str, Any]:
    """Run a method and write what it returns; see :func:`heirmark.work.marked_folder.save_marked`.

    Where the clean model lies in half precision, so does the marked one: what is judged is rounded to it.
    """
    context = context_of(job)
    given = {name: load_model(found.folder, factories=context.factories) for name, found in job.inputs.items()}
    models = {name: net.model for name, net in given.items()}
    marked = job.config(context.task, seed=job.seed, runtime=context.runtime, **models)
    if "clean" in given:
        marked = replace(marked, net=rounded(marked.net, given["clean"].stored))
    save_marked(marked, job.folder)
    return {"commitment": marked.key.commitment, "key_size": len(marked.key)}


def train_stage(unmarked: Unmarked, context: Context, *, seed: int) -> Stage:
    """An unmarked model and nothing else: no key is drawn for it, which few or odd data may not give.

    Of the settings, architecture, recipe and data count.
    """
    config = Unmarked(model=unmarked.model, pretraining=unmarked.pretraining, data=unmarked.data)
    return context.stage(run_train, config, inputs={}, seed=seed)


def run_train(job: Job) -> Mapping[str, Any]:
    """Train on clean data and write the model."""
    context, unmarked = context_of(job), job.config
    model = unmarked.train(context.task, seed=job.seed, runtime=context.runtime)
    save_model(net_of(model, context.task, unmarked.model), job.folder)
    return {}
