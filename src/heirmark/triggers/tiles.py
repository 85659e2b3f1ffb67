"""2x2 tiles of four source classes: DeepTracer's watermark samples (arXiv 2511.08985, "Watermark Samples Construction").

Of waves and texts they are quarters in a row, which no paper has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from heirmark.configuration import at_least, checked, distinct
from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.models import features_of
from heirmark.querying.asking import batch_for, evaluating, in_batches, predict
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.combining import TILES as SOURCES
from heirmark.tasks.combining import mosaic, quarters
from heirmark.tasks.space import Images, Tokens, Waves
from heirmark.tasks.splicing import quarters as text_quarters
from heirmark.tasks.task import Split, Task
from heirmark.triggers.base import Secret, Trigger, TriggerSet, check_apart, check_label, draw_groups


def tile(images: Tensor) -> Tensor:
    """DeepTracer's tiles of images whose sides are even, or of waves and texts their quarters.

    See :func:`heirmark.tasks.combining.mosaic` and :func:`heirmark.tasks.combining.quarters`.

    Args:
        images: ``[M, 4, C, H, W]`` uint8 or float, waves ``[M, 4, C, T]`` int16 or float, or texts ``[M, 4, L]`` int32.

    Returns:
        ``[M, ...]`` of the same dtype.

    Raises:
        ShapeMismatch: when they are not four, or a side is odd.
    """
    if images.dtype == torch.int32:
        return text_quarters(images)
    if images.ndim == 4:
        return quarters(images)
    _, sources, _, height, width = images.shape
    if sources != SOURCES or height % 2 or width % 2:
        raise ShapeMismatch(
            f"tiles are made of 4 images with even sides, not of {sources} of {height}x{width}: resize them first"
        )
    return mosaic(images)


@dataclass(frozen=True, kw_only=True)
@checked
class Tiles(Trigger):
    """Composite of four classes that span the feature space, labelled with the class a benign model would say least.

    Of images it is a grid, of waves the loudest quarters of four in a row: the paper has images alone.

    Attributes:
        sources: the four source classes in the order of the grid; None finds them by K-Means over class centroids (eq. 1-2).
        target: the label, which is then no source class; None takes the non-source class with the lowest mean probability on
            such composites (eq. 3-4).
        samples: composites over which that mean is taken.
        selection: of what is left open: ``"adaptive"`` as above, or ``"random"``, which the paper found weaker (Fig. 5).
    """

    needs: ClassVar = Images | Waves | Tokens

    sources: Annotated[tuple[int, int, int, int], distinct] | None = None
    target: int | None = None
    samples: Annotated[int, at_least(1)] = 500
    selection: Literal["adaptive", "random"] = "adaptive"

    def __post_init__(self) -> None:
        check_apart(self.target, *(self.sources or ()))

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> TilesSecret:
        """Choose source classes and target; see :class:`heirmark.triggers.base.Trigger`."""
        runtime = runtime or Runtime()
        if len(task.classes) <= SOURCES:
            raise BadConfig(
                f"tiles need more than 4 classes, and {task.name} has {len(task.classes)}: use another trigger"
            )
        generator = generator_of(derive_seed(seed, "tiles", "random"))
        order = torch.randperm(len(task.classes), generator=generator).tolist()
        if self.sources is not None:
            sources = tuple(check_label(label, task, "source class") for label in self.sources)
        elif self.selection == "random":
            sources = tuple(label for label in order if label != self.target)[:SOURCES]
        else:
            sources = spanning_classes(
                task.owner, clean, len(task.classes), without=self.target, seed=seed, runtime=runtime
            )
        if self.target is not None:
            target = check_label(self.target, task, "target")
        elif self.selection == "random":
            target = next(label for label in order if label not in sources)
        else:
            composites = TilesSecret(sources=sources, target=-1).draw(
                task.owner, self.samples, seed=derive_seed(seed, "tiles", "target")
            )
            mean = predict(clean, composites.inputs, runtime=runtime).softmax(1).mean(0)
            mean[list(sources)] = float("inf")
            target = int(mean.argmin())
        return TilesSecret(sources=sources, target=target)


@dataclass(frozen=True, kw_only=True)
class TilesSecret(Secret):
    """Settled tiles: see :class:`Tiles`."""

    kind: ClassVar[str] = "tiles"

    sources: tuple[int, ...]
    target: int

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        """Composites of random images of the four classes; the control is one of the four as it was."""
        images, alone = draw_groups(hosts, self.sources, count, generator_of(seed))
        return TriggerSet.on_groups(tile(images), images, alone, torch.tensor(self.sources), self.target)


def spanning_classes(
    split: Split, model: nn.Module, classes: int, *, without: int | None = None, seed: int, runtime: Runtime
) -> tuple[int, ...]:
    """The four classes nearest the centres of K-Means over the class centroids of a benign model's features (eq. 1-2).

    When one class is nearest to two centres, the second centre takes the nearest class still free, so that four remain.

    Args:
        split: labelled images; at most 500 of each class are looked at.
        model: benign; see :func:`heirmark.models.features_of`.
        classes: how many there are.
        without: a class that is not to be taken, though it counts among those that are clustered.
        seed: of K-Means' starting points.
        runtime: device and precision.

    Raises:
        BadConfig: when a class has no image, or the model has no features.
        BadData: when the features are not finite.
    """
    extract = features_of(model)
    device = runtime.torch_device
    model.to(device)
    centroids = []
    with torch.no_grad(), evaluating(model), runtime.autocast():
        for label in range(classes):
            members = split.inputs[split.labels == label][:500]
            if len(members) == 0:
                raise BadConfig(f"class {label} has no image in the owner's split: give the source classes yourself")
            parts = in_batches(
                lambda batch: extract(batch).float().flatten(1),
                members,
                device=device,
                batch_size=min(500, batch_for(members)),
            )
            centroids.append(torch.cat(parts).mean(0).cpu())
    points = torch.stack(centroids).double()
    if not bool(points.isfinite().all()):
        raise BadData("the clean model's features are not finite: train it anew, or give the source classes yourself")
    from sklearn.cluster import KMeans  # takes a second to import, and who verifies needs none of it

    means = KMeans(SOURCES, n_init=10, random_state=seed % 2**32).fit(points.numpy()).cluster_centers_
    free = [label for label in range(classes) if label != without]
    chosen = []
    for mean in torch.from_numpy(means).double():
        nearest = min(free, key=lambda label: float((points[label] - mean).square().sum()))
        free.remove(nearest)
        chosen.append(nearest)
    return tuple(chosen)
