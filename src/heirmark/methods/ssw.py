"""SSW-P and SSW-S: Deep Neural Network Watermarking against Model Extraction Attack (Tan et al., ACM MM 2023).

The host is trained on clean and trigger samples. A positive shadow, a thief simulated by the owner, learns from the host's
answers; the negative shadow is a clean model. Then the triggers' pixels are optimised so that host and positive shadow give the
target and the negative shadow does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.configuration import above, at_least, at_most, checked
from heirmark.errors import BadConfig
from heirmark.methods.base import Embedded, Prepared, check_candidates
from heirmark.methods.nets import new_model, start_from
from heirmark.methods.scale import Scale
from heirmark.methods.shadows import Shadows, optimised, select
from heirmark.methods.watermark import Watermark
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Images
from heirmark.training.fitting import Recipe, fit
from heirmark.training.joint import Extra, Outputs, Phase, fit_jointly
from heirmark.triggers import AbstractImages, AnyTrigger, OutOfDistribution, TriggerSet

ADAM = Recipe(
    batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="constant", augment="crop-flip"
)


@dataclass(frozen=True, kw_only=True)
@checked
class ShadowWatermark(Watermark):
    """What both variants do; see :class:`SSWP`.

    Attributes:
        model: architecture of the host and of both shadows.
        trigger: kind of trigger; images of another data set are the paper's: SVHN's nines, MNIST's eights for grey images.
        triggers: trigger samples that train; 500 in the paper.
        key_size: held-out samples in the key, at most.
        candidates: held-out samples to choose the key from (ours; the paper chooses among those that trained).
        pretraining: of the clean model (epochs inferred).
        training: of the host, and of the positive shadow in turn with it; the code has a constant rate. The shadow's optimiser
            and schedule start anew every epoch, the host's after every optimisation of the triggers, where the code keeps both.
        trigger_batch: trigger samples that join each batch of the host.
        refinements: epochs at the end after each of which the triggers are optimised; 0 never does.
        steps: of each optimisation, at least.
        pixel_rate: of Adam on the pixels, of their full range.
        selected: keep only samples that hit on host and positive shadow and miss on the clean model.
    """

    needs: ClassVar = Images

    rehearsable: ClassVar[bool] = False

    trigger: AnyTrigger = field(default=OutOfDistribution(source=9))
    candidates: Annotated[int, at_least(1)] = 2000
    pretraining: Recipe = field(default=ADAM)
    training: Recipe = field(default=ADAM)
    trigger_batch: Annotated[int, at_least(1)] = 12
    refinements: Annotated[int, at_least(0)] = 2
    steps: Annotated[int, at_least(1)] = 10
    pixel_rate: Annotated[float, above(0), at_most(1)] = 1e-3
    selected: bool = True

    def __post_init__(self) -> None:
        if self.selected:
            check_candidates(self.candidates, self.key_size)
        if self.refinements > self.training.epochs:
            raise BadConfig(
                f"refinements follow on epochs of training, of which there are {self.training.epochs}: "
                f"give 0 to {self.training.epochs}, not {self.refinements}"
            )

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """By Adam on abstract images, where another data set would be needed; pixels go further, since shadows learn less."""
        epochs = scale.joint_epochs[0] if cls.from_clean else sum(scale.joint_epochs)
        return cls(
            model=scale.model,
            trigger=AbstractImages(),
            triggers=scale.triggers,
            key_size=scale.key_size,
            candidates=2 * scale.key_size,
            pretraining=scale.recipe,
            training=replace(scale.joint, epochs=epochs),
            steps=20,
            pixel_rate=3e-3,
        )

    @property
    def held_out(self) -> int:
        """How many samples are drawn to make the key of."""
        return self.candidates if self.selected and self.key_filter is None else super().held_out

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """Train host and positive shadow in turn, an epoch each, and optimise the triggers after the last epochs.

        Held-out samples are optimised with the same three models; a memorised key's are optimised already.
        """
        task, data, triggers = prepared.task, prepared.data, prepared.training
        generator = generator_of(derive_seed(seed, "ssw", "controls"))
        permutation = torch.randperm(task.space.places, generator=generator)
        host, positive = (
            start_from(prepared.clean, task, self.model)
            if self.from_clean
            else new_model(task, self.model, seed=derive_seed(seed, "ssw", name, "init"))
            for name in ("host", "positive")
        )
        shadows = Shadows(host=host, positive=positive, negative=prepared.clean)
        trained = 0

        def follow() -> None:
            """The positive shadow's epoch: the host's labels of the owner's images."""
            nonlocal trained
            fit(
                positive,
                data.inputs,
                predict(host, data.inputs, runtime=runtime).argmax(1),
                recipe=replace(self.training, epochs=1),
                seed=derive_seed(seed, "ssw", "positive", trained),
                runtime=runtime,
                description="training the positive shadow",
            )
            trained += 1

        def between(epoch: int) -> None:
            if epoch:  # before the first epoch of a stretch, the host has nothing new to say
                follow()

        def losses(clean: Outputs, extras: Mapping[str, Outputs]) -> Mapping[str, Tensor]:
            asked = [clean, *extras.values()]
            logits, targets = torch.cat([a.logits for a in asked]), torch.cat([a.targets for a in asked])
            return {"classification": F.cross_entropy(logits, targets)}

        def optimise(drawn: TriggerSet) -> TriggerSet:
            return optimised(
                drawn, shadows, permutation, steps=self.steps, learning_rate=self.pixel_rate, runtime=runtime
            )

        def finish(drawn: TriggerSet) -> TriggerSet:
            made = optimise(drawn) if self.refinements and not prepared.secret.memorised else drawn
            return select(made, shadows, runtime=runtime) if self.selected else made

        # The optimiser's memory is lost at the end of a stretch, at most once an optimisation of the triggers.
        stretches = [self.training.epochs - max(self.refinements - 1, 0), *[1] * (self.refinements - 1)]
        history: list[Mapping[str, float]] = []
        for number, epochs in enumerate(stretches):
            rows = fit_jointly(
                host,
                data,
                {"watermark": Extra(samples=triggers)},
                losses,
                Phase(recipe=replace(self.training, epochs=epochs), extras={"watermark": self.trigger_batch}),
                seed=derive_seed(seed, "ssw", "host", number),
                before_epoch=between,
                runtime=runtime,
                description="training the host",
            )
            history += [{**row, "epoch": row["epoch"] + len(history)} for row in rows]
            follow()
            triggers = optimise(triggers) if self.refinements else triggers
        return Embedded(model=host, history=tuple(history), training=triggers, finish=finish)


@dataclass(frozen=True, kw_only=True)
class SSWP(ShadowWatermark):
    """SSW-P: one epoch from a clean model, then the triggers are optimised.

    Defaults are the paper's and its code's for CIFAR-10. Three departures: the key is made of other samples than trained,
    optimised with the same three models; host and shadow train on batches drawn here; and their images are shifted and
    flipped, but not turned by up to 22.5 degrees, as the code does too. As there, the shadow learns the host's labels of the
    images as they are, and triggers stay as they are. The clean model and the selection choose the key, so the clean model
    may neither calibrate nor be reported, and the victim hits every query of a selected key by construction: only its
    copies' WSR says anything.
    """

    name: ClassVar[str] = "ssw-p"
    from_clean: ClassVar[bool | tuple[str, str]] = True

    training: Recipe = field(default=replace(ADAM, epochs=1))
    refinements: Annotated[int, at_least(0)] = 1
    steps: Annotated[int, at_least(1)] = 5


@dataclass(frozen=True, kw_only=True)
class SSWS(ShadowWatermark):
    """SSW-S: 40 epochs from scratch, the triggers optimised after each of the last two; all else is as in :class:`SSWP`."""

    name: ClassVar[str] = "ssw-s"
