"""Local outlier factor: queries from where the adversary's data are sparse (Breunig, Kriegel, Ng, Sander 2000, ACM SIGMOD).

MEA-Defender tries it against a verifier's queries (Lv et al. 2024, arXiv 2401.15239, appendix E).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from heirmark.attacks.base import Attempt, Screen, Screening, Sizes
from heirmark.configuration import above, at_least, at_most, checked
from heirmark.errors import BadConfig, BadData
from heirmark.models import Net, features_of
from heirmark.querying.asking import outputs_of, predict
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Continuous, Tokens
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe

ON: tuple[Literal["inputs", "features"], ...] = ("inputs", "features")
"""What an audit looks for outliers among."""


@dataclass(frozen=True, kw_only=True)
@checked
class LocalOutliers(Screening):
    """Flag queries whose neighbourhood among the adversary's examples is sparser than that of their neighbours.

    The paper names neither the space nor the settings; neighbours are its library's, the contamination lies near its false
    positives of 0.5 to 0.75 %.

    Attributes:
        on: what distances are taken between: ``"inputs"``, the model's ``"features"`` or its ``"logits"``.
        samples: of the adversary's examples that it is fitted to, at most; memory and time grow with these.
        neighbours: that make a neighbourhood.
        contamination: share of the examples it is fitted to that it would flag.
        components: principal components that stand in for the inputs or features; none keeps them whole, as published, but
            distances between images of many pixels say little.
    """

    needs = property(lambda self: Continuous if self.on == "inputs" else Continuous | Tokens)
    otherwise: ClassVar = "set on=features"
    title: ClassVar[str] = "local outlier factor"
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn",)

    on: Literal["inputs", "features", "logits"] = "inputs"
    samples: int = 5000
    neighbours: Annotated[int, at_least(1)] = 20
    contamination: Annotated[float, above(0), at_most(0.5)] = 0.01
    components: Annotated[int, at_least(1)] | None = None

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(samples=3000)

    def fitted(self, sizes: Sizes) -> Self:
        """Take no more neighbours than there are others."""
        return replace(self, neighbours=min(self.neighbours, max(1, sizes.images - 1)))

    def attempts(self) -> Iterator[Attempt]:
        """On what is asked, and on its features."""
        for on in ON:
            yield Attempt(name=f"{self.title} on {on}", attack=replace(self, on=on))

    def __post_init__(self) -> None:
        if self.samples <= self.neighbours:
            raise BadConfig(f"{self.neighbours} neighbours need more examples than {self.samples}: raise samples")

    def fit(self, net: Net, data: Split, *, seed: int, runtime: Runtime) -> Screen:
        """Fit; see :class:`heirmark.attacks.base.Screening`.

        Raises:
            BadData: for fewer examples than the neighbours and components need.
            BadConfig: when features are asked for and the model has none.
        """
        from sklearn.decomposition import PCA
        from sklearn.neighbors import LocalOutlierFactor

        order = torch.randperm(len(data), generator=generator_of(derive_seed(seed, "examples")))
        points = seen(net.model, self.on, data.inputs[order[: self.samples]], runtime).numpy()
        needed = max(self.neighbours + 1, self.components or 0)
        if len(points) < needed or points.shape[1] < (self.components or 0):
            raise BadData(
                f"{len(points)} examples of {points.shape[1]} values are too few for {self.neighbours} neighbours and "
                f"{self.components or 'no'} components: lower these, or give more examples"
            )
        reduction = None
        if self.components is not None:
            reduction = PCA(self.components, svd_solver="full").fit(points)
            points = reduction.transform(points)
        factor = LocalOutlierFactor(n_neighbors=self.neighbours, contamination=self.contamination, novelty=True)
        return OutlierScreen(
            model=net.model, on=self.on, reduction=reduction, factor=factor.fit(points), runtime=runtime
        )


def seen(model: nn.Module, on: str, inputs: Tensor, runtime: Runtime) -> Tensor:
    """What of inputs ``[N, ...]`` is looked at: rows ``[N, D]`` float32 on the CPU.

    Args:
        model: that is asked.
        on: ``"inputs"``, ``"features"`` or ``"logits"``.
        inputs: as they are stored.
        runtime: device, precision.
    """
    if on == "inputs":
        return decode(inputs.cpu()).flatten(1)
    return (
        predict(model, inputs, runtime=runtime)
        if on == "logits"
        else outputs_of(_Features(model), inputs, runtime=runtime)
    )


class _Features(nn.Module):
    """The features of a model as a model."""

    takes_stored = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.extract = model, features_of(model)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.extract(inputs).flatten(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class OutlierScreen:
    """A fitted screen; see :class:`heirmark.attacks.base.Screen`.

    Attributes:
        model: that is asked.
        on: what of a query is looked at; see :func:`seen`.
        reduction: to principal components, where there is one.
        factor: scikit-learn's fitted local outlier factor.
        runtime: where the model computes.
    """

    model: nn.Module = field(repr=False)
    on: str
    reduction: Any
    factor: Any
    runtime: Runtime

    def __call__(self, inputs: Tensor) -> Tensor:
        """Flag queries."""
        if len(inputs) == 0:
            return torch.zeros(0, dtype=torch.bool)
        points = seen(self.model, self.on, inputs, self.runtime).numpy()
        if self.reduction is not None:
            points = self.reduction.transform(points)
        return torch.from_numpy(self.factor.predict(points) < 0)
