"""What marks an encoder: its settings, and what it does around its embedding.

An encoder has no classes. The owner has: his labelled examples and a linear probe on his encoder's features make a classifier of
it, by which triggers are settled as on any other. A mark brings the features of trigger samples to where those of the target
class lie, and the key is asked behind whatever probe a verifier fits (:meth:`heirmark.verification.Suspect.from_encoder`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from heirmark.configuration import at_least, checked, within
from heirmark.errors import BadConfig
from heirmark.keys.key import Key
from heirmark.methods.base import Embedded, Marked, Prepared, draw_training, draw_verification, key_from, settle
from heirmark.methods.nets import start_from_spec
from heirmark.models import Architecture, ModelSpec, Net, architecture, fresh_net, specify
from heirmark.runtime import Runtime, derive_seed, drawn_seed, generator_of
from heirmark.tasks.space import Images, Need, Waves, check_needs
from heirmark.tasks.task import Split, Task
from heirmark.training.contrastive import SimCLR, pretrain
from heirmark.training.linear_probe import LinearProbe, Probed, probe_encoder
from heirmark.triggers import AnyTrigger, Mix, TriggerSet
from heirmark.triggers.base import pick
from heirmark.triggers.groups import GroupsSecret


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedEncoder(Prepared):
    """What the marking of an encoder starts from: ``clean`` is the encoder with the owner's probe behind it.

    Attributes:
        encoder: the owner's unmarked encoder, in eval mode; not to be changed.
        probe: the owner's, of its features.
    """

    encoder: nn.Module
    probe: LinearProbe


@dataclass(frozen=True, kw_only=True)
@checked
class EncoderSettings:
    """What all methods on encoders know: how an unmarked one is built and trained.

    Attributes:
        model: architecture, built for as many outputs as there are features.
        width: features of an input, D.
        key_size: held-out samples in the key.
        pretraining: how encoders learn without labels.
    """

    name: ClassVar[str]
    needs: ClassVar[Need] = Images | Waves

    model: Architecture = architecture("resnet18")
    width: Annotated[int, within(2, 1 << 16)] = 128
    key_size: Annotated[int, at_least(1)] = 500
    pretraining: SimCLR = field(default=SimCLR())

    def spec(self, task: Task) -> ModelSpec:
        """What rebuilds an encoder of such inputs."""
        return specify(self.model, input_shape=task.input_shape, classes=self.width)

    def new(self, task: Task, *, seed: int) -> nn.Module:
        """An encoder that has learned nothing yet."""
        return fresh_net(self.model, input_shape=task.input_shape, classes=self.width, seed=seed).model

    def fresh(self, task: Task, *, seed: int, runtime: Runtime, data: Split | None = None) -> nn.Module:
        """An unmarked encoder, trained on the owner's inputs or others."""
        encoder = self.new(task, seed=derive_seed(seed, "clean", "init"))
        inputs = (data or task.owner).inputs
        how, drawn = self.pretraining, derive_seed(seed, "clean", "training")
        pretrain(encoder, inputs, width=self.width, settings=how, seed=drawn, runtime=runtime)
        return encoder

    def copy_of(self, encoder: nn.Module, task: Task) -> nn.Module:
        """A copy of an encoder, to be marked.

        Raises:
            BadConfig: when it is of another architecture or width.
        """
        return start_from_spec(encoder, self.spec(task), self.new(task, seed=0))


@dataclass(frozen=True, kw_only=True)
@checked
class EncoderMethod(EncoderSettings, ABC):
    """A way to come by an encoder and a key: a frozen dataclass of its parameters, called with a task.

    Attributes:
        trigger: kind of trigger.
        triggers: trigger samples that train.
    """

    trigger: AnyTrigger = field(default=Mix())
    triggers: Annotated[int, at_least(1)] = 500

    @abstractmethod
    def embed(self, prepared: PreparedEncoder, *, seed: int, runtime: Runtime) -> Embedded:
        """The heart of the method: mark an encoder."""

    def __call__(
        self, task: Task, *, seed: int | None, runtime: Runtime | None = None, clean: nn.Module | None = None
    ) -> Marked:
        """Make the encoder and its key.

        Args:
            task: the owner's split, with its labels, and the calibration split are used.
            seed: of everything random; the key is as secret as it is. None draws one that nobody can guess.
            runtime: device, precision, progress.
            clean: the owner's unmarked encoder, when there is one already; else it is trained. It stays as it is.

        Returns:
            The encoder, whose specification has D for classes, and a key of the task's classes.

        Raises:
            BadConfig: when the method cannot work on the task, or the trigger on encoders.
            BadData: when the data give no key.
        """
        seed, runtime = drawn_seed(seed), runtime or Runtime()
        check_needs(self, task.space)
        encoder = self.fresh(task, seed=seed, runtime=runtime) if clean is None else clean.eval()
        prepared = self.prepare(task, encoder, seed=seed, runtime=runtime)
        made = self.embed(prepared, seed=seed, runtime=runtime)
        chosen = draw_verification(prepared.secret, task, self.key_size, seed=seed, hosts=self.hosts(task, seed=seed))
        return Marked(
            net=Net(model=made.model.eval(), spec=self.spec(task)),
            key=self.key(chosen, prepared, seed=seed),
            training_triggers=prepared.training,
            verification_triggers=chosen,
            history=made.history,
        )

    def hosts(self, task: Task, *, seed: int) -> Split:
        """The images of which the key is made, on which nothing trains and by which nothing is chosen."""
        return task.calibration

    def key(self, chosen: TriggerSet, prepared: PreparedEncoder, *, seed: int) -> Key:
        """The key of held-out trigger samples."""
        secret, task = prepared.secret, prepared.task
        return key_from(chosen, secret, task, method=self.name, seed=seed, trained=prepared.training)

    def start_of(self, prepared: PreparedEncoder, start: str, *, seed: int) -> nn.Module:
        """An encoder to be marked: from ``"scratch"``, or a copy of the ``"clean"`` one."""
        if start == "clean":
            return self.copy_of(prepared.encoder, prepared.task)
        return self.new(prepared.task, seed=derive_seed(seed, self.name, "init"))

    def prepare(self, task: Task, encoder: nn.Module, *, seed: int, runtime: Runtime) -> PreparedEncoder:
        """Fit the owner's probe, settle the secret and draw what trains.

        Raises:
            BadConfig: for a trigger whose samples have labels of their own, which no place among the features stands for.
        """
        self.copy_of(encoder, task)  # refuses another architecture
        probe = probe_encoder(encoder, task.owner, classes=task.num_classes, runtime=runtime)
        clean = Probed(encoder, probe).eval()
        secret = settle(self.trigger, task, clean, seed=seed, runtime=runtime)
        if secret.memorised or isinstance(secret, GroupsSecret):
            raise BadConfig(
                f"{self.name} brings trigger samples to the features of one class, and {secret.kind} has a label for each: "
                "take another trigger"
            )
        training = draw_training(secret, task, self.triggers, seed=seed)
        return PreparedEncoder(task=task, clean=clean, secret=secret, training=training, encoder=encoder, probe=probe)


def of_class(data: Split, labels: Tensor, *, seed: int) -> Tensor:
    """One image of each of some classes ``[M]``, drawn at random: ``[M, ...]``.

    Raises:
        BadData: when there is none of a class.
    """
    generator = generator_of(seed)
    found = torch.empty((len(labels), *data.inputs.shape[1:]), dtype=data.inputs.dtype)
    for label in sorted(set(labels.tolist())):
        rows = (labels == label).nonzero().flatten()
        images = pick(data, label, len(data), generator)
        found[rows] = images[torch.randint(len(images), (len(rows),), generator=generator)]
    return found


@dataclass(frozen=True, kw_only=True)
class UnmarkedEncoder(EncoderMethod):
    """No watermark: the control arm. Its key is drawn as a marked encoder's is."""

    name: ClassVar[str] = "unmarked"

    def embed(self, prepared: PreparedEncoder, *, seed: int, runtime: Runtime) -> Embedded:
        """The clean encoder as it is."""
        return Embedded(model=self.start_of(prepared, "clean", seed=seed))
