"""The rehearsal: many simulated thefts, each feeding its outcome back into the target (T2S, arXiv 2606.11698, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor, nn

from heirmark.querying.asking import evaluating, predict
from heirmark.querying.layout import copied_with_entry
from heirmark.rehearsal.closed_form import Audience
from heirmark.rehearsal.closed_form_step import closed_form_step
from heirmark.rehearsal.derivative import choose_derivative
from heirmark.rehearsal.passes import PassMode, draws
from heirmark.rehearsal.settings import Rehearsal
from heirmark.rehearsal.step import assign, rehearsal_step
from heirmark.rehearsal.student import Student, Thief, simulate_theft, student_module, student_state
from heirmark.runtime import Runtime, derive_seed, generator_of, to_device
from heirmark.tasks.task import Split
from heirmark.training.augmenting import augment
from heirmark.training.batches import Batches
from heirmark.training.cuda_graphs import overwrite, recorded, repeats
from heirmark.training.fitting import descend
from heirmark.training.samples import Joining, Samples, check_answered
from heirmark.training.steps import Figures, Step

__all__ = ["Monitor", "rehearse"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Monitor:
    """What the history's figures are measured on. Nothing is chosen by them.

    Attributes:
        clean: labelled samples that nothing trains on.
        triggers: held-out trigger samples; where hosts are few, some are the key's.
    """

    clean: Split
    triggers: Samples

    def row(self, target: nn.Module, student: nn.Module, runtime: Runtime) -> dict[str, float]:
        """Accuracy and WSR of the target and of the simulated thief, each in [0, 1]."""
        row: dict[str, float] = {}
        for name, model in (("target", target), ("student", student)):
            for figure, inputs, wanted in (
                ("accuracy", self.clean.inputs, self.clean.labels),
                ("wsr", self.triggers.inputs, self.triggers.targets),
            ):
                right = predict(model, inputs, runtime=runtime).argmax(1) == wanted
                row[f"{name}_{figure}"] = float(right.double().mean())
        return row


def rehearse(
    target: nn.Module,
    students: nn.Module | Sequence[nn.Module],
    data: Split,
    mark: Samples,
    *,
    config: Rehearsal,
    seed: int,
    monitor: Monitor,
    queries: Tensor | None = None,
    audience: Audience | None = None,
    runtime: Runtime | None = None,
) -> tuple[nn.Module, tuple[Mapping[str, float], ...]]:
    """Fine-tune a target so that thieves of it inherit the trigger.

    Args:
        target: where the target starts; unchanged.
        students: where the simulated thieves start; unchanged. One as in the paper, or a pool that takes turns; any
            architectures with the same classes. Label-only thieves start as the first of them does.
        data: the owner's split.
        mark: trigger samples that train, with the labels that they shall have.
        config: see :class:`Rehearsal`.
        seed: of the batches and of dropout.
        monitor: what the history is measured on.
        queries: ``[Q, ...]`` what the simulated thieves ask; None lets them ask the owner's images, batch by batch the same
            ones that the utility is taken on, as in the paper.
        audience: thieves in closed form, who take one turn together after the others; they ask ``queries``, or all of ``data``,
            about the triggers of ``mark``.
        runtime: device, precision, progress.

    Returns:
        The tuned target in eval mode, and one row an epoch: epoch, accuracy and WSR of target and first thief, mean losses, and
        whether the hypergradient was ``exact`` (1: forward mode; 0: finite differences).

    Raises:
        ShapeMismatch: when there are no triggers, or not one label each.
        BadData: when a loss is no longer finite.
    """
    runtime = runtime or Runtime()
    check_answered("triggers", mark)
    device, recipe = runtime.torch_device, config.recipe
    exact = Runtime(device=runtime.device, precision="float32") if config.precision == "float32" else runtime
    model = copied_with_entry(target).to(device)
    batches, labels = Batches(data.inputs, device), data.labels.to(device)
    triggers = Joining(mark, config.trigger_batch, device)
    foreign = queries is not None
    pool = Batches(batches.inputs if queries is None else queries, device)
    batch = min(recipe.batch_size, len(data))
    thieves = _thieves(students, config, data.inputs[:2].to(device), seed=seed, runtime=exact)
    count_of = len(thieves) + (audience is not None)
    steps = recipe.epochs * (len(data) // batch) // count_of
    turns: list[_Turn | _ClosedTurn] = [
        _Turn(model, thief, config, foreign=foreign, seed=seed, steps=steps, runtime=exact) for thief in thieves
    ]
    if audience is not None:
        turns.append(_ClosedTurn(model, audience, config, foreign=foreign, seed=seed, runtime=exact))
    all_exact = float(all(thief.derivative == "forward" for thief in thieves))

    def draw(chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        def elsewhere() -> tuple[Tensor, Tensor]:
            rows = to_device(torch.randint(len(pool), (batch,), generator=generator), device)
            return augment(pool[rows], recipe.augment, generator), rows

        shown = triggers.draw(generator)
        early = [elsewhere()[0] for _ in range(config.thief.steps - 1)]
        clean = augment(batches[chosen], recipe.augment, generator)
        asked, rows = elsewhere() if foreign else (clean, chosen)
        return clean, labels[chosen], shown.inputs, shown.targets, *early, *([asked] if foreign else []), rows

    numbers = count()
    # Some figures are of some turns alone, and the means of an epoch are over all its steps.
    told = {"watermark_loss": len(thieves), "distillation_loss": len(thieves), "closed_form_loss": 1}
    weights = {name: len(turns) / share for name, share in told.items()}

    def take_turns(*tensors: Tensor) -> Figures:
        number = next(numbers)
        found = turns[number % len(turns)].take(number, tensors)
        return {**{name: value * weights.get(name, 1.0) for name, value in found.items()}, "exact": all_exact}

    def watched(*_: int) -> dict[str, float]:
        if audience is not None:
            audience.refresh()
        return monitor.row(model, student_module(thieves[0].skeleton, thieves[0].student), runtime)

    first = {"epoch": 0.0, **watched()}
    rows = descend(
        model,
        len(data),
        draw,
        Step(gradients=take_turns, recordable=False),  # each thief's turn is recorded by itself
        batches=batches,
        recipe=recipe,
        seed=seed,
        runtime=runtime,
        after_epoch=watched,
        remedy="lower learning_rate, or raise utility_weight (update=paper)",
        description="rehearsing",
    )
    return model, (first, *rows)


def _thieves(
    students: nn.Module | Sequence[nn.Module], config: Rehearsal, sample: Tensor, *, seed: int, runtime: Runtime
) -> list[Thief]:
    """The simulated thieves, in the order of their turns."""
    starts = [students] if isinstance(students, nn.Module) else list(students)
    wanted = config.thief
    label_only = (starts[0], replace(wanted.loss, kind="label"))
    thieves = []
    for start, loss in [*((start, wanted.loss) for start in starts), *[label_only] * wanted.label_only]:
        skeleton = copied_with_entry(start).to(runtime.torch_device)
        thief = Thief(
            skeleton=skeleton,
            student=student_state(skeleton),
            rate=wanted.rate,
            loss=loss,
            trigger_mode=wanted.trigger_mode,
            derivative=wanted.derivative,
        )
        if wanted.derivative == "auto":
            derivative, _ = choose_derivative(thief, sample, mode=PassMode(seed=seed, runtime=runtime))
            thief = replace(thief, derivative=derivative)
        thieves.append(thief)
    return thieves


class _Turn:
    """What happens at a thief's turn. Its state changes in place, so that a GPU can record it."""

    def __init__(
        self,
        model: nn.Module,
        thief: Thief,
        config: Rehearsal,
        *,
        foreign: bool,
        seed: int,
        steps: int,
        runtime: Runtime,
    ) -> None:
        self.model, self.thief, self.config, self.foreign = model, thief, config, foreign
        self.seed, self.runtime, self.number, self.own = seed, runtime, 0, 0
        self.first = [tensor.clone() for tensor in _tensors(thief.student)] if config.thief.reset_every else []
        # Where nothing draws at random, no generator need be seeded, which could not be recorded.
        self.seedless = all(repeats(part) and not draws(part) for part in (model, thief.skeleton))
        recordable = self.seedless and thief.derivative == "forward"  # differences look at norms
        step = Step(gradients=self._compute, recordable=recordable, state=_tensors(thief.student))
        self.gradients = recorded(model, step, runtime=runtime, steps=steps)

    def take(self, number: int, tensors: tuple[Tensor, ...]) -> Figures:
        """The step of this 0-based number; leaves the target's direction in its gradients, and its statistics updated.

        Of a batch's tensors the last, where what is asked stands among the queries, is not needed.
        """
        if self.first and self.own % self.config.thief.reset_every == 0:
            overwrite(_tensors(self.thief.student), self.first)
        self.number, self.own = number, self.own + 1
        return self.gradients(*tensors[:-1])

    def _mode(self, *purpose: str | int) -> PassMode:
        """A mode for one part of a step."""
        return PassMode(seed=None if self.seedless else derive_seed(self.seed, *purpose), runtime=self.runtime)

    def _compute(self, images: Tensor, labels: Tensor, shown: Tensor, wanted: Tensor, *others: Tensor) -> Figures:
        early, asked = (others[:-1], others[-1]) if self.foreign else (others, None)
        thief = self.thief
        self.model.zero_grad(set_to_none=True)
        for number, batch in enumerate(early):
            thief = self._undifferentiated(thief, batch, self._mode("early", self.number, number))
        step = rehearsal_step(
            self.model,
            thief,
            utility=Samples(inputs=images, targets=labels),
            mark=Samples(inputs=shown, targets=wanted),
            asked=asked,
            weights=self.config.update.weights,
            mode=self._mode("step", self.number),
            memory=self.config.memory,
        )
        overwrite(_tensors(self.thief.student), _tensors(step.thief.student))
        assign(self.model, gradients=self.config.update.direction(step), buffers=step.teacher_buffers)
        return {
            "watermark_loss": step.watermark_loss,
            "utility_loss": step.utility_loss,
            "distillation_loss": step.distillation_loss,
        }

    def _undifferentiated(self, thief: Thief, inputs: Tensor, mode: PassMode) -> Thief:
        """A thief after a step that nothing is learned from; the target answers in eval mode, as it answers a real thief."""
        with torch.no_grad(), evaluating(self.model), self.runtime.autocast():
            answers = self.model(inputs).float()
        return simulate_theft(thief, answers, inputs, mode=mode, micro_batch=self.config.memory.micro_batch).thief


class _ClosedTurn:
    """The turn of thieves in closed form, who have nothing to do before it."""

    def __init__(
        self, model: nn.Module, audience: Audience, config: Rehearsal, *, foreign: bool, seed: int, runtime: Runtime
    ) -> None:
        self.model, self.audience, self.config, self.foreign = model, audience, config, foreign
        self.seed, self.runtime = seed, runtime

    def take(self, number: int, tensors: tuple[Tensor, ...]) -> Figures:
        """As a :class:`_Turn` does; what other turns made the target answer in the meantime, these thieves have not heard."""
        images, labels, *others, chosen = tensors
        generator = generator_of(derive_seed(self.seed, "closed form", number))
        rows = torch.randint(len(self.audience.targets), (self.config.trigger_batch,), generator=generator)
        self.model.zero_grad(set_to_none=True)
        step = closed_form_step(
            self.model,
            self.audience,
            utility=Samples(inputs=images, targets=labels),
            chosen=chosen,
            rows=to_device(rows, images.device),
            asked=others[-1] if self.foreign else None,
            weights=self.config.update.weights,
            mode=PassMode(seed=derive_seed(self.seed, "step", number), runtime=self.runtime),
            memory=self.config.memory,
        )
        assign(self.model, gradients=self.config.update.direction(step), buffers=step.teacher_buffers)
        return {"closed_form_loss": step.watermark_loss, "utility_loss": step.utility_loss}


def _tensors(student: Student) -> list[Tensor]:
    """What theft changes of a state."""
    return [*student.parameters.values(), *student.buffers.values()]
