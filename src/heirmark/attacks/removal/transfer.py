"""Transfer learning, there and back (MEA-Defender, arXiv 2401.15239, appendix E)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from heirmark.attacks.base import Sizes, brief_retraining, brief_tuning
from heirmark.attacks.removal.parts import RETRAINING, Tuning, fresh_head, head_of, replace_head, tune
from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.models import Net
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.space import Images
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe


@dataclass(frozen=True, kw_only=True)
class Transfer(Tuning):
    """Train the model for another task, then give it back a last layer for the first: does the mark in its features survive?

    The other task gets a last layer of its own, and all layers move. Afterwards a fresh last layer for the first task is fitted
    on the adversary's data, it alone, so that the result can be asked the key's queries. MEA-Defender goes from CIFAR-10 to
    STL-10, which has as many classes, and asks the model as it then is: that is ``keep_head``.

    Without examples of another task the model learns to tell by how many quarter turns an image was rotated (Gidaris, Singh,
    Komodakis 2018, arXiv 1803.07728), which needs no further data.

    Attributes:
        keep_head: keep the last layer for the other task, whose classes then have to be those of the first, and stop there.
        recipe: of the training for the other task; see :data:`heirmark.attacks.removal.parts.RETRAINING` (the paper gives none).
        head_recipe: of the fresh last layer (inferred).
    """

    title: ClassVar[str] = "transfer there and back"
    title_with_other: ClassVar[str] = "transfer to {} and back"
    reteaches: ClassVar[bool] = True

    keep_head: bool = False
    head_recipe: Recipe = field(default=RETRAINING)

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(recipe=brief_retraining(recipe, epochs=2), head_recipe=brief_tuning(recipe))

    def unfit(self, sizes: Sizes) -> str:
        """See :class:`heirmark.attacks.base.Attack`."""
        turned = sizes.space is None or isinstance(sizes.space, Images)
        return "" if turned else "the other task, where none is named, is to tell how images are turned"

    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Transfer; see :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadConfig: when the model has no registered ``.head`` that ends in a linear layer, when ``keep_head`` has no task to
                go to, or when images that are not square would be rotated.
            ShapeMismatch: when the other task's examples do not fit the model.
        """
        inputs, labels = quarter_turns(data.inputs) if other is None else (other.inputs, other.labels)
        if tuple(inputs.shape[1:]) != copy.spec.input_shape:
            raise ShapeMismatch(
                f"the other task has inputs of shape {tuple(inputs.shape[1:])} and the model takes {copy.spec.input_shape}: "
                "bring them to that shape"
            )
        if self.keep_head:
            if other is None or int(labels.max()) >= copy.spec.classes:
                raise BadConfig(
                    f"keep_head needs examples of another task with the model's {copy.spec.classes} classes: "
                    "give such, or let keep_head=false"
                )
        else:
            labels = torch.unique(labels, return_inverse=True)[1]
            count = int(labels.max()) + 1
            replace_head(
                copy.model, fresh_head(head_of(copy.model), max(count, 2), seed=derive_seed(seed, "other head"))
            )
        tune(
            copy.model,
            inputs,
            labels,
            recipe=self.recipe,
            seed=derive_seed(seed, "transfer"),
            runtime=runtime,
            description="transfer learning",
        )
        if not self.keep_head:
            replace_head(copy.model, fresh_head(head_of(copy.model), copy.spec.classes, seed=derive_seed(seed, "head")))
            tune(
                copy.model,
                data.inputs,
                data.labels,
                recipe=self.head_recipe,
                seed=derive_seed(seed, "back"),
                runtime=runtime,
                part=head_of(copy.model),
                description="fitting a new head",
            )
        return copy


def quarter_turns(images: Tensor) -> tuple[Tensor, Tensor]:
    """Every image in its four orientations.

    Args:
        images: ``[N, C, H, H]``.

    Returns:
        ``[4N, C, H, H]`` of the same dtype, and ``[4N]`` int64, by how many quarter turns.

    Raises:
        BadConfig: when they are not square.

    Examples:
        >>> quarter_turns(torch.tensor([[[[1, 2], [3, 4]]]]))[0].flatten(1).tolist()
        [[1, 2, 3, 4], [2, 4, 1, 3], [4, 3, 2, 1], [3, 1, 4, 2]]
    """
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise BadConfig("only square images can be rotated: give examples of another task")
    turned = torch.cat([images.rot90(turns, (2, 3)) for turns in range(4)])
    return turned, torch.arange(4).repeat_interleave(len(images)).to(images.device)
