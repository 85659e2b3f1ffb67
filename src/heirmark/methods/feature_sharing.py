"""Feature-sharing watermarks: the mark in the decision layers, over frozen features (ICLR 2022 submission XHxRBwjpEQ)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Self

from torch import nn

from heirmark.configuration import at_least
from heirmark.errors import BadConfig
from heirmark.methods.base import Embedded, Prepared
from heirmark.methods.nets import start_from
from heirmark.methods.scale import Scale
from heirmark.methods.watermark import Watermark
from heirmark.models import Architecture, architecture
from heirmark.models.inner import layers_of
from heirmark.runtime import Runtime, derive_seed
from heirmark.training.fitting import Mixed, Recipe, fit
from heirmark.triggers import AnyTrigger, Patch

ADAM = Recipe(epochs=20, batch_size=128, optimizer="adam", learning_rate=1e-2, weight_decay=0.0)


def modules_before(model: nn.Module, stop: nn.Module) -> list[nn.Module]:
    """All modules without parts of their own that the model registers before one of them, dropout and the like included."""
    found: list[nn.Module] = []
    for module in model.modules():
        if module is stop:
            break
        if next(module.children(), None) is None:
            found.append(module)
    return found


def weight_shift(before: nn.Module, after: nn.Module) -> dict[str, float]:
    """How far each layer's weights have moved: |after - before|_1 / |before|_1, by the layer's name (Fig. 3).

    Args:
        before: a model.
        after: another of the same structure.
    """
    shift = {}
    for (name, old), (_, new) in zip(layers_of(before), layers_of(after), strict=True):
        pairs = [
            (p.detach(), q.detach().to(p.device))
            for one, other in zip(old, new, strict=True)
            for p, q in zip(one.parameters(recurse=False), other.parameters(recurse=False), strict=True)
        ]
        length = sum(float(p.abs().sum()) for p, _ in pairs)
        shift[name] = sum(float((q - p).abs().sum()) for p, q in pairs) / max(length, 1e-12)
    return shift


@dataclass(frozen=True, kw_only=True)
class FeatureSharing(Watermark):
    """Learn features from clean data alone, freeze them, and teach the mark to the decision layers over them.

    Defaults are the paper's for MNIST; "(inferred)" marks what its text lacks.

    Attributes:
        model: architecture; a 4-layer CNN in the paper, as NaiveNet is. Padding is inferred: without it each convolution sees
            the corner from one place only, a patch there hardly moves the frozen features, and the whole source class goes over.
        trigger: kind of trigger: Patch is the paper's in-distribution watermark, OutOfDistribution its other one; any kind does.
        triggers: watermark samples that train (inferred).
        pretraining: of the clean model whose features are kept; Adam, 1e-2 on MNIST and 1e-3 elsewhere (epochs, batch size and
            schedule inferred).
        tuning: of the decision layers on clean and watermark samples (the same inferred).
        trigger_batch: watermark samples that join each batch (inferred).
        frozen: the freeze point of Fig. 3-4: how many layers stay as they are, counted from the input, norms with the layer
            before them. None freezes all but the last, which is the method; 0 none, which is the paper's baseline.
    """

    name: ClassVar[str] = "feature-sharing"
    from_clean: ClassVar[bool | tuple[str, str]] = True

    model: Architecture = architecture("naivenet:padded=true")
    trigger: AnyTrigger = field(default=Patch())
    pretraining: Recipe = field(default=ADAM)
    tuning: Recipe = field(default=replace(ADAM, epochs=10))
    trigger_batch: Annotated[int, at_least(1)] = 32
    frozen: Annotated[int, at_least(0)] | None = None

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """On the clean model of the others."""
        tuning = replace(scale.recipe, learning_rate=scale.recipe.learning_rate / 2)
        return replace(super().quick(scale), tuning=tuning, trigger_batch=32)

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """Tune the layers behind the freeze point; see :meth:`heirmark.methods.watermark.Watermark.embed`.

        Raises:
            BadConfig: when the freeze point leaves no layer to tune.
        """
        model = start_from(prepared.clean, prepared.task, self.model)
        layers = layers_of(model)
        count = len(layers) - 1 if self.frozen is None else self.frozen
        if count >= len(layers):
            raise BadConfig(
                f"frozen={count} leaves nothing to tune: this model has {len(layers)} layers, "
                + ", ".join(name for name, _ in layers)
            )
        frozen = modules_before(model, layers[count][1][0])
        kept = [
            p
            for _, modules in layers[:count]
            for module in modules
            for p in module.parameters(recurse=False)
            if p.requires_grad
        ]
        for parameter in kept:
            parameter.requires_grad_(False)
        drawn = prepared.training
        losses = fit(
            model,
            prepared.data.inputs,
            prepared.data.labels,
            recipe=self.tuning,
            seed=derive_seed(seed, "feature-sharing", "tuning"),
            runtime=runtime,
            mixed=Mixed(samples=drawn, per_batch=self.trigger_batch),
            frozen=frozen,
            description="tuning the decision layers",
        )
        for parameter in kept:
            parameter.requires_grad_(True)
        shift = weight_shift(prepared.clean, model)
        moved = {f"weight shift of {name}": value for name, value in shift.items()}
        rows = [{"epoch": epoch + 1.0, "loss": loss} for epoch, loss in enumerate(losses)]
        history = tuple({**row, **moved} if row is rows[-1] else row for row in rows)
        return Embedded(model=model, history=history)
