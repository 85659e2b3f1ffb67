"""T2S (arXiv 2606.11698) on encoders: a simulated thief learns the features, and his trigger loss is fed back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.configuration import at_least, checked
from heirmark.errors import BadConfig
from heirmark.methods.base import Embedded
from heirmark.methods.encoders.base import EncoderMethod, PreparedEncoder
from heirmark.methods.encoders.joint import JointEncoder
from heirmark.querying.asking import outputs_of
from heirmark.querying.layout import copied_with_entry
from heirmark.rehearsal.losses import DistillationLoss
from heirmark.rehearsal.passes import PassMode
from heirmark.rehearsal.settings import Rehearsal, SimulatedThief
from heirmark.rehearsal.step import assign, rehearsal_step
from heirmark.rehearsal.student import Thief, student_state
from heirmark.runtime import Runtime, derive_seed
from heirmark.training.augmenting import augment
from heirmark.training.batches import Batches
from heirmark.training.fitting import descend
from heirmark.training.linear_probe import LinearProbe
from heirmark.training.samples import Joining, Samples
from heirmark.training.steps import Figures, Step


class Gauge:
    """How far features are from others, and from a class, in units of the owner's probe: of its features' spread."""

    def __init__(self, probe: LinearProbe, device: torch.device) -> None:
        """Hold the probe's tensors, on a device."""
        self.mean, self.scale = probe.mean.to(device), probe.scale.to(device)
        self.weight, self.bias = probe.weight.to(device), probe.bias.to(device)

    def standard(self, features: Tensor) -> Tensor:
        """Features ``[N, D]`` in these units."""
        return (features - self.mean) / self.scale

    def apart(self, own: Tensor, wanted: Tensor) -> Tensor:
        """Squared distance of features ``[N, D]`` from others, a mean over all numbers."""
        return F.mse_loss(self.standard(own), self.standard(wanted))

    def logits(self, standard: Tensor) -> Tensor:
        """What the probe says to features in these units."""
        return F.linear(standard, self.weight, self.bias)

    def centres(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean of features ``[N, D]`` of each class, in these units: ``[C, D]``; zero for one that is not there."""
        total = torch.zeros(len(self.weight), features.shape[1], device=features.device)
        total.index_add_(0, labels, self.standard(features))
        return total / labels.bincount(minlength=len(total)).clamp_min(1)[:, None]


@dataclass(frozen=True, kw_only=True)
@checked
class T2SEncoder(EncoderMethod):
    """Joint training, then rehearsed thefts of the features (T2S, eq. 2-9, with features for logits).

    The thief minimises the squared distance to the target's features; his trigger loss is that of his features to the
    mean of the target class, and the utility is to keep the features that the target gives clean images at the start. The
    cross-entropy of the owner's probe, T2S' own loss, would teach the thief what fools that probe, and no other.

    Attributes:
        trigger_batch: trigger samples that join each batch of the joint training.
        initial: the target starts as jointly trained (``"joint"``) or as the ``"clean"`` encoder.
        rehearsal: of the theft. One thief, one step of theft a step, by features' squared distance.
    """

    name: ClassVar[str] = "t2s"

    trigger_batch: Annotated[int, at_least(1)] = 64
    initial: Literal["joint", "clean"] = "joint"
    rehearsal: Rehearsal = field(default=Rehearsal(thief=SimulatedThief(loss=DistillationLoss(kind="mse"))))

    def __post_init__(self) -> None:
        thief = self.rehearsal.thief
        if thief.loss.kind != "mse" or thief.label_only or thief.steps > 1 or self.rehearsal.closed_form is not None:
            raise BadConfig(
                "of an encoder one thief is rehearsed, one step at a time, who learns features: set "
                "rehearsal.thief.loss.kind=mse, and leave label_only, steps and closed_form as they are"
            )

    def embed(self, prepared: PreparedEncoder, *, seed: int, runtime: Runtime) -> Embedded:
        """Train jointly, then rehearse; see :class:`heirmark.methods.encoders.base.EncoderMethod`."""
        target = self.start_of(prepared, "clean", seed=seed)
        history: tuple[Mapping[str, float], ...] = ()
        if self.initial == "joint":
            first = JointEncoder(
                model=self.model, width=self.width, pretraining=self.pretraining, trigger_batch=self.trigger_batch
            ).embed(prepared, seed=seed, runtime=runtime)
            target, history = first.model, first.history
        rows = self._rehearse(target, prepared, seed=derive_seed(seed, "rehearsal"), runtime=runtime)
        return Embedded(model=target, history=(*history, *rows))

    def _rehearse(
        self, target: nn.Module, prepared: PreparedEncoder, *, seed: int, runtime: Runtime
    ) -> tuple[Mapping[str, float], ...]:
        """Tune the target in place."""
        config, device = self.rehearsal, runtime.torch_device
        exact = Runtime(device=runtime.device, precision="float32") if config.precision == "float32" else runtime
        gauge, data = Gauge(prepared.probe, device), prepared.data
        skeleton = copied_with_entry(prepared.encoder).to(device)
        thief = Thief(
            skeleton=skeleton,
            student=student_state(skeleton),
            rate=config.thief.rate,
            loss=config.thief.loss,
            trigger_mode=config.thief.trigger_mode,
            derivative=config.thief.derivative,
        )
        kept = outputs_of(target, data.inputs, runtime=runtime).to(device)
        centres = gauge.centres(kept, data.labels.to(device))
        batches, triggers = Batches(data.inputs, device), Joining(prepared.training, config.trigger_batch, device)
        number = 0

        def draw(chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
            shown = triggers.draw(generator)
            clean = augment(batches[chosen], config.recipe.augment, generator)
            return clean, kept[chosen], shown.inputs, shown.targets

        def gradients(clean: Tensor, wanted: Tensor, shown: Tensor, targets: Tensor) -> Figures:
            nonlocal thief, number
            target.zero_grad(set_to_none=True)
            step = rehearsal_step(
                target,
                thief,
                utility=Samples(inputs=clean, targets=wanted),
                mark=Samples(inputs=shown, targets=targets),
                weights=config.update.weights,
                mode=PassMode(seed=derive_seed(seed, "step", number), runtime=exact),
                memory=config.memory,
                utility_loss=gauge.apart,
                mark_loss=lambda own, targets: F.mse_loss(gauge.standard(own), centres[targets]),
            )
            thief, number = step.thief, number + 1
            assign(target, gradients=config.update.direction(step), buffers=step.teacher_buffers)
            return {
                "watermark_loss": step.watermark_loss,
                "utility_loss": step.utility_loss,
                "distillation_loss": step.distillation_loss,
            }

        return descend(
            target,
            len(data),
            draw,
            Step(gradients=gradients, recordable=False),
            batches=batches,
            recipe=config.recipe,
            seed=seed,
            runtime=runtime,
            remedy="lower learning_rate, or raise utility_weight (update=paper)",
            description="rehearsing",
        )
