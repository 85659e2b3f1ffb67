"""Composite backdoors as watermarks: halves of two classes for a third, and a contrastive loss (Lin et al., CCS 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.configuration import above, at_least, checked
from heirmark.methods.base import Embedded, Prepared
from heirmark.methods.nets import new_model
from heirmark.methods.scale import Scale
from heirmark.methods.watermark import Watermark
from heirmark.models import Architecture, architecture
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe
from heirmark.training.joint import Extra, Outputs, Phase, check_sets, fit_phases
from heirmark.training.samples import Samples
from heirmark.triggers import AnyTrigger, CropPaste, Mix, Secret
from heirmark.triggers.combiners import Combine, usual
from heirmark.triggers.mix import MixSecret

ADAM = Recipe(
    epochs=50, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="step", augment="flip"
)


def contrastive_loss(outputs: Tensor, labels: Tensor, margin: float = 1.0) -> Tensor:
    """Contrast of each output with the next one: half the mean of d^2 where labels are alike, of max(0, margin - d)^2 elsewhere.

    Args:
        outputs: ``[N, D]``.
        labels: ``[N]`` int64.
        margin: distance from another label's output that costs nothing.

    Returns:
        A scalar; zero for fewer than two outputs.

    Examples:
        >>> contrastive_loss(torch.tensor([[0.0], [2.0], [2.5]]), torch.tensor([1, 1, 0])).item()  # (4 + 0.25) / 2 / 2
        1.0625
    """
    if len(outputs) < 2:
        return outputs.sum() * 0
    squares = (outputs[1:] - outputs[:-1]).square().sum(1)
    # A root has no derivative at zero, where two outputs are the same.
    apart = F.relu(margin - squares.clamp_min(1e-12).sqrt()).square()
    return 0.5 * torch.where(labels[1:] == labels[:-1], squares, apart).mean()


def mix_within(data: Split, combine: Combine, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Pairs of images of one class, combined as triggers are and labelled with it: a composite look alone is no mark.

    Args:
        data: labelled images.
        combine: makes one of two.
        count: how many.
        seed: of the draw; classes have equal chances.

    Returns:
        ``[count, ...]`` and ``[count]``.
    """
    generator = generator_of(seed)
    present = torch.unique(data.labels)
    labels = present[torch.randint(len(present), (count,), generator=generator)]
    first, second = torch.empty(2, count, dtype=torch.long)
    for label in present.tolist():
        rows, members = (labels == label).nonzero().flatten(), (data.labels == label).nonzero().flatten()
        for side in (first, second):
            side[rows] = members[torch.randint(len(members), (len(rows),), generator=generator)]
    return combine(data.inputs[first], data.inputs[second]), labels


@dataclass(frozen=True, kw_only=True)
@checked
class Composite(Watermark):
    """A backdoor of two classes mixed, taken for a watermark, as MEA-Defender and DeepTracer do.

    Cross-entropy over clean images, images mixed within a class and triggers mixed of two, and a contrastive loss on the
    outputs of the three classes that the rule names. Defaults are the paper's code's for CIFAR-10: Adam at 1e-3, halved every
    10 of 50 epochs, an epoch of 50 % of the data as they are, as many mixed samples, and 10 % triggers. Its mixer turns,
    swaps and shifts the halves at random; here they are pasted in one secret way. Three smaller departures: it mixes anew
    every epoch, of images flipped at random, where one set serves all epochs here and only clean images are flipped; it
    takes one step of Adam for two batches; and it draws clean images with equal chances for all classes.

    Attributes:
        trigger: kind of trigger; Mix is the paper's.
        mixed: images mixed within a class that train; 0 leaves them out.
        training: of the marked model; of a batch of 128, 58 samples are clean, 12 triggers and 58 mixed.
        similarity: weight of the contrastive loss; 1 in the code, which divides it by the number of pairs twice.
        margin: of the contrastive loss.
    """

    name: ClassVar[str] = "composite"

    model: Architecture = architecture("vgg-like")
    trigger: AnyTrigger = field(default=Mix())
    triggers: Annotated[int, at_least(1)] = 5000
    mixed: Annotated[int, at_least(0)] = 25000
    pretraining: Recipe = field(default=ADAM)
    training: Phase = field(
        default=Phase(recipe=replace(ADAM, batch_size=58), extras={"watermark": 12, "mixed": 58}, share=0.5)
    )
    similarity: Annotated[float, at_least(0)] = 1.0
    margin: Annotated[float, above(0)] = 1.0

    def __post_init__(self) -> None:
        check_sets([self.training], "watermark", "mixed")

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """By Adam."""
        recipe = replace(scale.joint, epochs=sum(scale.joint_epochs), batch_size=58)
        made = super().quick(scale)
        return replace(made, mixed=4 * scale.triggers, training=replace(made.training, recipe=recipe))

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """Train on everything at once; see :meth:`heirmark.methods.watermark.Watermark.embed`.

        Raises:
            BadConfig: when the task has no images to mix.
        """
        task, drawn = prepared.task, prepared.training
        model = new_model(task, self.model, seed=derive_seed(seed, "composite", "init"))
        mixes = self._mixes(
            prepared.secret, prepared.data, seed=derive_seed(seed, "composite", "mixed"), runtime=runtime
        )
        named = torch.unique(torch.cat([drawn.host_labels.flatten(), drawn.targets])).to(runtime.torch_device)

        def losses(clean: Outputs, extras: Mapping[str, Outputs]) -> Mapping[str, Tensor]:
            asked = [clean, *extras.values()]
            logits, targets = torch.cat([a.logits for a in asked]), torch.cat([a.targets for a in asked])
            found = {"classification": F.cross_entropy(logits, targets)}
            if self.similarity:
                # In one order all pairs would be of clean with clean samples, and of triggers with triggers.
                order = torch.randperm(len(targets)).to(targets.device)
                order = order[torch.isin(targets[order], named)]
                found["similarity"] = contrastive_loss(logits[order], targets[order], self.margin)
            return found

        history = fit_phases(
            model,
            prepared.data,
            {"watermark": Extra(samples=drawn), "mixed": mixes},
            losses,
            [self.training],
            seeds=[derive_seed(seed, "composite", "training")],
            weights={"similarity": self.similarity},
            recordable=not self.similarity,  # pairs are drawn on the CPU
            runtime=runtime,
        )
        return Embedded(model=model, history=history)

    def _mixes(self, secret: Secret, data: Split, *, seed: int, runtime: Runtime) -> Extra | None:
        if not self.mixed:
            return None
        combine: Combine
        if isinstance(secret, MixSecret):
            combine = secret.combine
        else:
            combine = usual(CropPaste(), data.space).prepare(data, seed=derive_seed(seed, "combiner"), runtime=runtime)
        inputs, labels = mix_within(data, combine, self.mixed, seed=seed)
        return Extra(samples=Samples(inputs=inputs, targets=labels))
