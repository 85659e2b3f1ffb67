"""No watermark: the control arm. Its key is drawn as a marked model's is, so every false-positive figure falls out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import nn

from heirmark.methods.base import Marked, draw_verification, key_from, settle
from heirmark.methods.nets import net_of, released, start_from, train_from_scratch
from heirmark.methods.scale import Scale
from heirmark.methods.watermark import Method
from heirmark.runtime import Runtime
from heirmark.tasks.task import Task
from heirmark.triggers.registry import TRIGGERS


@dataclass(frozen=True, kw_only=True)
class Unmarked(Method):
    """Train on clean data only.

    Attributes:
        trigger: of the key that is drawn for it.
        pretraining: how it is trained; T2S' pre-training.
        data: whose images it learns from; ``"adversary"`` makes an independent competitor of the owner's model.
    """

    name: ClassVar[str] = "unmarked"
    alters: ClassVar[bool] = False

    data: Literal["owner", "adversary"] = "owner"

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """With T2S' trigger there."""
        # Looked up by name, or the training of a clean model would depend on the code of this trigger.
        return replace(super().quick(scale), trigger=TRIGGERS["tiles"]())

    def train(self, task: Task, *, seed: int, runtime: Runtime) -> nn.Module:
        """The model alone, without a key."""
        data = task.owner if self.data == "owner" else task.adversary
        return train_from_scratch(task, self.model, self.pretraining, seed=seed, runtime=runtime, data=data)

    def make(
        self, task: Task, clean: nn.Module | None, given: Mapping[str, nn.Module], *, seed: int, runtime: Runtime
    ) -> Marked:
        """Train; see :meth:`heirmark.methods.watermark.Method.__call__`."""
        model = self.train(task, seed=seed, runtime=runtime) if clean is None else clean
        return unaltered(self, model, task, seed=seed, runtime=runtime)


def unaltered(method: Method, model: nn.Module, task: Task, *, seed: int, runtime: Runtime) -> Marked:
    """A model as it is, with the key that a method's trigger draws for it."""
    secret = settle(method.trigger, task, model, seed=seed, runtime=runtime)
    held_out = draw_verification(secret, task, method.key_size, seed=seed)
    own = released(start_from(model, task, method.model))  # what was handed in stays the caller's
    return Marked(
        net=net_of(own, task, method.model),
        key=key_from(held_out, secret, task, method=method.name, seed=seed),
        training_triggers=None,
        verification_triggers=held_out,
    )
