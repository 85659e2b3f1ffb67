"""MEA-Defender: A Robust Watermark against Model Extraction Attack (IEEE S&P 2024, arXiv 2401.15239)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.configuration import at_least, checked
from heirmark.errors import BadConfig
from heirmark.methods.base import Embedded, Prepared
from heirmark.methods.nets import new_model, start_from
from heirmark.methods.scale import Scale
from heirmark.methods.watermark import Watermark
from heirmark.models import Architecture, architecture
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.combining import REGIONS
from heirmark.tasks.space import AnySpace, suits
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe
from heirmark.training.joint import Extra, Outputs, Phase, check_sets, fit_phases, mgda
from heirmark.training.mgda import Normalisation
from heirmark.training.samples import Samples
from heirmark.triggers import (
    Alternating,
    AnyTrigger,
    AutoencoderBlend,
    CropPaste,
    Halves,
    Mix,
    PixelBlend,
    Secret,
    Stripes,
)
from heirmark.triggers.base import draw_groups
from heirmark.triggers.combiners import AnyCombiner, usual
from heirmark.triggers.mix import MixSecret

LOSSES = ("utility", "combination", "verification", "evasion")
Way: TypeAlias = Literal[
    "left",
    "right",
    "top",
    "bottom",
    "diagonal",
    "centre",
    "band",
    "pixels",
    "stripes",
    "autoencoder",
    "fronts",
    "backs",
    "words",
]
WAYS: dict[Way, AnyCombiner] = {
    **{region: CropPaste(region=region) for region in REGIONS},
    "pixels": PixelBlend(),
    "stripes": Stripes(),
    "autoencoder": AutoencoderBlend(),
    "fronts": Halves(of_second="front"),
    "backs": Halves(of_first="back"),
    "words": Alternating(),
}
"""Ways to mix, by name; the last three are for texts."""
ADAM = Recipe(
    epochs=100, batch_size=127, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="step", augment="flip"
)


def combination_loss(answers: Outputs) -> Tensor:
    """L_com of eq. 6: KL(p_wm || p_s) summed over the source classes' samples, mean over the batch.

    The source classes' side has no gradient: the watermark moves to them, not they to it.

    Args:
        answers: logits of watermark samples, with those of their hosts as companions.
    """
    own = F.log_softmax(answers.logits, 1)[:, None]
    sources = F.log_softmax(answers.companions, 2)
    return (own.exp() * (own - sources)).sum(2).sum(1).mean()


def alike(one: AnyCombiner, other: AnyCombiner) -> bool:
    """Whether two ways to mix are the same but for their numbers: then samples of one pass for samples of the other.

    Examples:
        >>> alike(CropPaste(region="right"), CropPaste(region="right", share=0.48))
        True
    """
    if isinstance(one, CropPaste) and isinstance(other, CropPaste):
        return one.region == other.region
    if isinstance(one, Stripes) and isinstance(other, Stripes):
        return one.direction == other.direction
    if isinstance(one, Halves) and isinstance(other, Halves):
        return (one.of_first, one.of_second) == (other.of_first, other.of_second)
    return type(one) is type(other)


def other_ways(secret: AnyCombiner, ways: Sequence[Way], space: AnySpace) -> list[AnyCombiner]:
    """Those of some ways to mix that are not the secret one and work on such inputs.

    Raises:
        BadConfig: when none is left.
    """
    others = [WAYS[way] for way in ways if not alike(WAYS[way], secret) and suits(WAYS[way], space)]
    if not others:
        raise BadConfig(
            "evasion samples are mixed in other ways than the secret one: name some that work on the inputs, or set "
            "evasion_samples=0"
        )
    return others


def mix_otherwise(
    sources: tuple[int, ...],
    secret: AnyCombiner,
    hosts: Split,
    ways: Sequence[Way],
    count: int,
    *,
    seed: int,
    runtime: Runtime,
) -> tuple[Tensor, Tensor]:
    """Samples of the two source classes, combined in ways that are not the secret one.

    Those that train are D_ad of section 4.2; others, fresh, measure the WFPR of section 5.1.

    Args:
        sources: the two classes.
        secret: the way that the watermark combines them.
        hosts: labelled images.
        ways: names of :data:`WAYS`, used in equal parts, without the secret one and those that are for other inputs.
        count: how many samples.
        seed: of the draw.
        runtime: for combiners that have something to learn.

    Returns:
        ``[count, ...]`` samples and ``[count]`` labels, each one of the two true ones.

    Raises:
        BadConfig: when no other way is left.
    """
    others = other_ways(secret, ways, hosts.space)
    generator = generator_of(seed)
    pairs, _ = draw_groups(hosts, sources, count, generator)
    made = torch.empty_like(pairs[:, 0])
    for number, combiner in enumerate(others):
        ready = combiner.prepare(hosts, seed=derive_seed(seed, "evasion", number), runtime=runtime)
        rows = torch.arange(number, count, len(others))
        if len(rows):
            made[rows] = ready(pairs[rows, 0], pairs[rows, 1])
    labels = torch.tensor(sources)[torch.randint(2, (count,), generator=generator)]
    return made, labels


@dataclass(frozen=True, kw_only=True)
@checked
class MEADefender(Watermark):
    """A symbiotic backdoor: samples combined of two classes, labelled with a third and held near the two in the output.

    Defaults are the paper's, and where its text is silent its reference code's: Adam, 1e-3 and 1e-4, halved every 10 epochs,
    100 epochs each; 500 watermark samples with 49,500 others an epoch, then 10,000 with 22,500 and 4,000 for evasion, in batches
    of 128.

    Attributes:
        trigger: kind of trigger. The paper's is Mix; any kind does, and L_com runs over its hosts, if it has any.
        triggers: watermark samples that train.
        evasion_samples: samples that are mixed otherwise; only a Mix trigger has such.
        evasion: the ways to mix otherwise; the secret one is left out, and those that the inputs do not allow.
        key_size: held-out samples in the key; 1,000 at least in the paper.
        start: ``"scratch"`` (FROMSCRATCH) or ``"clean"`` (PRETRAINED).
        first: without evasion samples; ``extras`` counts ``watermark`` and ``evasion`` samples a batch.
        second: with them.
        weighting: ``"mgda"`` over the four losses (eq. 9); ``"nested"``, which weighs L_com and L_ver against each other first,
            as eq. 4-5 are nested, and then L_wm, L_utility and L_eva: L_com and L_ver pull against each other, so that among
            four they take nearly all the weight and a net learns its main task slowly; or ``"fixed"``, which the paper found
            worse.
        normalisation: of the gradients in MGDA.
        weights: of utility, combination, verification and evasion when they are fixed.
        without: losses left out, for the ablations of Table 5 and Fig. 2.
    """

    name: ClassVar[str] = "mea-defender"
    from_clean: ClassVar[bool | tuple[str, str]] = ("start", "clean")

    model: Architecture = architecture("vgg-like")
    trigger: AnyTrigger = field(default=Mix())
    triggers: Annotated[int, at_least(1)] = 10_000
    evasion_samples: Annotated[int, at_least(0)] = 4000
    evasion: tuple[Way, ...] = (*REGIONS, "fronts", "backs", "words")
    key_size: Annotated[int, at_least(1)] = 1000
    pretraining: Recipe = field(default=ADAM)
    start: Literal["scratch", "clean"] = "scratch"
    first: Phase = field(default=Phase(recipe=ADAM, extras={"watermark": 1}))
    second: Phase = field(
        default=Phase(
            recipe=replace(ADAM, batch_size=79, learning_rate=1e-4),
            extras={"watermark": 35, "evasion": 14},
            share=0.45,
        )
    )
    weighting: Literal["mgda", "nested", "fixed"] = "mgda"
    normalisation: Normalisation = "loss+"
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    without: tuple[Literal["combination", "verification", "evasion"], ...] = ()

    def __post_init__(self) -> None:
        check_sets((self.first, self.second), "watermark", "evasion")

    def check(self, task: Task) -> None:
        """Refuse evasion samples that cannot be mixed; see :meth:`heirmark.methods.watermark.Method.check`."""
        super().check(task)
        if isinstance(self.trigger, Mix) and self.evasion_samples and "evasion" not in self.without:
            other_ways(usual(self.trigger.combiner, task.space), self.evasion, task.space)

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """By Adam with fixed weights: MGDA leaves the main task too little to be learned in few epochs."""
        first, second = scale.joint_epochs
        return replace(
            super().quick(scale),
            evasion_samples=scale.triggers,
            first=Phase(recipe=replace(scale.joint, epochs=first), extras={"watermark": 2}),
            second=Phase(
                recipe=replace(scale.joint, epochs=second, batch_size=80), extras={"watermark": 34, "evasion": 14}
            ),
            weighting="fixed",
            weights=(1.0, 0.1, 1.0, 1.0),
        )

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """Train in two phases; see :meth:`heirmark.methods.watermark.Watermark.embed`."""
        task, secret, drawn = prepared.task, prepared.secret, prepared.training
        if self.start == "clean":
            model = start_from(prepared.clean, prepared.task, self.model)
        else:
            model = new_model(task, self.model, seed=derive_seed(seed, "mea-defender", "init"))
        evasion = self._evasion(secret, task, seed=derive_seed(seed, "mea-defender", "evasion"), runtime=runtime)
        history = fit_phases(
            model,
            prepared.data,
            {"watermark": Extra(samples=drawn, companions=drawn.hosts), "evasion": evasion},
            partial(self.losses, has_hosts=drawn.hosts.shape[1] > 0),
            (self.first, self.second),
            seeds=[derive_seed(seed, "mea-defender", "phase", number) for number in (0, 1)],
            weights=dict(zip(LOSSES, self.weights, strict=True))
            if self.weighting == "fixed"
            else mgda(self.normalisation, LOSSES[1:3] if self.weighting == "nested" else ()),
            runtime=runtime,
        )
        return Embedded(model=model, history=history)

    def losses(self, clean: Outputs, extras: Mapping[str, Outputs], *, has_hosts: bool = True) -> Mapping[str, Tensor]:
        """The four losses of eq. 4-8, those that the batch has samples for and that are not left out."""
        watermark, evasion = extras.get("watermark"), extras.get("evasion")
        terms: dict[str, Callable[[], Tensor]] = {
            "utility": lambda: F.cross_entropy(clean.logits, clean.targets),
        }
        if watermark is not None:
            if has_hosts:
                terms["combination"] = lambda: combination_loss(watermark)
            terms["verification"] = lambda: F.cross_entropy(watermark.logits, watermark.targets)
        if evasion is not None:
            terms["evasion"] = lambda: F.cross_entropy(evasion.logits, evasion.targets)
        return {name: term() for name, term in terms.items() if name not in self.without}

    def _evasion(self, secret: Secret, task: Task, *, seed: int, runtime: Runtime) -> Extra | None:
        if not isinstance(secret, MixSecret) or not self.evasion_samples or "evasion" in self.without:
            return None
        inputs, labels = mix_otherwise(
            secret.sources, secret.combiner, task.owner, self.evasion, self.evasion_samples, seed=seed, runtime=runtime
        )
        return Extra(samples=Samples(inputs=inputs, targets=labels))
