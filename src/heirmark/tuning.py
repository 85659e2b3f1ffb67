"""The rehearsal: many simulated thefts, each feeding its outcome back into the target (T2S, arXiv 2606.11698, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.asking import evaluating, predict
from heirmark.augmenting import augment
from heirmark.batches import Batches
from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.layout import copied_with_entry
from heirmark.rehearsal import (
    Derivative,
    DistillationLoss,
    RehearsalStep,
    Student,
    assign,
    choose_derivative,
    combine_balanced,
    combine_paper,
    norm,
    rehearsal_step,
    simulate_theft,
    student_module,
    student_state,
)
from heirmark.runtime import Runtime, derive_seed, generator_of, seeded, to_device
from heirmark.samples import ShuffledIndex
from heirmark.task import Split

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
        enough: trigger loss of the simulated thief below which ρ shrinks in proportion to it; 0 never shrinks it. Scaled to ρ,
            the hypergradient is as long when the thief has the mark already as when it has none, and costs as much accuracy.
        remove_conflict: of the balanced update.
        student_steps: steps of theft for each of the target's, every one on a batch of its own; only the last is differentiated.
            One in the paper.
        label_thieves: further simulated thieves that see labels only (loss ``"label"``). Thieves take turns, step by step.
        reset_student_every: steps after which a thief starts again from its first state; 0 keeps it, as the paper does.
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
    enough: float = 0.0
    remove_conflict: bool = True
    student_steps: int = 1
    label_thieves: int = 0
    reset_student_every: int = 0
    augment: Literal["none", "flip", "crop-flip"] = "none"
    loss: DistillationLoss = field(default=DistillationLoss())
    trigger_mode: Literal["eval", "train", "mixed"] = "eval"
    derivative: Literal["auto", "forward", "difference", "central"] = "auto"
    precision: Literal["float32", "runtime"] = "float32"
    micro_batch: int = 0
    one_graph: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "trigger_batch", "student_steps"):
            if getattr(self, name) < 1:
                raise BadConfig(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("epochs", "label_thieves", "reset_student_every", "micro_batch"):
            if getattr(self, name) < 0:
                raise BadConfig(f"{name} may not be negative, not {getattr(self, name)}")
        rates = 0 < self.learning_rate < math.inf and 0 < self.student_rate < math.inf
        if not (rates and 0 <= self.momentum < 1):
            raise BadConfig(f"learning_rate and student_rate must be positive and finite, momentum in [0, 1): {self}")
        if not all(0 <= number < math.inf for number in (self.utility_weight, self.rho, self.enough)):
            raise BadConfig(f"utility_weight, rho and enough may not be negative, and must be finite: {self}")
        for name, value, known in (
            ("update", self.update, ("paper", "balanced")),
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


@dataclass(kw_only=True, eq=False)
class _Thief:
    """A simulated thief between its turns."""

    skeleton: nn.Module
    first: Student
    state: Student
    loss: DistillationLoss
    derivative: Derivative


def rehearse(
    target: nn.Module,
    students: nn.Module | Sequence[nn.Module],
    data: Split,
    triggers: Tensor,
    targets: Tensor,
    *,
    config: Rehearsal,
    seed: int,
    monitor: Monitor,
    queries: Tensor | None = None,
    runtime: Runtime | None = None,
) -> tuple[nn.Module, tuple[Mapping[str, float], ...]]:
    """Fine-tune a target so that thieves of it inherit the trigger.

    Args:
        target: where the target starts; unchanged.
        students: where the simulated thieves start; unchanged. One as in the paper, or a pool that takes turns; any
            architectures with the same classes. Label-only thieves start as the first of them does.
        data: the owner's split.
        triggers: ``[M, ...]`` trigger samples that train.
        targets: ``[M]`` int64 labels that they shall have.
        config: see :class:`Rehearsal`.
        seed: of the batches and of dropout.
        monitor: what the history is measured on.
        queries: ``[Q, ...]`` what the simulated thieves ask; None lets them ask the owner's images, batch by batch the same
            ones that the utility is taken on, as in the paper.
        runtime: device, precision, progress.

    Returns:
        The tuned target in eval mode, and one row an epoch: epoch, accuracy and WSR of target and first thief, mean losses, and
        whether the hypergradient was ``exact`` (1: forward mode; 0: finite differences).

    Raises:
        BadConfig: for queries together with micro_batch or one_graph.
        BadData: when a loss is no longer finite.
    """
    runtime = runtime or Runtime()
    if queries is not None and (config.micro_batch or config.one_graph):
        raise BadConfig("queries of their own are taken whole: leave micro_batch and one_graph out")
    device = runtime.torch_device
    exact = Runtime(device=runtime.device, precision="float32") if config.precision == "float32" else runtime
    model = copied_with_entry(target).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), config.learning_rate, momentum=config.momentum)
    inputs, labels = Batches(data.inputs, device), data.labels.to(device)
    asked = None if queries is None else Batches(queries, device)
    if len(triggers) == 0 or len(triggers) != len(targets):
        raise ShapeMismatch(
            f"{len(triggers)} trigger samples and {len(targets)} targets: there must be some, one target each"
        )
    triggers, targets = triggers.to(device), targets.to(device)
    index = ShuffledIndex(len(triggers), config.trigger_batch)
    generator = generator_of(seed)
    batch = min(config.batch_size, len(inputs))
    per_epoch = len(inputs) // batch
    steps = config.epochs * per_epoch
    thieves = _gang(students, config, data.inputs[:2].to(device), seed=seed, runtime=exact)

    def augmented(images: Tensor) -> Tensor:
        return augment(images, config.augment, generator)

    def elsewhere(pool: Batches) -> Tensor:
        return augmented(pool[to_device(torch.randint(len(pool), (batch,), generator=generator), device)])

    def row(epoch: int) -> dict[str, float]:
        return monitor.row(epoch, model, student_module(thieves[0].skeleton, thieves[0].state), runtime)

    history: list[Mapping[str, float]] = [row(0)]
    for epoch in range(config.epochs):
        order = to_device(torch.randperm(len(inputs), generator=generator), device)
        totals = torch.zeros(3, device=device)
        for k in range(per_epoch):
            step = epoch * per_epoch + k
            thief = thieves[step % len(thieves)]
            if config.reset_student_every and step // len(thieves) % config.reset_student_every == 0:
                thief.state = thief.first
            chosen = order[k * batch : (k + 1) * batch]
            rows = to_device(index.draw(generator), device)
            shown, wanted = triggers[rows], targets[rows]
            for early in range(config.student_steps - 1):
                images = elsewhere(inputs if asked is None else asked)
                thief.state = _practise(
                    model, thief, images, config, seed=derive_seed(seed, "early", step, early), runtime=exact
                )
            result = _rehearse_once(
                model,
                thief,
                (augmented(inputs[chosen]), labels[chosen]),
                None if asked is None else elsewhere(asked),
                (shown, wanted),
                config,
                seed=derive_seed(seed, "step", step),
                runtime=exact,
            )
            thief.state = result.student
            _descend(model, optimizer, result, config, step / steps)
            totals += torch.stack([result.watermark_loss, result.utility_loss, result.distillation_loss]).float()
            runtime.progress("rehearsing", step + 1, steps)
        means = [total / per_epoch for total in totals.tolist()]
        if not all(math.isfinite(mean) for mean in means):
            raise BadData(
                f"a loss of the rehearsal became {means} in epoch {epoch + 1}: "
                "lower learning_rate, or raise utility_weight (update=paper)"
            )
        losses = dict(zip(("watermark_loss", "utility_loss", "distillation_loss"), means, strict=True))
        all_exact = all(thief.derivative == "forward" for thief in thieves)
        history.append({**row(epoch + 1), **losses, "exact": float(all_exact)})
    return model.eval(), tuple(history)


def _gang(
    students: nn.Module | Sequence[nn.Module], config: Rehearsal, sample: Tensor, *, seed: int, runtime: Runtime
) -> list[_Thief]:
    """The simulated thieves, in the order of their turns."""
    starts = [students] if isinstance(students, nn.Module) else list(students)
    kinds = [config.loss] * len(starts) + [replace(config.loss, kind="label")] * config.label_thieves
    thieves = []
    for start, loss in zip(starts + [starts[0]] * config.label_thieves, kinds, strict=True):
        skeleton = copied_with_entry(start).to(runtime.torch_device)
        first = student_state(skeleton)
        if config.derivative == "auto":
            derivative, _ = choose_derivative(skeleton, first, sample, seed=seed, runtime=runtime)
        else:
            derivative = config.derivative
        thieves.append(_Thief(skeleton=skeleton, first=first, state=first, loss=loss, derivative=derivative))
    return thieves


def _practise(
    model: nn.Module, thief: _Thief, images: Tensor, config: Rehearsal, *, seed: int, runtime: Runtime
) -> Student:
    """A step of theft that nothing is learned from; the target answers in eval mode, as it answers a real thief."""
    with torch.no_grad(), evaluating(model), runtime.autocast():
        answers = model(images).float()
    return simulate_theft(
        thief.skeleton,
        thief.state,
        answers,
        images,
        loss=thief.loss,
        lr=config.student_rate,
        micro_batch=config.micro_batch or None,
        seed=seed,
        runtime=runtime,
    ).student


def _rehearse_once(
    model: nn.Module,
    thief: _Thief,
    clean: tuple[Tensor, Tensor],
    queries: Tensor | None,
    triggers: tuple[Tensor, Tensor],
    config: Rehearsal,
    *,
    seed: int,
    runtime: Runtime,
) -> RehearsalStep:
    """One step; where the thief asks other images than the utility is taken on, the two gradients are taken apart."""

    def take(
        images: Tensor, labels: Tensor, weights: tuple[float, float] | None, *, training: bool = True
    ) -> RehearsalStep:
        return rehearsal_step(
            model,
            thief.skeleton,
            thief.state,
            images,
            labels,
            *triggers,
            alpha=config.student_rate,
            loss=thief.loss,
            weights=weights,
            derivative=thief.derivative,
            trigger_mode=config.trigger_mode,
            teacher_training=training,
            micro_batch=config.micro_batch or None,
            one_graph=config.one_graph,
            seed=seed,
            runtime=runtime,
        )

    both = (1.0, config.utility_weight) if config.update == "paper" else None
    if queries is None:
        return take(*clean, both)
    # In eval mode, as the target answers a real thief: foreign images have other statistics than its own.
    asked = take(queries, clean[1].new_zeros(len(queries)), (1.0, 0.0), training=False)
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    with torch.enable_grad(), seeded(derive_seed(seed, "utility"), clean[0].device), runtime.autocast():
        logits = model(clean[0])  # in train mode: its running statistics are those of the owner's images
    utility = F.cross_entropy(logits.float(), clean[1])
    gradient = dict(zip(names, torch.autograd.grad(utility, parameters), strict=True))
    direction = combine_paper(asked.direction, gradient, config.utility_weight) if both else {}
    return replace(
        asked,
        hypergradient=asked.direction,
        utility_gradient=gradient,
        direction=direction,
        utility_loss=utility.detach(),
        teacher_buffers={},
        diagnostics={**asked.diagnostics, "utility_gradient_norm": norm(gradient.values())},
    )


def _descend(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    result: RehearsalStep,
    config: Rehearsal,
    progress: float,
) -> None:
    """One step of the target's SGD along eq. 9 or its balanced form, and its running statistics."""
    direction = result.direction
    if config.update == "balanced":
        length = result.diagnostics["utility_gradient_norm"]
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
