"""The rehearsal: many simulated thefts, each feeding its outcome back into the target (T2S, arXiv 2606.11698, Algorithm 1)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData
from heirmark.rehearsal import (
    DistillationLoss,
    RehearsalStep,
    assign,
    choose_derivative,
    combine_balanced,
    rehearsal_step,
    student_module,
    student_state,
)
from heirmark.runtime import Runtime, as_floats, channels_last, derive_seed, predict
from heirmark.task import Split
from heirmark.training import Rotation, augment

__all__ = ["Monitor", "Rehearsal", "rehearse"]


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """How the theft is rehearsed. The defaults are T2S' own; "(inferred)" marks values its text lost.

    Attributes:
        epochs: passes over the owner's data; 3 in the paper.
        batch_size: clean samples a step, for the utility and for the simulated theft (inferred).
        trigger_batch: trigger samples a step (inferred).
        learning_rate: of the target, η (inferred).
        momentum: of the target's SGD (inferred).
        schedule: of the learning rate: ``"cosine"`` to zero, or ``"constant"``.
        student_rate: learning rate of the simulated thief, α (inferred).
        utility_weight: λ of eq. 9; 50 on CIFAR-10 and 15 on CIFAR-100.
        update: ``"paper"`` is eq. 9. ``"balanced"`` scales the hypergradient to ``rho`` times the norm of the utility gradient
            and takes out what conflicts with it: the raw hypergradient can be a thousand times the longer one and points
            against it, so that λ decides everything and small nets collapse.
        rho: of the balanced update.
        rho_of: which norm of the utility gradient ρ multiplies: that of this ``"step"``, or the ``"mean"`` of all steps so far
            where this step's is shorter. As a target comes to know its data by heart the utility gradient vanishes, and with
            it what ``"step"`` leaves of the hypergradient, so that the mark fades again.
        enough: trigger loss of the simulated thief below which ρ shrinks in proportion to it; 0 never shrinks it. Scaled to ρ,
            the hypergradient is as long when the thief has the mark already as when it has none, and costs as much accuracy.
        remove_conflict: of the balanced update.
        reset_student_every: steps after which the thief starts again from its first state; 0 keeps it, as the paper does.
        augment: of the clean batch, for utility and theft alike: ``"none"`` (inferred), ``"flip"`` or ``"crop-flip"``. A target
            answers images it has learned by heart more surely than those that a real thief will show it.
        loss: what the thief minimises; KL(p_T || p_S) at temperature 1 (inferred).
        trigger_mode: how the thief runs on triggers: ``"eval"``, as a verifier meets it, ``"train"``, or ``"mixed"`` with
            the clean batch.
        derivative: ``"auto"`` (forward mode where every layer has a rule), ``"forward"``, ``"difference"`` or ``"central"``.
        precision: ``"float32"``, or ``"runtime"`` for the runtime's own.
        micro_batch: examples at a time, for big models; 0 takes the batch whole.
        one_graph: keep one autograd graph alive at a time, for big models.
    """

    epochs: int = 3
    batch_size: int = 256
    trigger_batch: int = 64
    learning_rate: float = 1e-3
    momentum: float = 0.9
    schedule: Literal["cosine", "constant"] = "cosine"
    student_rate: float = 0.05
    utility_weight: float = 50.0
    update: Literal["paper", "balanced"] = "paper"
    rho: float = 1.0
    rho_of: Literal["step", "mean"] = "step"
    enough: float = 0.0
    remove_conflict: bool = True
    reset_student_every: int = 0
    augment: Literal["none", "flip", "crop-flip"] = "none"
    loss: DistillationLoss = field(default=DistillationLoss())
    trigger_mode: Literal["eval", "train", "mixed"] = "eval"
    derivative: Literal["auto", "forward", "difference", "central"] = "auto"
    precision: Literal["float32", "runtime"] = "float32"
    micro_batch: int = 0
    one_graph: bool = False

    def __post_init__(self) -> None:
        if (
            self.epochs < 0
            or min(self.batch_size, self.trigger_batch) < 1
            or min(self.reset_student_every, self.micro_batch) < 0
        ):
            raise BadConfig(
                f"epochs, reset_student_every and micro_batch may not be negative, batches must be positive: {self}"
            )
        rates = 0 < self.learning_rate < math.inf and 0 < self.student_rate < math.inf
        if not (rates and 0 <= self.momentum < 1):
            raise BadConfig(f"learning_rate and student_rate must be positive and finite, momentum in [0, 1): {self}")
        if not all(0 <= number < math.inf for number in (self.utility_weight, self.rho, self.enough)):
            raise BadConfig(f"utility_weight, rho and enough may not be negative, and must be finite: {self}")
        for name, value, known in (
            ("update", self.update, ("paper", "balanced")),
            ("rho_of", self.rho_of, ("step", "mean")),
            ("schedule", self.schedule, ("cosine", "constant")),
            ("augment", self.augment, ("none", "flip", "crop-flip")),
            ("trigger_mode", self.trigger_mode, ("eval", "train", "mixed")),
            ("derivative", self.derivative, ("auto", "forward", "difference", "central")),
            ("precision", self.precision, ("float32", "runtime")),
        ):
            if value not in known:
                raise BadConfig(f"unknown {name} {value!r}: choose one of {', '.join(known)}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Monitor:
    """What the history's figures are measured on. Nothing is chosen by them.

    Attributes:
        clean: labelled samples that nothing trains on.
        triggers: ``[M, ...]`` held-out trigger samples; where hosts are few, some are the key's.
        targets: ``[M]`` int64.
    """

    clean: Split
    triggers: Tensor
    targets: Tensor

    def row(self, epoch: int, target: nn.Module, student: nn.Module, runtime: Runtime) -> dict[str, float]:
        """Accuracy and WSR of the target and of the simulated thief, each in [0, 1]."""
        row: dict[str, float] = {"epoch": float(epoch)}
        for name, model in (("target", target), ("student", student)):
            for figure, inputs, wanted in (
                ("accuracy", self.clean.inputs, self.clean.labels),
                ("wsr", self.triggers, self.targets),
            ):
                right = predict(model, inputs, runtime=runtime).argmax(1) == wanted
                row[f"{name}_{figure}"] = float(right.double().mean())
        return row


def rehearse(
    target: nn.Module,
    student: nn.Module,
    data: Split,
    triggers: Tensor,
    targets: Tensor,
    *,
    config: Rehearsal,
    seed: int,
    monitor: Monitor,
    runtime: Runtime | None = None,
) -> tuple[nn.Module, tuple[Mapping[str, float], ...]]:
    """Fine-tune a target so that a thief of it inherits the trigger.

    Args:
        target: where the target starts; unchanged.
        student: where the simulated thief starts; unchanged. Any architecture with the same classes.
        data: the owner's split; the simulated thief is given the same images.
        triggers: ``[M, ...]`` trigger samples that train.
        targets: ``[M]`` int64 labels that they shall have.
        config: see :class:`Rehearsal`.
        seed: of the batches and of dropout.
        monitor: what the history is measured on.
        runtime: device, precision, progress.

    Returns:
        The tuned target in eval mode, and one row an epoch: epoch, accuracy and WSR of target and thief, mean losses, and
        whether the hypergradient was ``exact`` (1: forward mode; 0: finite differences).

    Raises:
        BadData: when a loss is no longer finite.
    """
    runtime = runtime or Runtime()
    device = runtime.torch_device
    exact = Runtime(device=runtime.device, precision="float32") if config.precision == "float32" else runtime
    model = copy.deepcopy(target).to(device).train()
    skeleton = copy.deepcopy(student).to(device)
    first = thief = student_state(skeleton)
    optimizer = torch.optim.SGD(model.parameters(), config.learning_rate, momentum=config.momentum)
    inputs, labels = data.inputs.to(device), data.labels.to(device)
    rotation = Rotation(triggers.to(device), targets.to(device), config.trigger_batch)
    generator = torch.Generator().manual_seed(seed)
    batch = min(config.batch_size, len(inputs))
    per_epoch = len(inputs) // batch
    steps = config.epochs * per_epoch
    derivative = config.derivative
    if derivative == "auto":
        sample = channels_last(as_floats(inputs[:2]))
        derivative, _ = choose_derivative(skeleton, thief, sample, seed=seed, runtime=exact)
    seen = torch.zeros(2, device=device)
    history = [monitor.row(0, model, student_module(skeleton, thief), runtime)]
    for epoch in range(config.epochs):
        order = torch.randperm(len(inputs), generator=generator).to(device)
        totals = torch.zeros(3, device=device)
        for k in range(per_epoch):
            step = epoch * per_epoch + k
            if config.reset_student_every and step % config.reset_student_every == 0:
                thief = first
            chosen = order[k * batch : (k + 1) * batch]
            shown, wanted = rotation.draw(generator)
            result = rehearsal_step(
                model,
                skeleton,
                thief,
                channels_last(augment(as_floats(inputs[chosen]), config.augment, generator)),
                labels[chosen],
                channels_last(shown),
                wanted,
                alpha=config.student_rate,
                loss=config.loss,
                weights=(1.0, config.utility_weight) if config.update == "paper" else None,
                derivative=derivative,
                trigger_mode=config.trigger_mode,
                micro_batch=config.micro_batch or None,
                one_graph=config.one_graph,
                seed=derive_seed(seed, "step", step),
                runtime=exact,
            )
            thief = result.student
            _descend(model, optimizer, result, config, seen, step / steps)
            totals += torch.stack([result.watermark_loss, result.utility_loss, result.distillation_loss]).float()
            runtime.progress("rehearsing", step + 1, steps)
        means = [float(total) / per_epoch for total in totals]
        if not all(math.isfinite(mean) for mean in means):
            raise BadData(
                f"a loss of the rehearsal became {means} in epoch {epoch + 1}: "
                "lower learning_rate, or raise utility_weight (update=paper)"
            )
        row = monitor.row(epoch + 1, model, student_module(skeleton, thief), runtime)
        losses = dict(zip(("watermark_loss", "utility_loss", "distillation_loss"), means, strict=True))
        history.append({**row, **losses, "exact": float(derivative == "forward")})
    return model.eval(), tuple(history)


def _descend(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    result: RehearsalStep,
    config: Rehearsal,
    seen: Tensor,
    progress: float,
) -> None:
    """One step of the target's SGD along eq. 9 or its balanced form, and its running statistics.

    ``seen`` gathers the sum of the utility gradient's norms, and how many they are.
    """
    direction = result.direction
    if config.update == "balanced":
        length = result.diagnostics["utility_gradient_norm"]
        seen += torch.stack([length, torch.ones_like(length)])
        if config.rho_of == "mean":
            length = torch.maximum(length, seen[0] / seen[1])
        if config.enough:
            length = length * (result.watermark_loss / config.enough).clamp_max(1)
        direction = combine_balanced(
            result.hypergradient,
            result.utility_gradient,
            config.rho,
            remove_conflict=config.remove_conflict,
            reference=length,
        )
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate
        if config.schedule == "cosine":
            group["lr"] *= 0.5 * (1 + math.cos(math.pi * progress))
    assign(model, gradients=direction, buffers=result.teacher_buffers)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
