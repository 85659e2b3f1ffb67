"""Abstract watermarks: images of no class, each with a random label (Adi et al., USENIX Security 2018, arXiv 1802.04633)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

from heirmark.configuration import at_least
from heirmark.methods.base import Embedded, Prepared
from heirmark.methods.nets import start_from, train_from_scratch
from heirmark.methods.scale import Scale
from heirmark.methods.watermark import Watermark
from heirmark.runtime import Runtime, derive_seed
from heirmark.training.fitting import Mixed, Recipe, fit
from heirmark.triggers import AbstractImages, AnyTrigger, RandomLabels

FROM_SCRATCH = Recipe(epochs=60, batch_size=100, schedule="step", step_epochs=20, step_factor=0.1, augment="crop-flip")


@dataclass(frozen=True, kw_only=True)
class Abstract(Watermark):
    """A hundred abstract images learned by heart, each with a random label.

    The key is the very set that trained, as in the paper: random labels of other images cannot be known. It says so, and so
    does every verdict (``memorised-key``). ``trigger=abstractimages`` gives all of them one label and a held-out key instead.
    Defaults are the paper's and its code's: ResNet-18, SGD at 0.1, a tenth of it every 20 of 60 epochs, 100 images in a batch
    with 2 trigger samples.

    Attributes:
        triggers: trigger samples that train; 100 in the paper.
        key_size: samples in the key; of random labels at most those that train.
        training: of the marked model from scratch.
        tuning: of the clean model with trigger samples, where that is the start (all inferred but the last rate of
            ``training``).
        trigger_batch: trigger samples that join each batch.
        start: ``"scratch"`` trains anew on clean and trigger samples, ``"pretrained"`` goes on from the clean model with them.
    """

    name: ClassVar[str] = "abstract"
    from_clean: ClassVar[bool | tuple[str, str]] = ("start", "pretrained")

    trigger: AnyTrigger = field(default=RandomLabels(of=AbstractImages()))
    triggers: Annotated[int, at_least(1)] = 100
    key_size: Annotated[int, at_least(1)] = 100
    pretraining: Recipe = field(default=FROM_SCRATCH)
    training: Recipe = field(default=FROM_SCRATCH)
    tuning: Recipe = field(
        default=Recipe(epochs=20, batch_size=100, learning_rate=1e-3, schedule="constant", augment="crop-flip")
    )
    trigger_batch: Annotated[int, at_least(1)] = 2
    start: Literal["scratch", "pretrained"] = "scratch"

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """More samples in a batch, since there are few epochs; as many as in the paper."""
        return cls(
            model=scale.model, pretraining=scale.recipe, training=scale.recipe, trigger_batch=scale.trigger_batch
        )

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """Learn the samples by heart; see :meth:`heirmark.methods.watermark.Watermark.embed`."""
        task, data = prepared.task, prepared.data
        mixed = Mixed(samples=prepared.training, per_batch=self.trigger_batch)
        if self.start == "scratch":
            model = train_from_scratch(
                task, self.model, self.training, seed=seed, runtime=runtime, data=data, mixed=mixed
            )
            return Embedded(model=model)
        model = start_from(prepared.clean, task, self.model)
        losses = fit(
            model,
            data.inputs,
            data.labels,
            recipe=self.tuning,
            seed=derive_seed(seed, "abstract", "tuning"),
            runtime=runtime,
            mixed=mixed,
            description="embedding in the trained model",
        )
        rows = ({"epoch": epoch + 1.0, "loss": loss} for epoch, loss in enumerate(losses))
        return Embedded(model=model, history=tuple(rows))
