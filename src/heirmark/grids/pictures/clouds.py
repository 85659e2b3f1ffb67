"""Features of marked models, their copies and controls in two dimensions (MEA-Defender, Fig. 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heirmark.grids.grid import CONTROL_ARM, MARKED_ARM, Block
from heirmark.grids.plan import Cell, setting_of
from heirmark.grids.settings import Contexts
from heirmark.keys.key import Key
from heirmark.models import features_of
from heirmark.models.storage import load_model
from heirmark.querying.asking import batch_for, evaluating, in_batches
from heirmark.report.section import Figure, Panels, Section
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.stages.stage import Stage
from heirmark.stages.store import Store
from heirmark.work.context import Context, exact
from heirmark.work.judging import read_key
from heirmark.work.stealing import Theft

POINTS = 100
"""Samples of a group that are drawn; three models' worth of more would make the page heavy."""
TRIGGERS, OTHERS, SOURCE, TARGET = "triggers", "other classes", "source", "target"
"""Names of groups of points; those of sources and targets go on with the class's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cloud:
    """Features of one model: ``[N, 2]`` points by group, and the share of the variance that each of the two axes explains."""

    model: str
    groups: Mapping[str, NDArray[np.float64]]
    explained: tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """Features of a marked model, of its stolen copy and of the control; all have the same groups."""

    marking: str
    seed: int
    clouds: tuple[Cloud, ...]


def draw(block: Block, cells: Sequence[Cell], store: Store, contexts: Contexts) -> Iterator[Projection]:
    """Marked model, first stolen copy and control of the first seed; none where the marked model is not finished."""
    seed = cells[0].seed
    context = contexts(setting_of(block, seed))
    own = [cell for cell in cells if cell.seed == seed and not cell.probe]
    stages: dict[str, Stage] = {}
    whole = {MARKED_ARM: "marked model", CONTROL_ARM: "unmarked control"}
    for cell in own:
        if not cell.trial.name and cell.arm in whole:
            stages[whole[cell.arm]] = cell.goal.inputs["suspect"]
        elif cell.trial.name and cell.arm == MARKED_ARM and isinstance(cell.trial.steps[0], Theft):
            stages.setdefault("stolen copy", cell.steps[0])
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


def groups_of(key: Key, context: Context, *, seed: int) -> dict[str, Tensor]:
    """``[N, ...]`` test inputs of other classes, of the key's source (its hosts') and target classes, and its triggers.

    At most :data:`POINTS` of each are drawn.
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


def show(found: Sequence[Projection], where: str = "b0") -> Iterator[Section]:
    """One section, where there are projections."""
    if found:
        yield Section(
            title="Features in two dimensions",
            aside="The features before the last layer, by the two directions in which they vary most (PCA, for each "
            "model on its own; in brackets the share of the variance that they show). A mark that is to outlive a "
            "theft has its triggers among the target class.",
            parts=tuple(_panel(projection, f"{where}-cloud-{place}") for place, projection in enumerate(found)),
        )


def _panel(projection: Projection, where: str) -> Panels:
    from heirmark.report.charts import Dots, cloud, swatch

    looks = _looks(list(dict.fromkeys(name for each in projection.clouds for name in each.groups)))
    order = {OTHERS: 1, TRIGGERS: 4}
    figures = tuple(
        Figure(
            title=f"{each.model} ({100 * sum(each.explained):.0f} %)",
            drawing=cloud(
                [
                    Dots(points=points, look=looks[name], above=order.get(name, 2))
                    for name, points in each.groups.items()
                ],
                f"{where}-{place}",
                f"Points: features of {each.model} in two dimensions, by kind of sample.",
            ),
        )
        for place, each in enumerate(projection.clouds)
    )
    legend = tuple((swatch(look), name) for name, look in looks.items())
    return Panels(title=f"{projection.marking}, seed {projection.seed}", figures=figures, legend=legend, narrow=True)


def _looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every group of points, by what it is."""
    from heirmark.report.charts import OTHER_LOOK, SOURCE_LOOKS, TARGET_LOOK, TRIGGER_LOOK

    sources = cycle(SOURCE_LOOKS)
    single = {TRIGGERS: TRIGGER_LOOK, TARGET: TARGET_LOOK}
    kinds = {name: name.partition(" ")[0] for name in names}
    return {name: next(sources) if kind == SOURCE else single.get(kind, OTHER_LOOK) for name, kind in kinds.items()}
