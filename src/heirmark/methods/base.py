"""What a method is, what it returns, and the preparation that all methods share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData
from heirmark.key import Key, make_key, nonce_from_seed
from heirmark.layout import copied
from heirmark.models import Architecture, ModelSpec, askable, factory_of, specify
from heirmark.runtime import Runtime, derive_seed, drawn_seed
from heirmark.task import Split, Task
from heirmark.training import Mixed, Recipe, fit
from heirmark.triggers import Secret, Trigger, TriggerSet
from heirmark.triggers.out_of_distribution import fit_shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Marked:
    """What a method returns. It holds no figure of merit: the harness judges, never the method.

    Attributes:
        model: the model, in eval mode.
        spec: what rebuilds it.
        key: held-out queries, expected answers and matched controls.
        training_triggers: the trigger samples that trained; None for an unmarked model.
        verification_triggers: the held-out samples behind the key, with their hosts.
        history: one row an epoch of the embedding, a rehearsal's with one before the first; empty where nothing is told.
    """

    model: nn.Module
    spec: ModelSpec
    key: Key
    training_triggers: TriggerSet | None
    verification_triggers: TriggerSet
    history: tuple[Mapping[str, float], ...] = ()


class Method(Protocol):
    """A watermarking method: a frozen dataclass of its parameters, called with a task."""

    def __call__(
        self, task: Task, *, seed: int | None, runtime: Runtime | None = None, clean: nn.Module | None = None
    ) -> Marked:
        """Embed a watermark.

        Args:
            task: the owner's and the calibration split are used; the adversary's and the test split are not looked at.
            seed: of everything random; the key is as secret as it is. None draws one that nobody can guess.
            runtime: device, precision, progress.
            clean: the owner's unmarked model, when there is one already; else it is trained.
        """


def train_clean(
    task: Task, architecture: Architecture, recipe: Recipe, *, seed: int, runtime: Runtime, data: Split | None = None
) -> nn.Module:
    """An unmarked model.

    Args:
        task: gives shapes, and the owner's split.
        architecture: of the model.
        recipe: of the training.
        seed: of initialisation and training.
        runtime: device, precision, progress.
        data: what to train on in place of the owner's split.
    """
    data = data or task.owner
    model = new_model(task, architecture, seed=derive_seed(seed, "clean", "init"))
    fit(
        model,
        data.inputs,
        data.labels,
        recipe=recipe,
        seed=derive_seed(seed, "clean", "training"),
        runtime=runtime,
        description="training unmarked",
    )
    return model


def train_watermarked(
    task: Task,
    architecture: Architecture,
    recipe: Recipe,
    triggers: TriggerSet,
    per_batch: int,
    *,
    seed: int,
    runtime: Runtime,
    data: Split | None = None,
) -> nn.Module:
    """A vanilla watermarked model: cross-entropy over batches that mix clean and trigger samples (T2S, eq. 1).

    Args:
        task: gives shapes, and the owner's split.
        architecture: of the model.
        recipe: of the training.
        triggers: samples that join.
        per_batch: how many join each batch.
        seed: of initialisation and training.
        runtime: device, precision, progress.
        data: clean examples in place of the owner's split.
    """
    data = data or task.owner
    model = new_model(task, architecture, seed=derive_seed(seed, "watermarked", "init"))
    fit(
        model,
        data.inputs,
        data.labels,
        recipe=recipe,
        seed=derive_seed(seed, "watermarked", "training"),
        runtime=runtime,
        mixed=Mixed(inputs=triggers.inputs, targets=triggers.targets, per_batch=per_batch),
        description="training watermarked",
    )
    return model


def spec_for(task: Task, architecture: Architecture) -> ModelSpec:
    """The specification of an architecture for a task."""
    return specify(architecture, input_shape=task.input_shape, classes=len(task.classes))


def new_model(task: Task, architecture: Architecture, *, seed: int) -> nn.Module:
    """A freshly initialised model for a task."""
    return spec_for(task, architecture).build(seed=seed, factory=factory_of(architecture))


def own_model(
    task: Task, architecture: Architecture, recipe: Recipe, clean: nn.Module | None, *, seed: int, runtime: Runtime
) -> nn.Module:
    """The owner's unmarked model: the one that was given, see :func:`heirmark.models.askable`, or else trained."""
    if clean is None:
        return train_clean(task, architecture, recipe, seed=seed, runtime=runtime)
    return askable(clean, spec_for(task, architecture))


def settle(trigger: Trigger, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime) -> Secret:
    """Settle a trigger's secrets."""
    return trigger.settle(task, clean, seed=derive_seed(seed, "trigger"), runtime=runtime)


def draw_training(secret: Secret, task: Task, count: int, *, seed: int) -> TriggerSet:
    """Trigger samples to train on, from the owner's images."""
    return secret.draw(task.owner, count, seed=derive_seed(seed, "triggers", "training"), held_out=False)


def draw_verification(secret: Secret, task: Task, count: int, *, seed: int) -> TriggerSet:
    """Trigger samples that verify, from the calibration split, on which nothing trains.

    Of a memorised secret they are the first of the samples that :func:`draw_training` gives.
    """
    if secret.memorised:
        return draw_training(secret, task, count, seed=seed)
    return secret.draw(task.calibration, count, seed=derive_seed(seed, "triggers", "verification"))


class Filter(Protocol):
    """Chooses the samples of a key among candidates; see :class:`heirmark.methods.key_filter.KeyFilter`."""

    @property
    def candidates(self) -> int:
        """How many it wants to choose from."""

    @property
    def surrogate(self) -> Architecture | None:
        """Architecture of its simulated thief; None takes the victim's."""

    @property
    def queries(self) -> str:
        """Whose images its simulated thief asks: ``"owner"`` or ``"foreign"``."""

    def __call__(
        self,
        drawn: TriggerSet,
        victim: nn.Module,
        prepared: Prepared,
        *,
        keep: int,
        architecture: Architecture,
        seed: int,
        runtime: Runtime,
    ) -> TriggerSet:
        """At most ``keep`` of the candidates."""


class Settings(Protocol):
    """What all marking methods' configurations have."""

    @property
    def model(self) -> Architecture:
        """Architecture."""

    @property
    def trigger(self) -> Trigger:
        """Kind of trigger."""

    @property
    def triggers(self) -> int:
        """Trigger samples that train."""

    @property
    def key_size(self) -> int:
        """Held-out trigger samples in the key."""

    @property
    def pretraining(self) -> Recipe:
        """Of the clean model."""

    @property
    def key_filter(self) -> Filter | None:
        """Chooses the key's samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """What an embedding starts from.

    Attributes:
        task: the data.
        clean: the owner's unmarked model, in eval mode; not to be changed.
        secret: the settled trigger.
        training: trigger samples that train.
    """

    task: Task
    clean: nn.Module
    secret: Secret
    training: TriggerSet

    @cached_property
    def data(self) -> Split:
        """The owner's split without the images that train as triggers as they are: they have another label now.

        Raises:
            BadData: when nothing is left.
        """
        owner = self.task.owner
        if self.training.inputs.shape[1:] != owner.inputs.shape[1:] or not self.secret.memorised:
            return owner
        taken = Split(inputs=self.training.inputs, labels=self.training.targets).digests()
        rows = [row for row, digest in enumerate(owner.row_digests) if digest not in taken]
        if not rows:
            raise BadData("every image of the owner's is a trigger: take fewer triggers")
        return owner if len(rows) == len(owner) else owner.subset(torch.tensor(rows))

    def watched(self, count: int, *, seed: int) -> TriggerSet:
        """Samples to follow the embedding by: fresh ones, or those that train where only these can be known."""
        if self.secret.memorised:
            return self.training
        return self.secret.draw(self.task.calibration, count, seed=derive_seed(seed, "triggers", "monitor"))


def start_from(model: nn.Module, task: Task, architecture: Architecture) -> nn.Module:
    """A copy of a model, to be marked.

    Args:
        model: stays as it is.
        task: gives shapes.
        architecture: that the marked model is said to have.

    Raises:
        BadConfig: when the model is of another: what is saved of it could not be loaded again.
    """
    wanted = {name: tensor.shape for name, tensor in new_model(task, architecture, seed=0).state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in model.state_dict().items()}:
        raise BadConfig(
            f"the model to start from is not of the architecture {spec_for(task, architecture).name!r} with the options that "
            "the method has: give one that is, or set model"
        )
    return copied(model)


class Embed(Protocol):
    """The heart of a method."""

    def __call__(
        self, prepared: Prepared, *, seed: int, runtime: Runtime
    ) -> tuple[nn.Module, tuple[Mapping[str, float], ...]]:
        """The marked model, and one row an epoch."""


def check_counts(**counts: int) -> None:
    """Make sure that numbers of samples are positive.

    Raises:
        BadConfig: when one is not.
    """
    wrong = {name: count for name, count in counts.items() if count < 1}
    if wrong:
        raise BadConfig(f"{', '.join(wrong)} must be positive, not {', '.join(map(str, wrong.values()))}")


def check_candidates(candidates: int, key_size: int) -> None:
    """Make sure that a key can be chosen in the size that is wanted.

    Raises:
        BadConfig: when it cannot.
    """
    if candidates < key_size:
        raise BadConfig(
            f"a key of {key_size} samples cannot be chosen among {candidates} candidates: raise candidates or lower key_size"
        )


def check_queries(task: Task, queries: str) -> None:
    """Make sure that a task has the images that a simulated thief is to ask.

    Raises:
        BadConfig: when it has not.
    """
    if queries == "foreign" and task.foreign is None:
        raise BadConfig(
            "queries=foreign needs a task with foreign images: --foreign NAME on the command line, "
            "load_task(..., foreign=NAME) in Python"
        )


def queries_of(prepared: Prepared, queries: str) -> Tensor:
    """What a simulated thief asks; never an image of which the key may be made.

    Args:
        prepared: task and secret.
        queries: ``"owner"`` or ``"foreign"``.

    Returns:
        ``[Q, ...]``.

    Raises:
        BadConfig: when foreign images are asked for and the task brings none.
        BadData: when none is left.
    """
    task, secret = prepared.task, prepared.secret
    check_queries(task, queries)
    if queries == "owner" or task.foreign is None:
        return prepared.data.inputs
    images = fit_shape(task.foreign.inputs, task.input_shape)
    asked = secret.foreign(held_out=not secret.memorised)
    if asked is not None:
        kept = fit_shape(asked, task.input_shape)
        banned = Split(inputs=kept, labels=torch.zeros(len(kept), dtype=torch.long)).digests()
        rows = Split(inputs=images, labels=task.foreign.labels).row_digests
        images = images[[row for row, digest in enumerate(rows) if digest not in banned]]
    if len(images) == 0:
        raise BadData("every foreign image is held out for the key: give a larger foreign set")
    return images


def mark(
    settings: Settings,
    embed: Embed,
    name: str,
    task: Task,
    *,
    seed: int | None,
    runtime: Runtime | None,
    clean: nn.Module | None,
) -> Marked:
    """What all marking methods do around their embedding: clean model, secret, samples, key.

    Args:
        settings: of the method.
        embed: its heart.
        name: for the key.
        task: the data.
        seed: of everything random; None draws one that nobody can guess.
        runtime: device, precision, progress.
        clean: the owner's unmarked model, when there is one; it stays as it is.

    Raises:
        BadConfig: when the key filter cannot work on the task, or has fewer candidates than the key is to have samples.
        ShapeMismatch: when its surrogate takes no such inputs.
        BadData: when the data give no key.
    """
    seed, runtime = drawn_seed(seed), runtime or Runtime()
    if settings.key_filter is not None:
        check_candidates(settings.key_filter.candidates, settings.key_size)
        check_queries(task, settings.key_filter.queries)
        # Refuses inputs of another shape before hours are spent.
        spec_for(task, settings.key_filter.surrogate or settings.model)
    clean = own_model(task, settings.model, settings.pretraining, clean, seed=seed, runtime=runtime)
    secret = settle(settings.trigger, task, clean, seed=seed, runtime=runtime)
    training = draw_training(secret, task, settings.triggers, seed=seed)
    prepared = Prepared(task=task, clean=clean, secret=secret, training=training)
    model, history = embed(prepared, seed=seed, runtime=runtime)
    chosen = settings.key_filter
    wanted = chosen.candidates if chosen else settings.key_size
    if secret.memorised:
        held_out = training.subset(torch.arange(min(wanted, len(training))))
    else:
        held_out = draw_verification(secret, task, wanted, seed=seed)
    if chosen:
        held_out = chosen(
            held_out,
            model,
            prepared,
            keep=settings.key_size,
            architecture=settings.model,
            seed=derive_seed(seed, "key filter"),
            runtime=runtime,
        )
    return Marked(
        model=model.eval(),
        spec=spec_for(task, settings.model),
        key=key_from(held_out, secret, task, method=name, seed=seed, trained=training),
        training_triggers=training,
        verification_triggers=held_out,
        history=history,
    )


def key_from(
    triggers: TriggerSet, secret: Secret, task: Task, *, method: str, seed: int, trained: TriggerSet | None = None
) -> Key:
    """The key of a set of held-out triggers.

    Raises:
        BadData: when a query stands among what trained: the owner's images, or the triggers in ``trained``. A memorised secret is
            the exception, which its key tells: see :mod:`heirmark.triggers.random_labels`.

    The nonce comes from the seed, so that the same seed gives the same key; it is as secret as the seed is.
    """
    key = make_key(
        queries=triggers.inputs,
        expected=triggers.targets,
        controls=triggers.controls,
        host_labels=triggers.host_labels,
        classes=len(task.classes),
        method=method,
        trigger=dict(secret.describe()),
        nonce=nonce_from_seed(derive_seed(seed, "nonce")),
    )
    if secret.memorised:
        return key
    for inputs in (task.owner.inputs, *(() if trained is None else (trained.inputs,))):
        if not key.disjoint_from(inputs):
            raise BadData("a query of the key stands among what trained: give the calibration split other images")
    return key
