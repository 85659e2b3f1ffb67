"""A mark as strong as an accuracy budget allows: thieves in closed form pull, a slice of data that trains nothing watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.errors import BadData
from heirmark.querying.layout import copied_with_entry
from heirmark.rehearsal.balance import Balance
from heirmark.rehearsal.budget_settings import WithinBudget
from heirmark.rehearsal.closed_form import Audience
from heirmark.rehearsal.judges import Judges
from heirmark.rehearsal.losses import target_slope
from heirmark.rehearsal.passes import copies
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.storing import join
from heirmark.tasks.task import Split
from heirmark.training.augmenting import augment
from heirmark.training.batches import Batches
from heirmark.training.fitting import descend
from heirmark.training.samples import Joining, Samples, ShuffledIndex, check_answered
from heirmark.training.steps import Figures, Step

COLLAPSE = 0.05
"""Accuracy lost, beyond the budget, at which a rehearsal is rolled back rather than steered."""
RETREATS = (0.75, 0.5, 0.25)
"""Shares of the way that are tried in the end where nothing kept the budget."""


def rehearse_within_budget(
    target: nn.Module,
    audience: Callable[[nn.Module], Audience],
    data: Split,
    mark: Samples,
    *,
    config: WithinBudget,
    judges: Judges,
    seed: int,
    runtime: Runtime | None = None,
) -> tuple[nn.Module, tuple[Mapping[str, float], ...]]:
    """Fine-tune a target so that thieves inherit its mark, at no more than a set loss of accuracy.

    After every epoch a candidate is judged: the accuracy that it lost, as far as the images that watch can
    tell (:func:`heirmark.rehearsal.judges.accuracy_loss`), steers ρ, and of all that keep the budget the one
    is returned whose mark the judges, thieves that did not pull, hold best. A collapse is rolled back. Where nothing keeps
    the budget, the start aside, the most accurate is returned, and the last row says so.

    Args:
        target: where the target starts; unchanged. Parameters without ``requires_grad``, and the statistics of modules in eval
            mode that hold none other, stay as they are.
        audience: makes the thieves that pull, for the target that they ask; their queries are the inputs of ``data``.
        data: the owner's images that train, with labels.
        mark: trigger samples that train.
        config: see :class:`WithinBudget`.
        judges: see :class:`Judges`.
        seed: of the batches and of dropout.
        runtime: device, precision, progress.

    Returns:
        The tuned target in eval mode. One row an epoch, of which the first is the start: ``target_accuracy``, ``target_wsr``,
        ``thief_wsr`` and ``thief_loss`` by the judges, mean losses, ``rho``, and whether it ``kept`` the budget. The last row
        repeats the figures of what is returned; its ``kept`` is 0 where nothing kept the budget.

    Raises:
        ShapeMismatch: when there are no triggers, or not one label each.
        BadConfig: for no epochs.
        BadData: when a figure is no longer finite in any attempt.
    """
    runtime = runtime or Runtime()
    check_answered("triggers", mark)
    device = runtime.torch_device
    model = copied_with_entry(target).to(device)
    before = judges.right(model, runtime)

    def judge(candidate: nn.Module) -> dict[str, float]:
        return judges.judge(candidate, before, prior=config.accuracy_budget, runtime=runtime)

    start = judge(model)
    chosen = _Best(state=copies(model.state_dict()), figures=start)
    first = sound = chosen.state
    rows: list[Mapping[str, float]] = [{"epoch": 0.0, **start, "rho": 0.0, "kept": 1.0}]
    recipe, rho, left = config.recipe, config.rho, config.recipe.epochs
    for attempt in range(config.attempts):
        run = _Run(
            model,
            audience(model),
            data,
            mark,
            config=replace(config, recipe=replace(recipe, epochs=left), rho=rho),
            judge=judge,
            chosen=chosen,
            start=first,
            runtime=runtime,
        )
        more, fault = run.descend(derive_seed(seed, "attempt", attempt), after=len(rows) - 1)
        rows += more
        if not run.collapsed:
            break
        left = config.recipe.epochs - (len(rows) - 1)
        if left <= 0:
            break
        recipe, rho = replace(recipe, learning_rate=recipe.learning_rate / 2), rho / 2
        sound = chosen.state if chosen.sound else sound
        model.load_state_dict(sound)
    if not chosen.marked:
        raise BadData(fault)
    furthest = chosen.state
    for share in RETREATS if not chosen.kept else ():
        model.load_state_dict(between(first, furthest, share))
        figures = judge(model)
        if chosen.consider(model.state_dict(), figures, chosen.rho, budget=config.accuracy_budget, sound=True):
            break
    model.load_state_dict(chosen.state)
    rows.append({"epoch": rows[-1]["epoch"], **chosen.figures, "rho": chosen.rho, "kept": float(chosen.kept)})
    return model.eval(), tuple(rows)


@dataclass(kw_only=True, eq=False)
class _Best:
    """The best candidate so far: at first the start, which holds no mark."""

    state: dict[str, Tensor]
    figures: Mapping[str, float]
    rho: float = 0.0
    kept: bool = False
    marked: bool = False
    sound: bool = False
    first_loss: float = 1.0

    def consider(
        self, model: dict[str, Tensor], figures: Mapping[str, float], rho: float, *, budget: float, sound: bool
    ) -> bool:
        """Take a candidate that is better, and say whether it keeps the budget.

        Of two that keep it the better is the one of which the judges' trigger loss, as a share of what it was, and the share of
        the budget that was used add up to less; of two that do not, the more accurate.
        """
        kept = figures["lost"] <= budget + 1e-9
        if not self.marked:
            better, self.first_loss = True, self.figures["thief_loss"]
        elif kept != self.kept:
            better = kept
        elif kept:
            better = self._price(figures, budget) < self._price(self.figures, budget)
        else:
            better = figures["target_accuracy"] > self.figures["target_accuracy"]
        if better:
            self.state = copies(model)
            self.figures, self.rho, self.kept, self.marked, self.sound = figures, rho, kept, True, sound
        return kept

    def _price(self, figures: Mapping[str, float], budget: float) -> float:
        return figures["thief_loss"] / max(self.first_loss, 1e-9) + figures["lost"] / max(budget, 1e-3)


class _Run:
    """One attempt: a training of the model in place, with the running average of its weights beside it."""

    def __init__(
        self,
        model: nn.Module,
        audience: Audience,
        data: Split,
        mark: Samples,
        *,
        config: WithinBudget,
        judge: Callable[[nn.Module], dict[str, float]],
        chosen: _Best,
        start: Mapping[str, Tensor],
        runtime: Runtime,
    ) -> None:
        device = runtime.torch_device
        self.model, self.audience, self.config, self.judge = model, audience, config, judge
        self.chosen, self.runtime = chosen, runtime
        self.batches, self.labels = Batches(data.inputs, device), data.labels.to(device)
        self.triggers = Joining(mark, config.trigger_batch, device)
        self.rows = ShuffledIndex(len(mark), min(config.pulling, len(mark)), device)
        self.start, self.average, self.candidate = start, copied_with_entry(model), copied_with_entry(model)
        self.balance = Balance(rho=config.rho, enough=config.enough, measured=config.measured, fading=config.fading)
        self.number, self.collapsed, self.kept_up = 0, False, True
        self.judged: list[Mapping[str, float]] = []

    def descend(self, seed: int, *, after: int) -> tuple[list[Mapping[str, float]], str]:
        """Train; the rows of the epochs, counted on from ``after``, and what went wrong, if a figure was no longer finite."""
        try:
            rows = descend(
                self.model,
                len(self.labels),
                self._draw,
                Step(gradients=self._gradients, recordable=False),  # measures norms
                batches=self.batches,
                recipe=self.config.recipe,
                seed=seed,
                runtime=self.runtime,
                frozen=frozen_modules(self.model),
                after_epoch=self._watch,
                stop=lambda: self.collapsed,
                remedy="lower learning_rate or rho",
                description="rehearsing",
            )
        except BadData as error:
            self.collapsed = True
            told = [*self.judged, {"kept": 0.0, "rho": self.balance.rho}]
            return [{"epoch": after + 1.0 + place, **row} for place, row in enumerate(told)], str(error)
        return [{**row, "epoch": row["epoch"] + after} for row in rows], ""

    def _draw(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        shown = self.triggers.draw(generator)
        clean = augment(self.batches[chosen], self.config.recipe.augment, generator)
        images = join([clean, shown.inputs])
        return images, torch.cat([self.labels[chosen], shown.targets]), chosen, self.rows.draw(generator)

    def _gradients(self, images: Tensor, wanted: Tensor, chosen: Tensor, rows: Tensor) -> Figures:
        """The direction of one step, into the model's gradients: one backward pass, or two where it measures."""
        if not self.kept_up:
            self._keep_up()
        self.number, self.kept_up = self.number + 1, False
        parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.model.zero_grad(set_to_none=True)
        with self.runtime.autocast():
            logits = self.model(images)
        whole = logits.float()
        loss, slope = target_slope(whole, wanted)
        pull = self.audience.pull(whole[: len(chosen)], chosen, rows)
        self.audience.hear(whole[: len(chosen)], chosen)
        drawn = F.pad(pull.slope, (0, 0, 0, len(whole) - len(chosen)))
        found = self.balance.combine(whole, parameters, slope, drawn, pull.loss)
        for name, parameter in parameters.items():
            parameter.grad = found[name]
        return {"watermark_loss": pull.loss, "utility_loss": loss, "rho": self.balance.rho}

    def _keep_up(self) -> None:
        """Move the running average on to the weights as they are now."""
        self.kept_up = True
        averaged, now = self.average.state_dict(), self.model.state_dict()
        # In the first steps less of it stays, so that the start does not linger.
        keep = min(self.config.averaging, self.number / (self.number + 9.0))
        with torch.no_grad():
            for name, tensor in averaged.items():
                if _moves(tensor, now[name]):
                    tensor.lerp_(now[name], 1 - keep)
                else:
                    tensor.copy_(now[name])

    def _watch(self, _: int) -> dict[str, float]:
        """Judge the candidate, remember it if it is the best, and steer."""
        self._keep_up()
        self.audience.refresh()
        state, budget = between(self.start, self.average.state_dict(), self.config.way), self.config.accuracy_budget
        self.candidate.load_state_dict(state)
        figures = self.judge(self.candidate)
        self.collapsed = figures["lost"] > budget + COLLAPSE
        kept = self.chosen.consider(state, figures, self.balance.rho, budget=budget, sound=not self.collapsed)
        self.judged.append({**figures, "rho": self.balance.rho, "kept": float(kept)})
        self.balance.steer(figures["lost"], budget)
        return {**figures, "kept": float(kept)}


def between(start: Mapping[str, Tensor], goal: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights and statistics a share of the way from one state to another; counts are the goal's."""
    return {
        name: torch.lerp(start[name], tensor, share) if _moves(start[name], tensor) else tensor.clone()
        for name, tensor in goal.items()
    }


def _moves(start: Tensor, goal: Tensor) -> bool:
    """Whether there is a way between two tensors: counts have none, nor has what stays, which may be infinite."""
    return goal.is_floating_point() and not torch.equal(start, goal)


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Modules that have parameters and train none: they run in eval mode, so that their statistics stay as they are."""
    return [
        module
        for module in model.modules()
        if any(True for _ in module.parameters()) and not any(p.requires_grad for p in module.parameters())
    ]
