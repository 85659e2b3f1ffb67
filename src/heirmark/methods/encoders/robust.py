"""A mark that copies of an encoder inherit: thieves in closed form, who learn its features, pull (see ``methods/robust.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.configuration import above, at_least, checked
from heirmark.methods.audience import thief_in
from heirmark.methods.base import Embedded
from heirmark.methods.encoders.base import EncoderMethod, PreparedEncoder, of_class
from heirmark.methods.encoders.t2s import Gauge
from heirmark.methods.robust import halves
from heirmark.models import Architecture, architecture, fresh_net
from heirmark.querying.asking import outputs_of
from heirmark.rehearsal.balance import Balance
from heirmark.rehearsal.closed_form import Audience, Closing, Reading
from heirmark.rehearsal.judges import accuracy_loss
from heirmark.rehearsal.losses import target_slope
from heirmark.rehearsal.passes import copies
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.storing import join
from heirmark.tasks.task import Split, Task
from heirmark.training.augmenting import augment
from heirmark.training.batches import Batches
from heirmark.training.fitting import Recipe, descend
from heirmark.training.linear_probe import probe_encoder
from heirmark.training.samples import Joining, Samples, ShuffledIndex
from heirmark.training.steps import Figures, Step, backward

PROBED = 2000
"""Owner's images on which a candidate's probe is fitted, anew after every epoch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Aimed(Samples):
    """Trigger samples with the features ``[M, D]`` that they are to have."""

    aims: Tensor


@dataclass(frozen=True, kw_only=True)
@checked
class RobustEncoder(EncoderMethod):
    """Tune a trained encoder so that thieves in closed form, in the feature spaces of several nets, inherit the mark.

    A thief who trains a last layer on the encoder's features to convergence is ridge regression, whose answers to triggers are a
    linear functional of these features: see :mod:`heirmark.rehearsal.closed_form`. The encoder keeps the features of clean images
    and brings those of triggers to the target class; of the candidates after each epoch that keep the budget the one is returned
    of which the thieves hold the mark best.

    Attributes:
        thieves: architectures of further nets in whose features thieves finish, beside the clean encoder: each learns the clean
            encoder's features, as a thief's would. In the clean encoder's own features alone a mark may hide from others.
        feature_recipe: how they learn.
        recipe: of the tuning.
        trigger_batch: trigger samples a step.
        pulling: trigger samples that the thieves are asked about a step.
        rho: length of the thieves' gradient over that of the utility, at the start.
        accuracy_budget: of a probe's accuracy that may be lost, as far as images can tell that are none of the key's.
        closing: how thieves finish; its sharpness, which is of classes, takes no part.
    """

    name: ClassVar[str] = "robust"

    thieves: tuple[Architecture, ...] = architecture(("resnet18", "vgg-like"))
    feature_recipe: Recipe = field(
        default=Recipe(epochs=10, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0)
    )
    recipe: Recipe = field(
        default=Recipe(epochs=10, batch_size=128, optimizer="adam", learning_rate=3e-4, weight_decay=0.0)
    )
    trigger_batch: Annotated[int, at_least(1)] = 32
    pulling: Annotated[int, at_least(1)] = 256
    rho: Annotated[float, above(0)] = 1.0
    accuracy_budget: Annotated[float, at_least(0)] = 0.005
    closing: Closing = field(default=Closing())

    def hosts(self, task: Task, *, seed: int) -> Split:
        """The half of the calibration split of which the key is made: the other half has chosen the encoder."""
        return halves(task.calibration, seed=seed)[0]

    def embed(self, prepared: PreparedEncoder, *, seed: int, runtime: Runtime) -> Embedded:
        """Tune; see :class:`heirmark.methods.encoders.base.EncoderMethod`."""
        encoder, data, mark = self.start_of(prepared, "clean", seed=seed), prepared.data, prepared.training
        device = runtime.torch_device
        kept = outputs_of(prepared.encoder, data.inputs, runtime=runtime).to(device)
        nets = [prepared.encoder, *self._imitators(prepared, kept, seed=seed, runtime=runtime)]
        gauge = Gauge(prepared.probe, device)
        ridge, centres = self.closing.ridge, gauge.centres(kept, data.labels.to(device))
        audience = Audience(
            [thief_in(net, data.inputs, mark.inputs, classes=self.width, ridge=ridge, runtime=runtime) for net in nets],
            mark.targets.to(device),
            gauge.standard(kept),
            self.closing,
            Reading(
                answers=gauge.standard,
                loss=lambda said, targets: F.mse_loss(said, centres[targets]),
                labels=lambda said: gauge.logits(said).argmax(1),
            ),
        )
        aims = of_class(prepared.task.owner, mark.targets, seed=derive_seed(seed, "aims"))
        aimed = _Aimed(
            inputs=mark.inputs, targets=mark.targets, aims=outputs_of(prepared.encoder, aims, runtime=runtime)
        )
        tuning = _Tuning(self, encoder, data, aimed, audience, gauge, kept, device)
        watch = _Watch(self, prepared, encoder, audience, tuning.balance, seed=seed, runtime=runtime)
        history = descend(
            encoder,
            len(data),
            tuning.draw,
            Step(gradients=tuning.gradients, recordable=False),  # measures norms
            batches=tuning.batches,
            recipe=self.recipe,
            seed=derive_seed(seed, "rehearsal"),
            runtime=runtime,
            after_epoch=watch,
            remedy="lower learning_rate or rho",
            description="rehearsing",
        )
        encoder.load_state_dict(watch.state)
        return Embedded(model=encoder, history=history)

    def _imitators(
        self, prepared: PreparedEncoder, wanted: Tensor, *, seed: int, runtime: Runtime
    ) -> Sequence[nn.Module]:
        """Nets of other architectures that have learned the clean encoder's features ``[N, D]`` of the owner's images."""
        nets = []
        for number, kind in enumerate(self.thieves):
            drawn, shape = derive_seed(seed, "thief", number), prepared.task.input_shape
            model = fresh_net(kind, input_shape=shape, classes=self.width, seed=drawn).model
            batches, run = Batches(prepared.data.inputs, runtime.torch_device), runtime.compiled(model)

            def draw(chosen: Tensor, generator: torch.Generator, batches: Batches = batches) -> tuple[Tensor, ...]:
                return augment(batches[chosen], self.feature_recipe.augment, generator), wanted[chosen]

            def loss(images: Tensor, features: Tensor, run: Callable[[Tensor], Tensor] = run) -> Mapping[str, Tensor]:
                with runtime.autocast():
                    own = run(images)
                return {"loss": F.mse_loss(own.float(), features)}

            descend(
                model,
                len(batches),
                draw,
                backward(model, loss),
                batches=batches,
                recipe=self.feature_recipe,
                seed=drawn,
                runtime=runtime,
                description="training thieves",
            )
            nets.append(model)
        return nets


class _Tuning:
    """What a step of the tuning draws and computes."""

    def __init__(
        self,
        config: RobustEncoder,
        encoder: nn.Module,
        data: Split,
        mark: _Aimed,
        audience: Audience,
        gauge: Gauge,
        kept: Tensor,
        device: torch.device,
    ) -> None:
        self.config, self.encoder, self.audience, self.gauge, self.kept = config, encoder, audience, gauge, kept
        self.batches, self.triggers = Batches(data.inputs, device), Joining(mark, config.trigger_batch, device)
        self.rows = ShuffledIndex(len(mark), min(config.pulling, len(mark)), device)
        self.balance = Balance(rho=config.rho, enough=0.0, measured=4)

    def draw(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Clean images with some triggers behind them, the features that both are to have, and who is asked about."""
        shown = self.triggers.draw(generator)
        images = join([augment(self.batches[chosen], self.config.recipe.augment, generator), shown.inputs])
        return images, torch.cat([self.kept[chosen], shown.aims]), chosen, self.rows.draw(generator)

    def gradients(self, images: Tensor, wanted: Tensor, chosen: Tensor, rows: Tensor) -> Figures:
        """The direction of one step, into the encoder's gradients."""
        parameters = {name: p for name, p in self.encoder.named_parameters() if p.requires_grad}
        self.encoder.zero_grad(set_to_none=True)
        features = self.encoder(images).float()
        loss, slope = target_slope(features, wanted, self.gauge.apart)
        clean = features[: len(chosen)]
        pull = self.audience.pull(clean, chosen, rows)
        self.audience.hear(clean, chosen)
        drawn = F.pad(pull.slope, (0, 0, 0, len(features) - len(chosen)))
        found = self.balance.combine(features, parameters, slope, drawn, pull.loss)
        for name, parameter in parameters.items():
            parameter.grad = found[name]
        return {"watermark_loss": pull.loss, "utility_loss": loss}


class _Watch:
    """Judges the encoder after every epoch, remembers the best, and steers."""

    def __init__(
        self,
        config: RobustEncoder,
        prepared: PreparedEncoder,
        encoder: nn.Module,
        audience: Audience,
        balance: Balance,
        *,
        seed: int,
        runtime: Runtime,
    ) -> None:
        self.encoder, self.audience, self.balance, self.runtime = encoder, audience, balance, runtime
        self.budget, self.classes = config.accuracy_budget, prepared.task.num_classes
        self.watched = halves(prepared.task.calibration, seed=seed)[1]
        self.probed = prepared.task.owner.subset(torch.arange(min(PROBED, len(prepared.task.owner))))
        self.before = self._right(prepared.encoder)
        self.state, self.best = copies(encoder.state_dict()), (2.0, 0.0)

    def _right(self, encoder: nn.Module) -> Tensor:
        """Which of the images that watch a fresh probe of an encoder gets right."""
        probe = probe_encoder(encoder, self.probed, classes=self.classes, runtime=self.runtime)
        said = probe(outputs_of(encoder, self.watched.inputs, runtime=self.runtime)).argmax(1)
        right: Tensor = said == self.watched.labels
        return right

    def __call__(self, epoch: int) -> dict[str, float]:
        """Figures of the epoch's row."""
        self.audience.refresh()
        lost, error = accuracy_loss(self.before, self._right(self.encoder), prior=self.budget)
        loss = sum(self.audience.losses()) / len(self.audience.thieves)
        kept = lost <= self.budget + 1e-9
        price = (0.0, loss) if kept else (1.0, lost)
        if price < self.best:
            self.best, self.state = price, copies(self.encoder.state_dict())
        hits = sum(self.audience.hits()) / len(self.audience.thieves)
        row = {"lost": lost, "lost_error": error, "thief_wsr": hits, "thief_loss": loss, "kept": float(kept)}
        row["rho"] = self.balance.rho
        self.balance.steer(lost, self.budget)
        return row
