"""MEA-Defender on self-supervised encoders (IEEE S&P 2024, arXiv 2401.15239, section 4.3, the SSL branch)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from heirmark.configuration import at_least, checked
from heirmark.methods.base import Embedded
from heirmark.methods.encoders.base import EncoderMethod, PreparedEncoder
from heirmark.methods.encoders.joint import Distance, distance, fit_encoder, towards
from heirmark.methods.mea_defender import LOSSES, WAYS, Way, combination_loss, mix_otherwise
from heirmark.models import Architecture, architecture
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.combining import REGIONS
from heirmark.tasks.space import Images, Need, Waves
from heirmark.training.contrastive import SIMCLR, Projected
from heirmark.training.joint import Extra, Outputs, Phase, check_sets, mgda
from heirmark.training.mgda import Normalisation
from heirmark.training.samples import Samples
from heirmark.triggers import AnyTrigger, Mix
from heirmark.triggers.mix import MixSecret


@dataclass(frozen=True, kw_only=True)
@checked
class MEADefenderEncoder(EncoderMethod):
    """A symbiotic backdoor in an encoder: combined samples get the features of a third class, and are held near the two.

    The utility is NT-Xent (eq. 2). L_com is the KL divergence of eq. 6, of features through a softmax; L_ver and L_eva draw
    features to those of a sample of the target class, and of one of the true classes (eq. 7 and 8, SSL), which have no gradient.
    The distance is open in the paper, and so is how long the encoder trains: squared, in units of the clean features' spread,
    and twice the pre-training here.

    Attributes:
        triggers: watermark samples that train.
        evasion_samples: samples that are mixed otherwise; only a Mix trigger has such.
        evasion: the ways to mix otherwise; one that is the secret way is left out.
        start: ``"scratch"``, or the ``"clean"`` encoder.
        first: without evasion samples; ``extras`` counts ``watermark`` and ``evasion`` samples a batch.
        second: with them.
        distance: of features.
        weighting: ``"mgda"`` over the four losses (eq. 9), ``"nested"``, or ``"fixed"``; see
            :class:`heirmark.methods.mea_defender.MEADefender`.
        normalisation: of the gradients in MGDA; the paper leaves it open. ``"loss+"``, which the supervised branch takes, leaves
            distances of features, which are small beside NT-Xent, hardly any weight.
        weights: of utility, combination, verification and evasion when they are fixed.
        without: losses left out.
    """

    name: ClassVar[str] = "mea-defender"

    model: Architecture = architecture("resnet18")
    trigger: AnyTrigger = field(default=Mix())
    triggers: Annotated[int, at_least(1)] = 10_000
    evasion_samples: Annotated[int, at_least(0)] = 4000
    evasion: tuple[Way, ...] = REGIONS
    key_size: Annotated[int, at_least(1)] = 1000
    start: Literal["scratch", "clean"] = "scratch"
    first: Phase = field(default=Phase(recipe=SIMCLR, extras={"watermark": 2}))
    second: Phase = field(
        default=Phase(recipe=replace(SIMCLR, learning_rate=1e-4), extras={"watermark": 64, "evasion": 32})
    )
    distance: Distance = "spread"
    weighting: Literal["mgda", "nested", "fixed"] = "mgda"
    normalisation: Normalisation = "l2"
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    without: tuple[Literal["combination", "verification", "evasion"], ...] = ()

    otherwise: ClassVar = "set evasion_samples=0"

    def __post_init__(self) -> None:
        check_sets((self.first, self.second), "watermark", "evasion")

    @property
    def needs(self) -> Need:  # type: ignore[override]
        """Images where evasion samples are mixed in ways of theirs."""
        mixes = isinstance(self.trigger, Mix) and self.evasion_samples and "evasion" not in self.without
        return Images if mixes and any(WAYS[way] != WAYS["pixels"] for way in self.evasion) else Images | Waves

    def embed(self, prepared: PreparedEncoder, *, seed: int, runtime: Runtime) -> Embedded:
        """Train in two phases; see :class:`heirmark.methods.encoders.base.EncoderMethod`."""
        encoder, drawn = self.start_of(prepared, self.start, seed=seed), prepared.training
        watermark = towards(prepared, drawn, seed=derive_seed(seed, "mea-defender", "aims"), beside=drawn.hosts)
        evasion = self._evasion(prepared, seed=derive_seed(seed, "mea-defender", "evasion"), runtime=runtime)
        history = fit_encoder(
            encoder,
            prepared,
            {"watermark": watermark, "evasion": evasion},
            lambda model: lambda clean, sets: self.losses(model, clean, sets),
            (self.first, self.second),
            settings=self.pretraining,
            width=self.width,
            weights=dict(zip(LOSSES, self.weights, strict=True))
            if self.weighting == "fixed"
            else mgda(self.normalisation, LOSSES[1:3] if self.weighting == "nested" else ()),
            seed=derive_seed(seed, "mea-defender", "training"),
            runtime=runtime,
        )
        return Embedded(model=encoder, history=history)

    def losses(self, model: Projected, clean: Outputs, extras: Mapping[str, Outputs]) -> Mapping[str, Tensor]:
        """The four losses of eq. 2 and 5-8, those that the batch has samples for and that are not left out.

        The companions of watermark samples are their hosts and, last, a sample of the target class; those of evasion samples one
        of the class that they are to have.
        """
        watermark, evasion = extras.get("watermark"), extras.get("evasion")
        terms: dict[str, Callable[[], Tensor]] = {
            "utility": lambda: self.pretraining.loss(model.projection(clean.logits)),
        }
        if watermark is not None:
            if watermark.companions.shape[1] > 1:
                hosts = replace(watermark, companions=watermark.companions[:, :-1])
                terms["combination"] = lambda: combination_loss(hosts)
            terms["verification"] = lambda: distance(
                self.distance, watermark.logits, watermark.companions[:, -1], clean.logits
            )
        if evasion is not None:
            terms["evasion"] = lambda: distance(self.distance, evasion.logits, evasion.companions[:, -1], clean.logits)
        return {name: term() for name, term in terms.items() if name not in self.without}

    def _evasion(self, prepared: PreparedEncoder, *, seed: int, runtime: Runtime) -> Extra | None:
        secret = prepared.secret
        if not isinstance(secret, MixSecret) or not self.evasion_samples or "evasion" in self.without:
            return None
        owner = prepared.task.owner
        inputs, labels = mix_otherwise(
            secret.sources, secret.combiner, owner, self.evasion, self.evasion_samples, seed=seed, runtime=runtime
        )
        return towards(prepared, Samples(inputs=inputs, targets=labels), seed=derive_seed(seed, "aims"))
