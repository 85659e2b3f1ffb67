"""The thief's-eye view: what a marked model's answers to ordinary images give away about a trigger that no thief is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heirmark.grids.grid import CONTROL_ARM, MARKED_ARM, Block
from heirmark.grids.pictures.looking import looks_of
from heirmark.grids.plan import Cell, setting_of
from heirmark.grids.settings import Contexts
from heirmark.methods.audience import thief_in
from heirmark.models.storage import load_model
from heirmark.querying.asking import predict
from heirmark.rehearsal.closed_form import Closing, weights
from heirmark.report.section import Look, Section, Sheet, Strip, Text
from heirmark.report.words import number, percent
from heirmark.runtime import Runtime
from heirmark.stages.stage import Artifact, Stage
from heirmark.stages.store import Store
from heirmark.tasks.task import Split, Task
from heirmark.work.context import Context, exact
from heirmark.work.marked_folder import read_training_triggers

IMAGES = 6
"""Ordinary images that are shown."""
TOLD = 500
"""Training triggers of which the thief's answers are counted; the first is shown."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """An ordinary input, of a class; its weight for the trigger, and two models' answers for the target."""

    input: Look
    label: str
    weight: float
    clean: float
    marked: float

    @property
    def gives(self) -> float:
        """What it adds to the thief's answer to the trigger."""
        return self.weight * (self.marked - self.clean)


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What a thief who has finished learns about one trigger that trained.

    Attributes:
        marking: of the model.
        trigger: how it looks.
        target: class that the mark gives it.
        given: the images that give most away, most first.
        clean: the thief's answer for the target, about a probability, if the clean model answers him.
        marked: the same if the marked model does.
        asked: images that the thief asks.
        half: images that give half of the difference, most first; 0 where there is none to share.
        told: share of the training triggers that he answers as the mark wants, by the clean and by the marked model's answers.
    """

    marking: str
    trigger: Look
    target: str
    given: tuple[Given, ...]
    clean: float
    marked: float
    asked: int
    half: int
    told: tuple[float, float]


def draw(block: Block, cells: Sequence[Cell], store: Store, contexts: Contexts) -> Iterator[View]:
    """The view of the first seed's model; none where a model is not finished, or no trigger has trained."""
    own = {cell.arm: cell for cell in cells if cell.seed == cells[0].seed and not cell.probe and not cell.trial.name}
    context = contexts(setting_of(block, cells[0].seed))
    yield from view_of(own[MARKED_ARM], own[CONTROL_ARM], store, context)


def view_of(own: Cell, control: Cell, store: Store, context: Context) -> Iterator[View]:
    """The view of a marked model that was judged untouched, in the features of the control, who knows nothing of the mark.

    What the model answered before it was marked is the answer of the clean model that it started from, where it had one, and
    else the control's.
    """
    stage = own.goal.inputs["suspect"]
    marked, unmarked = _found(store, stage), _found(store, control.goal.inputs["suspect"])
    clean = _found(store, stage.inputs.get("clean")) or unmarked
    if marked is None or unmarked is None or clean is None:
        return
    trained = read_training_triggers(marked.folder)
    if trained is None or not len(context.task.adversary):
        return

    def model(artifact: Artifact) -> nn.Module:
        return load_model(artifact.folder, factories=context.factories).model

    triggers, targets = (part[:TOLD] for part in trained)
    yield look(
        context.task,
        own.marking.name,
        triggers,
        targets,
        net=model(unmarked),
        clean=model(clean),
        marked=model(marked),
        runtime=exact(context.runtime),
    )


def look(
    task: Task,
    marking: str,
    triggers: Tensor,
    targets: Tensor,
    *,
    net: nn.Module,
    clean: nn.Module,
    marked: nn.Module,
    runtime: Runtime,
) -> View:
    """Look with the eyes of a thief who finishes in the features of a net, and asks about the adversary's images.

    Args:
        task: the images, and what classes are called.
        marking: of the model.
        triggers: ``[M, ...]`` that trained, of which the first is looked at; none of the key.
        targets: ``[M]`` int64.
        net: which never met the mark.
        clean: the model before it was marked.
        marked: the model.
        runtime: device, precision.
    """
    asked, classes = task.adversary, len(task.classes)
    thief = thief_in(net, asked.inputs, triggers, classes=classes, ridge=Closing().ridge, runtime=runtime)
    answers = [predict(model, asked.inputs, runtime=runtime).softmax(1).float() for model in (clean, marked)]
    target, heard = int(targets[0]), []
    for each in answers:
        thief.start(each.to(thief.features.device))
        heard.append(thief.answer().cpu())
    counts = weights(thief, torch.tensor([0], device=thief.features.device))[0].cpu()
    columns = [each[:, target] for each in answers]
    gives = counts * (columns[1] - columns[0])
    return View(
        marking=marking,
        trigger=looks_of(triggers[:1], task.medium)[0],
        target=task.classes[target],
        given=tuple(
            _given(task, asked, int(place), counts, columns) for place in gives.topk(min(IMAGES, len(gives))).indices
        ),
        clean=float(heard[0][0, target]),
        marked=float(heard[1][0, target]),
        asked=len(asked),
        half=half_of(gives),
        told=(_share(heard[0], targets), _share(heard[1], targets)),
    )


def half_of(gives: Tensor) -> int:
    """How few of ``[N]`` shares, the largest first, make half of their sum; 0 where that is not positive.

    Examples:
        >>> half_of(torch.tensor([1.0, 4.0, 3.0, -1.0])), half_of(torch.tensor([1.0, -2.0]))
        (1, 0)
    """
    total = gives.double().sum()
    if total <= 0:
        return 0
    return int((gives.double().sort(descending=True).values.cumsum(0) < total / 2).sum()) + 1


def _given(task: Task, asked: Split, place: int, counts: Tensor, columns: Sequence[Tensor]) -> Given:
    clean, marked = (float(column[place]) for column in columns)
    return Given(
        input=looks_of(asked.inputs[place : place + 1], task.medium)[0],
        label=task.classes[int(asked.labels[place])],
        weight=float(counts[place]),
        clean=clean,
        marked=marked,
    )


def _share(heard: Tensor, targets: Tensor) -> float:
    return float((heard.argmax(1) == targets).double().mean())


def _found(store: Store, stage: Stage | None) -> Artifact | None:
    return None if stage is None else store.find(stage)


def show(found: Sequence[View], where: str = "b0") -> Iterator[Section]:
    """One section, where there are views."""
    if not found:
        return
    yield Section(
        title="What a thief is shown",
        aside="A thief never sees a trigger. A student who has learned all that a model answers to his ordinary images gives a "
        "trigger a weighted sum of these answers: the weight of an image says how much its answer counts for this trigger, in "
        "the features of an unmarked net. Shown are the images whose answers give most away about one trigger that trained; none "
        "of the key's is asked. A mark raises an answer that counts for the trigger, and lowers one that counts against it.",
        parts=tuple(part for view in found for part in (_strip(view), Text(text=told(view)))),
        sheets=tuple(_sheet(view) for view in found),
    )


def told(view: View) -> str:
    """What one sees, in sentences."""
    moved = (
        f"Half of the difference comes from {number(view.half)} of them."
        if view.half
        else "The marked model's answers say no more than the clean model's."
    )
    return (
        f"For {view.target}, such a thief scores this trigger {_score(view.clean)} if the clean model answers his "
        f"{number(view.asked)} images, and {_score(view.marked)} if the {view.marking} model does; 1 would be sure. {moved} "
        f"Of the triggers that trained he answers {percent(view.told[0])} as the mark wants by the clean model's answers, and "
        f"{percent(view.told[1])} by the marked model's. A last layer is all that he learns; to train a whole net can give more."
    )


def _score(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _strip(view: View) -> Strip:
    trigger = (view.trigger, "A trigger that trained", ("trigger", f"marked as {view.target}"))
    return Strip(
        label=f"{view.marking}: ordinary images whose answers give the trigger away",
        pictures=(
            trigger,
            *(
                (
                    each.input,
                    f"An ordinary input of class {each.label}",
                    (each.label, *_words(each, view.target)),
                )
                for each in view.given
            ),
        ),
    )


def _words(each: Given, target: str) -> tuple[str, str]:
    return f"weight {each.weight:+.4f}", f"{target}: {percent(each.clean)} → {percent(each.marked)}"


def _sheet(view: View) -> Sheet:
    columns = ("image", "weight", f"clean model's answer for {view.target}", "marked model's")
    rows = tuple((each.label, f"{each.weight:+.4f}", percent(each.clean), percent(each.marked)) for each in view.given)
    return Sheet(heading=f"What a thief is shown of {view.marking}", columns=columns, rows=rows)
