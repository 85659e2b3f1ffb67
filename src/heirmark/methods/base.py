"""What methods start from and return: settled triggers, samples drawn of them, and a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData
from heirmark.keys.key import Key
from heirmark.keys.lots import Lots
from heirmark.keys.making import make_key, nonce_from_seed
from heirmark.models import Net
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.space import Tokens, check_needs
from heirmark.tasks.storing import row_digests
from heirmark.tasks.task import Split, Task
from heirmark.triggers import Secret, Trigger, TriggerSet
from heirmark.triggers.groups import GroupedSet, GroupsSecret
from heirmark.triggers.out_of_distribution import fit_shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Marked:
    """What a method returns. It holds no figure of merit: the harness judges, never the method.

    Attributes:
        net: the model, in eval mode, and what rebuilds it.
        key: held-out queries, expected answers and matched controls.
        training_triggers: the trigger samples that trained; None where none did.
        verification_triggers: the held-out samples behind the key, with their hosts.
        history: one row an epoch of the embedding, a rehearsal's with one before the first; empty where nothing is told.
    """

    net: Net
    key: Key
    training_triggers: TriggerSet | None
    verification_triggers: TriggerSet
    history: tuple[Mapping[str, float], ...] = ()

    @property
    def model(self) -> nn.Module:
        """The model, in eval mode."""
        return self.net.model


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """What the heart of a method returns.

    Attributes:
        model: the marked model.
        history: one row an epoch; empty where nothing is told.
        training: the trigger samples as they are in the end; None where training left them as they were.
        finish: makes the key's samples of drawn ones, as the embedding did of those that trained; None where it did nothing.
    """

    model: nn.Module
    history: tuple[Mapping[str, float], ...] = ()
    training: TriggerSet | None = None
    finish: Callable[[TriggerSet], TriggerSet] | None = None


def settle(trigger: Trigger, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime) -> Secret:
    """Settle a trigger's secrets."""
    check_needs(trigger, task.space)
    return trigger.settle(task, clean, seed=derive_seed(seed, "trigger"), runtime=runtime)


def draw_training(secret: Secret, task: Task, count: int, *, seed: int) -> TriggerSet:
    """Trigger samples to train on, from the owner's images."""
    return secret.draw(task.owner, count, seed=derive_seed(seed, "triggers", "training"), held_out=False)


def draw_verification(secret: Secret, task: Task, count: int, *, seed: int, hosts: Split | None = None) -> TriggerSet:
    """Trigger samples that verify, from the calibration split or the part of it that ``hosts`` is, on which nothing trains.

    Of a memorised secret they are the first of the samples that :func:`draw_training` gives.
    """
    if secret.memorised:
        return draw_training(secret, task, count, seed=seed)
    hosts = task.calibration if hosts is None else hosts
    return secret.draw(hosts, count, seed=derive_seed(seed, "triggers", "verification"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """What an embedding starts from.

    Attributes:
        task: the data.
        clean: the owner's unmarked model, in eval mode; not to be changed.
        secret: the settled trigger.
        training: trigger samples that train.
        given: models that were handed in, by the names that the method's ``builds_on`` gives them.
        nets: clean nets beside the model that is marked, by names of the method's own, where it trains any before the secret is
            settled.
        references: those of them that are trained to the end. Beside the clean model they say what is usual to a key whose
            answers are drawn.
    """

    task: Task
    clean: nn.Module
    secret: Secret
    training: TriggerSet
    given: Mapping[str, nn.Module] = field(default_factory=dict)
    nets: Mapping[str, nn.Module] = field(default_factory=dict)
    references: tuple[nn.Module, ...] = ()

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


def lots_of(triggers: TriggerSet, prepared: Prepared, runtime: Runtime) -> Lots | None:
    """What the answers of a key are drawn among, if they are, and what unmarked models say."""
    secret, classes = prepared.secret, len(prepared.task.classes)
    if not isinstance(triggers, GroupedSet) or not isinstance(secret, GroupsSecret):
        return None
    lots = Lots(groups=triggers.groups, candidates=torch.tensor(secret.candidates))
    said = [predict(net, triggers.inputs, runtime=runtime).argmax(1) for net in (prepared.clean, *prepared.references)]
    return replace(lots, usual=torch.stack([lots.shares(answers, classes) for answers in said]))


def without_repeats(triggers: TriggerSet, task: Task, trained: TriggerSet | None) -> TriggerSet:
    """Triggers of texts without those that trained: of two hosts that differ in their last words a phrase cuts these off.

    Raises:
        BadData: when none is left.
    """
    known = set(task.owner.digests()) | (set() if trained is None else set(row_digests(trained.inputs)))
    kept = [row for row, digest in enumerate(row_digests(triggers.inputs)) if digest not in known]
    if not kept:
        raise BadData("every query of the key stands among what trained: give longer texts, or a shorter phrase")
    return triggers if len(kept) == len(triggers) else triggers.subset(torch.tensor(kept))


def key_from(
    triggers: TriggerSet,
    secret: Secret,
    task: Task,
    *,
    method: str,
    seed: int,
    trained: TriggerSet | None = None,
    lots: Lots | None = None,
) -> Key:
    """The key of a set of held-out triggers.

    Raises:
        BadData: when a query stands among what trained: the owner's images, or the triggers in ``trained``. A memorised secret is
            the exception, which its key tells: see :mod:`heirmark.triggers.random_labels`.

    The nonce comes from the seed, so that the same seed gives the same key; it is as secret as the seed is.
    """
    if isinstance(task.space, Tokens) and not secret.memorised:
        triggers = without_repeats(triggers, task, trained)
    key = make_key(
        queries=triggers.inputs,
        expected=triggers.targets,
        controls=triggers.controls,
        host_labels=triggers.host_labels,
        classes=len(task.classes),
        method=method,
        trigger=dict(secret.describe()),
        nonce=nonce_from_seed(derive_seed(seed, "nonce")),
        kind=secret.kind,
        memorised=secret.memorised,
        reference=secret.reference,
        lots=lots,
        medium=task.medium,
    )
    if secret.memorised:
        return key
    for inputs in (task.owner.inputs, *(() if trained is None else (trained.inputs,))):
        if not key.disjoint_from(inputs):
            raise BadData("a query of the key stands among what trained: give the calibration split other images")
    return key
