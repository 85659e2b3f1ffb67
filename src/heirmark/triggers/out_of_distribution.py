"""Out-of-distribution triggers: images of another data set, one label (T2S, section III-D, after EWE, Jia 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.configuration import at_least
from heirmark.errors import BadConfig
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Images, Tokens, Waves, space_of
from heirmark.tasks.storing import decode, encode
from heirmark.tasks.task import Split, Task
from heirmark.training.samples import Reference
from heirmark.triggers.base import Secret, Trigger, TriggerSet, check_label


def fit_shape(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bring foreign images to a task's shape: grey <-> colour, and bilinear resizing.

    Waves that are shorter get silence behind, and of longer ones the middle is taken.

    Args:
        images: ``[N, C, H, W]`` uint8 or float in [0, 1], or waves ``[N, C, T]`` int16 or float.
        shape: ``(C', H', W')``, or ``(C', T')``.

    Returns:
        ``[N, C', H', W']`` uint8, or ``[N, C', T']`` int16.

    Raises:
        BadConfig: when the ones are images and the others waves, or anything else.

    Examples:
        >>> fit_shape(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), (3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """
    space = space_of(images)
    if isinstance(space, Tokens) and space.shape == shape:
        return images  # they came by the task's own tokenizer
    if not isinstance(space, Images | Waves) or len(space.shape) != len(shape):
        raise BadConfig(
            f"the other data set has {space.named} of shape {space.shape}, and the task inputs of shape {shape}: name one of the "
            "task's kind, as speech-commands-other for sounds and yelp-sentences for texts (trigger.dataset, trigger.of.dataset, "
            "--foreign or --pool)"
        )
    floats = decode(images)
    if floats.shape[1] != shape[0]:
        floats = floats.mean(1, keepdim=True).expand(-1, shape[0], *space.shape[1:])
    if isinstance(space, Waves):
        over = floats.shape[2] - shape[1]
        floats = floats[:, :, over // 2 : over // 2 + shape[1]] if over > 0 else F.pad(floats, (0, -over))
        return encode(floats, torch.int16)
    if tuple(floats.shape[2:]) != tuple(shape[1:]):
        floats = F.interpolate(floats, size=shape[1:], mode="bilinear", align_corners=False, antialias=True)
    return encode(floats, torch.uint8)


@dataclass(frozen=True, kw_only=True)
class OutOfDistribution(Trigger):
    """Images, sounds or texts of one class of another data set, all given one label.

    Attributes:
        dataset: name of the other data set (EWE's default beside CIFAR is SVHN); for sounds ``"speech-commands-other"``,
            for texts ``"yelp-sentences"``.
        source: class of that data set whose images are the triggers (EWE takes one class).
        target: the label of this task; None draws one.
    """

    needs: ClassVar = Images | Waves | Tokens

    dataset: str = "svhn"
    source: Annotated[int, at_least(0)] = 1
    target: int | None = None

    def settle(
        self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None
    ) -> OutOfDistributionSecret:
        """Set half of the foreign images aside for verification; see :class:`heirmark.triggers.base.Trigger`."""
        foreign = task.foreign
        if foreign is None or not bool((foreign.labels == self.source).any()):
            raise BadConfig(
                f"the trigger needs images of class {self.source} of {self.dataset}, and the task brings none: "
                f"load_task(..., foreign={self.dataset!r}) does"
            )
        generator = generator_of(derive_seed(seed, "out-of-distribution"))
        target = self.target
        if target is None:
            target = int(torch.randint(len(task.classes), (), generator=generator))
        images = fit_shape(foreign.inputs[foreign.labels == self.source], task.input_shape)
        # Of images that are alike one remains, or it could both train and verify.
        rows = Split(inputs=images, labels=torch.zeros(len(images), dtype=torch.long)).row_digests
        images = images[sorted({digest: row for row, digest in enumerate(rows)}.values())]
        if task.owner.inputs.is_floating_point():
            images = decode(images)
        images = images[torch.randperm(len(images), generator=generator)]
        permutation = torch.randperm(task.space.places, generator=generator)
        return OutOfDistributionSecret(
            dataset=self.dataset,
            source=self.source,
            target=check_label(target, task, "target"),
            training=images[: len(images) // 2],
            held_out=images[len(images) // 2 :],
            permutation=permutation,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfDistributionSecret(Secret):
    """Settled out-of-distribution trigger: see :class:`OutOfDistribution`.

    Attributes:
        dataset: name of the other data set.
        source: its class.
        target: the label.
        training: ``[N, C, H, W]`` images of the task's dtype that the owner may train on.
        held_out: ``[N, C, H, W]`` images kept for verification, none of which is in ``training``.
        permutation: of the pixels, makes the controls.
    """

    kind: ClassVar[str] = "out-of-distribution"
    reference: ClassVar[Reference] = "chance"

    dataset: str
    source: int
    target: int
    training: Tensor = field(repr=False)
    held_out: Tensor = field(repr=False)
    permutation: Tensor = field(repr=False)

    def foreign(self, *, held_out: bool) -> Tensor:
        """The images of one of the two pools."""
        return self.held_out if held_out else self.training

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        """Foreign images without replacement; the control is the same image with its pixels in another order.

        There is no host to leave out of a foreign image.
        """
        pool = self.held_out if held_out else self.training
        if len(pool) == 0:
            raise BadConfig(f"{self.dataset} has too few images of class {self.source}: choose another source class")
        generator = generator_of(seed)
        images = pool[torch.randperm(len(pool), generator=generator)[:count]]
        return TriggerSet.without_hosts(images, self.permutation, self.target)
