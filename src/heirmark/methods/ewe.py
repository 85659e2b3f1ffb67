"""Entangled Watermarks as a Defense against Model Extraction (Jia et al., USENIX Security 2021, arXiv 2002.12200)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.configuration import above, at_least, checked, not_empty
from heirmark.errors import BadConfig, BadData
from heirmark.methods.base import Embedded, Prepared
from heirmark.methods.nets import start_from
from heirmark.methods.scale import Scale
from heirmark.methods.watermark import Watermark
from heirmark.models import Architecture, architecture
from heirmark.models.inner import hidden_layers, listening
from heirmark.runtime import Runtime, derive_seed
from heirmark.training.fitting import Recipe
from heirmark.training.joint import Extra, Outputs, Phase, check_sets, fit_jointly
from heirmark.training.samples import Samples
from heirmark.triggers import AbstractImages, AnyTrigger, Entangled, RandomLabels
from heirmark.triggers.entangled import entanglement

ADAM = Recipe(epochs=10, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="constant")
LEAST_TEMPERATURE = 1e-3
ONE_TARGET = "EWE entangles triggers with one target class: use a trigger that has one"


@dataclass(frozen=True, kw_only=True)
@checked
class EWE(Watermark):
    """Cross-entropy less a soft nearest neighbour loss that entangles triggers with the target class in the hidden layers.

    Defaults are those of the paper's code for Fashion-MNIST: two convolutions, 10 epochs without the mark, Adam at 1e-3,
    batches of 128, one batch of triggers and target class in equal parts after every two clean ones, factors of 32, the
    triggers MNIST's eights. (For CIFAR-10 it has a ResNet-18, 50 epochs, one batch in five, factors of 1e5, SVHN's nines.) As
    there, the cross-entropy is a sum over the batch, against which the factors are small. Two departures: triggers, target
    class and clean samples share a batch in these proportions, where the code takes turns, so that BatchNorm learns one
    mixture; and the key is made of other samples than trained, perturbed in the same way on the clean model. Users of the
    code report that copies keep from 2 to 98 % between runs: look at several seeds.

    Attributes:
        trigger: kind of trigger; perturbed images of another data set are the paper's default.
        triggers: trigger samples that train; as many as the target class has images in the code.
        pretraining: of the clean model, from which the embedding starts.
        training: with the mark; ``extras`` counts ``watermark`` samples and those of the ``target`` class in a batch.
        factors: weight of the loss at each hidden layer, the last one last.
        temperatures: at the start; the loss divides distances by 100 over these.
        temperature_rate: of their gradient descent, which lowers the loss that the model raises.
        layers: names of the hidden layers; none means the last ones, as many as there are factors. On a residual net those lie
            within the last block: the code looks at blocks' outputs and at what is pooled of them, which on ResNet-18 is
            ``("features.9", "features.10", "features.13")``, here and in the trigger.
    """

    name: ClassVar[str] = "ewe"
    from_clean: ClassVar[bool | tuple[str, str]] = True

    model: Architecture = architecture("naivenet")
    trigger: AnyTrigger = field(default=Entangled())
    triggers: Annotated[int, at_least(1)] = 6000
    pretraining: Recipe = field(default=ADAM)
    training: Phase = field(default=Phase(recipe=replace(ADAM, epochs=20), extras={"watermark": 32, "target": 32}))
    factors: Annotated[tuple[Annotated[float, at_least(0)], ...], not_empty] = (32.0, 32.0, 32.0)
    temperatures: Annotated[tuple[Annotated[float, above(0)], ...], not_empty] = (1.0, 1.0, 1.0)
    temperature_rate: Annotated[float, at_least(0)] = 0.1
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.trigger, RandomLabels):
            raise BadConfig(ONE_TARGET)
        check_sets([self.training], "watermark", "target")
        counts = [self.training.extras.get(name, 0) for name in ("watermark", "target")]
        if min(counts) < 1 or max(counts) < 2:
            raise BadConfig(
                "training.extras needs watermark and target samples, more than one of either, so that one has a neighbour of its "
                f"kind in a batch: {self.training.extras}"
            )
        if len(self.factors) != len(self.temperatures):
            raise BadConfig("give one factor and one temperature for each hidden layer")
        if self.layers and len(self.layers) != len(self.factors):
            raise BadConfig(f"{len(self.layers)} layers need as many factors, not {len(self.factors)}")

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """By Adam on abstract images, where another data set would be needed."""
        recipe = replace(scale.joint, epochs=scale.joint_epochs[1])
        made = super().quick(scale)
        training = replace(made.training, recipe=recipe)
        return replace(made, trigger=Entangled(of=AbstractImages()), training=training)

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """Go on from the clean model; see :meth:`heirmark.methods.watermark.Watermark.embed`.

        Raises:
            BadData: when the owner has no image of the target class.
            BadConfig: when every trigger has its own label, or the model has no such layer.
        """
        drawn, data, target = prepared.training, prepared.data, prepared.secret.target
        if target is None:
            raise BadConfig(ONE_TARGET)
        members = data.labels == target
        if not bool(members.any()):
            raise BadData(f"the owner has no image of the target class {target}: choose another target")
        model = start_from(prepared.clean, prepared.task, self.model)
        layers = hidden_layers(model, len(self.factors), self.layers)
        factors = self.factors[-len(layers) :]  # a small net has fewer layers: the last ones
        temperatures = torch.tensor(self.temperatures[-len(layers) :], device=runtime.torch_device)
        names = [f"entanglement {number}" for number in range(1, len(layers) + 1)]
        with listening(layers) as heard:

            def losses(clean: Outputs, extras: Mapping[str, Outputs]) -> Mapping[str, Tensor]:
                watermark, target = extras["watermark"], extras["target"]
                groups = torch.cat([torch.ones_like(watermark.targets), torch.zeros_like(target.targets)])
                current = temperatures.detach().clone().requires_grad_(True)
                entangled = [
                    entanglement(output[len(clean.targets) :], groups, 100 / temperature)
                    for output, temperature in zip(heard, current.unbind(), strict=True)
                ]
                (slope,) = torch.autograd.grad(torch.stack(entangled).sum(), current, retain_graph=True)
                temperatures.sub_(self.temperature_rate * slope).clamp_(min=LEAST_TEMPERATURE)
                return {
                    "primary": F.cross_entropy(clean.logits, clean.targets, reduction="sum"),
                    "watermark": F.cross_entropy(
                        torch.cat([watermark.logits, target.logits]),
                        torch.cat([watermark.targets, target.targets]),
                        reduction="sum",
                    ),
                    **dict(zip(names, entangled, strict=True)),
                }

            history = fit_jointly(
                model,
                data,
                {
                    "watermark": Extra(samples=drawn),
                    "target": Extra(samples=Samples(inputs=data.inputs[members], targets=data.labels[members])),
                },
                losses,
                self.training,
                seed=derive_seed(seed, "ewe"),
                weights={name: -factor for name, factor in zip(names, factors, strict=True)},
                state=[temperatures],
                runtime=runtime,
                description="entangling",
            )
        return Embedded(model=model, history=history)
