"""Pictures over finished stages, for blocks that ask for them: features in two dimensions, how embeddings went, what moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heirmark.asking import batch_for, evaluating, in_batches
from heirmark.bench.grid import Block, Picture
from heirmark.bench.plan import Cell, Plan, setting_of
from heirmark.bench.reporting import where
from heirmark.bench.settings import Contexts
from heirmark.errors import told
from heirmark.key import Key
from heirmark.models import features_of
from heirmark.models.inner import layers_of
from heirmark.models.storage import load_model
from heirmark.pipeline.context import Context, exact
from heirmark.pipeline.folders import read_history
from heirmark.pipeline.judging import read_key
from heirmark.pipeline.stage import Stage
from heirmark.pipeline.stealing import Theft
from heirmark.pipeline.store import Store
from heirmark.report.section import Section
from heirmark.report.sections.clouds import OTHERS, SOURCE, TARGET, TRIGGERS, Cloud, Projection, clouds
from heirmark.report.sections.courses import Course, courses
from heirmark.report.sections.shifts import Shift, shifts
from heirmark.runtime import Runtime, derive_seed, generator_of

POINTS = 100
"""Samples of a group that are drawn; three models' worth of more would make the page heavy."""
SHIFT = "weight shift of "
"""What a history calls the shift of a layer's weights; the layer's name follows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """What was drawn.

    Attributes:
        sections: by block.
        notes: on what could not be drawn.
    """

    sections: Mapping[str, tuple[Section, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def pictures_of(plan: Plan, store: Store, contexts: Contexts) -> Pictures:
    """The pictures that the blocks ask for.

    Args:
        plan: what was run.
        store: of its finished stages; what is not there is not in the picture.
        contexts: the data.
    """
    sections: dict[str, tuple[Section, ...]] = {}
    notes: list[str] = []
    for number, block in enumerate(plan.grid.blocks):
        found: dict[Picture, list[Any]] = {kind: [] for kind in KINDS if kind in block.pictures}
        for marking in block.markings:
            cells = [cell for cell in plan.cells if (cell.block, cell.marking.name) == (block.name, marking.name)]
            try:
                for kind, drawn in found.items():
                    drawn += KINDS[kind][0](block, cells, store, contexts)
            except Exception as error:  # a picture that fails must not take the figures along
                notes.append(f"No picture of {marking.name}: {told(error)}")
        sections[block.name] = tuple(
            section for kind, drawn in found.items() for section in KINDS[kind][1](drawn, where(number))
        )
    return Pictures(sections=sections, notes=tuple(notes))


def marked_stages(cells: Sequence[Cell]) -> dict[int, Stage]:
    """The stages that embedded, by seed of the grid."""
    return {cell.seed: cell.goal.inputs["marked"] for cell in cells}


def _course(block: Block, cells: Sequence[Cell], store: Store, contexts: Contexts) -> Iterator[Course]:
    """The mean history over seeds; none for a method that keeps no success rate."""
    history = _history(cells, store)
    if any(name.endswith("_wsr") for row in history for name in row):
        yield Course(marking=cells[0].marking.name, history=history)


def _shifts(block: Block, cells: Sequence[Cell], store: Store, contexts: Contexts) -> Iterator[Shift]:
    """The mean weight shifts over seeds by layer, from the input on; none for a method that keeps none."""
    told = {name: value for row in _history(cells, store) for name, value in row.items() if name.startswith(SHIFT)}
    if not told:
        return
    artifact = next(found for stage in marked_stages(cells).values() if (found := store.find(stage)) is not None)
    model = load_model(artifact.folder, factories=_context(block, cells[0].seed, contexts).factories).model
    for name, _ in layers_of(model):
        if SHIFT + name in told:
            yield Shift(marking=cells[0].marking.name, layer=name, share=told[SHIFT + name])


def _history(cells: Sequence[Cell], store: Store) -> tuple[Mapping[str, float], ...]:
    found = [store.find(stage) for stage in marked_stages(cells).values()]
    return mean_history([read_history(artifact.folder) for artifact in found if artifact is not None])


def mean_history(histories: Sequence[Sequence[Mapping[str, float]]]) -> tuple[Mapping[str, float], ...]:
    """Histories of several seeds as one: the mean of every field at every epoch, of the seeds that have it.

    Example:
        >>> mean_history([[{"epoch": 0.0, "wsr": 0.25}], [{"epoch": 0.0, "wsr": 0.75}]])
        ({'epoch': 0.0, 'wsr': 0.5},)
    """
    places: dict[float, dict[str, list[float]]] = {}
    for history in histories:
        for row in history:
            place = places.setdefault(float(row.get("epoch", math.nan)), {})
            for name, value in row.items():
                place.setdefault(name, []).append(float(value))
    return tuple(
        {name: sum(values) / len(values) for name, values in fields.items()} for _, fields in sorted(places.items())
    )


def _project(block: Block, cells: Sequence[Cell], store: Store, contexts: Contexts) -> Iterator[Projection]:
    """Marked model, first stolen copy and control of the first seed; none where the marked model is not finished."""
    seed = cells[0].seed
    context = _context(block, seed, contexts)
    own = [cell for cell in cells if cell.seed == seed and not cell.probe]
    stages: dict[str, Stage] = {}
    for cell in own:
        if not cell.trial.name:
            stages["marked model" if cell.arm == "marked" else "unmarked control"] = cell.goal.inputs["suspect"]
        elif cell.arm == "marked" and "stolen copy" not in stages and isinstance(cell.trial.steps[0], Theft):
            stages["stolen copy"] = cell.steps[0]
    artifacts = {name: store.find(stage) for name, stage in stages.items()}
    marked = artifacts["marked model"]
    if marked is None:
        return
    groups = groups_of(read_key(marked.folder), context, seed=derive_seed(seed, "picture"))
    order = ("marked model", "stolen copy", "unmarked control")
    yield Projection(
        marking=own[0].marking.name,
        seed=seed,
        clouds=tuple(
            _cloud(name, load_model(artifact.folder, factories=context.factories).model, groups, exact(context.runtime))
            for name in order
            if (artifact := artifacts.get(name)) is not None
        ),
    )


def _context(block: Block, seed: int, contexts: Contexts) -> Context:
    return contexts(setting_of(block, seed))


def groups_of(key: Key, context: Context, *, seed: int) -> dict[str, Tensor]:
    """Test inputs of other classes, of the key's source and target classes, and its triggers; at most 100 each.

    Args:
        key: of the marked model; its hosts' classes are the sources.
        context: of whose test split the clean inputs are.
        seed: of the choice.

    Returns:
        ``[N, ...]`` inputs by name of the group.
    """
    test, names = context.task.test, context.task.classes
    targets = sorted(set(key.expected.tolist()))
    sources = sorted({label for label in key.host_labels.flatten().tolist() if label >= 0} - set(targets))
    generator = generator_of(seed)

    def some(inputs: Tensor) -> Tensor:
        return inputs[torch.randperm(len(inputs), generator=generator)[:POINTS]]

    special = torch.tensor([*sources, *targets])
    groups = {OTHERS: some(test.inputs[~torch.isin(test.labels, special)])}
    for kind, labels in ((SOURCE, sources), (TARGET, targets)):
        groups |= {f"{kind} {names[label]}": some(test.inputs[test.labels == label]) for label in labels}
    groups[TRIGGERS] = some(key.queries)
    return {name: inputs for name, inputs in groups.items() if len(inputs)}


def _cloud(name: str, model: torch.nn.Module, groups: Mapping[str, Tensor], runtime: Runtime) -> Cloud:
    features = np.concatenate([features_in(model, inputs, runtime) for inputs in groups.values()])
    points, explained = project(features)
    ends = np.cumsum([len(inputs) for inputs in groups.values()])[:-1]
    return Cloud(model=name, groups=dict(zip(groups, np.split(points, ends), strict=True)), explained=explained)


@torch.no_grad()
def features_in(model: torch.nn.Module, inputs: Tensor, runtime: Runtime) -> NDArray[np.float64]:
    """What a model's last layer is given, ``[N, D]``.

    Raises:
        BadConfig: when the model has no ``features``.
    """
    model.to(runtime.torch_device)
    features = features_of(model)
    with evaluating(model):
        parts = in_batches(
            lambda batch: features(batch).flatten(1).double().cpu(),
            inputs,
            device=runtime.torch_device,
            batch_size=min(250, batch_for(inputs)),
        )
    result: NDArray[np.float64] = torch.cat(parts).numpy()
    return result


def project(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """The two directions of most variance (PCA; signs as scikit-learn settles them, so the same features give the same points).

    Args:
        features: ``[N, D]``.

    Returns:
        ``[N, 2]`` points, and the share of the variance along each axis; zeros where there is no second direction.
    """
    from sklearn.decomposition import PCA

    wide = np.pad(features, ((0, 0), (0, max(0, 2 - features.shape[1]))))
    if len(wide) < 2 or not np.ptp(wide, axis=0).any():
        return np.zeros((len(wide), 2)), (0.0, 0.0)
    fitted = PCA(n_components=2, svd_solver="full", random_state=0).fit(wide)
    shares = np.nan_to_num(fitted.explained_variance_ratio_)
    return fitted.transform(wide), (float(shares[0]), float(shares[1]))


Draw: TypeAlias = Callable[[Block, Sequence[Cell], Store, Contexts], Iterator[Any]]
Show: TypeAlias = Callable[[Sequence[Any], str], Iterator[Section]]
KINDS: Mapping[Picture, tuple[Draw, Show]] = {
    "history": (_course, courses),
    "shift": (_shifts, shifts),
    "pca": (_project, clouds),
}
"""What a block may ask for, in the order of the page: what is drawn of a watermark's cells, and the section of all of it."""
