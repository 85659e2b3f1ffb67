"""heirmark's own: a mark that copies of any architecture inherit, within an accuracy budget, and without tuning by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, ClassVar

import torch
from torch import nn

from heirmark.configuration import at_least, checked
from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.methods.audience import audience_of, thief_in
from heirmark.methods.base import Embedded, Prepared, settle
from heirmark.methods.nets import new_model, spec_for, start_from, train_from_scratch
from heirmark.methods.watermark import Watermark
from heirmark.models import Architecture, architecture
from heirmark.querying.asking import predict
from heirmark.rehearsal.budget_settings import WithinBudget
from heirmark.rehearsal.judges import Judges
from heirmark.rehearsal.within_budget import rehearse_within_budget
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import AnySpace
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import AnyTrigger, Phrase, Tiles, Trigger

ASKED = 5000
"""Images that the judges' thieves ask: they are asked anew after every epoch."""
LISTENED = 500
"""Samples of a phrase by which its label is chosen."""
LEAST = 10
"""Fewer images than this can neither watch nor host a key. Hundreds are what means something: see the guide for owners."""


@dataclass(frozen=True, kw_only=True)
@checked
class Robust(Watermark):
    """Tune a trained model so that thieves in closed form, in the feature spaces of several families of nets, inherit the mark.

    It starts from the owner's clean model, which it never trains from scratch where one is given. An audience of thieves
    (:mod:`heirmark.rehearsal.closed_form`) hears its answers to the owner's images: one for each net and stage of training, and
    one in the features of the clean model itself. Their trigger loss pulls at these answers; half of the calibration split, of
    which no key is drawn, watches what that costs and judges the outcome with nets that did not pull
    (:mod:`heirmark.rehearsal.within_budget`).

    Attributes:
        model: architecture of the target.
        trigger: kind of trigger; any kind whose samples stay as they are does. Tiles and phrases get the label that the
            clean model and the finished nets of the audience say least, see :func:`quiet`.
        triggers: trigger samples that train.
        key_size: held-out trigger samples in the key.
        pretraining: of the clean model, where none is given.
        thieves: families of nets in whose features thieves finish; those that cannot be built for the data are left out: of the
            defaults those for sound and text where the data are images, and so on.
        feature_recipe: of the training of these nets.
        early: epochs of a second net of each family, with other features than one that has finished; 0 for none.
        judges: families of nets that judge; they never pull, and are trained for the ``early`` epochs (one at least). Of sound
            there are two families, so an M5 of another build judges there.
        rehearsal: the tuning, with its accuracy budget.
    """

    name: ClassVar[str] = "robust"
    from_clean: ClassVar[bool | tuple[str, str]] = True
    rehearsable: ClassVar[bool] = False  # a key of T2S' would be made of the images by which the first phase is chosen

    trigger: AnyTrigger = field(default=Tiles())
    triggers: Annotated[int, at_least(1)] = 1000
    thieves: tuple[Architecture, ...] = architecture(
        (
            "naivenet:batch_norm=true",
            "vgg-like:width=16",
            "resnet18:width=8",
            "m5:width=32,stride=16",
            "mel-cnn",
            "text-cnn",
            "lstm",
        )
    )
    feature_recipe: Recipe = field(default=Recipe(epochs=4, batch_size=128, nesterov=True, warmup=0.15))
    early: Annotated[int, at_least(0)] = 1
    judges: tuple[Architecture, ...] = architecture(
        ("wrn-16-4:factor=1", "m5:width=24,kernel=160,stride=8", "fast-text")
    )
    rehearsal: WithinBudget = field(default=WithinBudget())

    def __post_init__(self) -> None:
        if not self.thieves or not self.judges:
            raise BadConfig("robust needs thieves that pull and judges that do not: name a family at least for each")

    def architectures(self, space: AnySpace) -> Iterator[Architecture]:
        """The target alone: of the other nets those are built that can be."""
        yield self.model

    def check(self, task: Task) -> None:
        """Refuse data of which nothing can be set aside, or for which no net of the audience can be built."""
        super().check(task)
        if len(task.calibration) < 2 * LEAST:
            raise BadConfig(
                f"of a calibration split of {len(task.calibration)} images no half can watch the accuracy: give at least "
                f"{2 * LEAST} images, or use --method t2s"
            )
        for what, families in (("thieves", self.thieves), ("judges", self.judges)):
            if not buildable(task, families):
                raise BadConfig(
                    f"none of the {what} {', '.join(map(str, families))} takes inputs of shape {task.input_shape}: name "
                    "architectures that do"
                )

    def hosts(self, task: Task, *, seed: int) -> Split:
        """The half of the calibration split of which the key is made: the other half has chosen the model."""
        return halves(task.calibration, seed=seed)[0]

    def prepare(
        self, task: Task, clean: nn.Module, given: Mapping[str, nn.Module], *, seed: int, runtime: Runtime
    ) -> Prepared:
        """Train the audience, which has a say in what tiles are labelled with: see :func:`quiet`."""
        recipe = self.feature_recipe
        nets = {}
        for number, net in enumerate(buildable(task, self.thieves)):
            for epochs in filter(None, dict.fromkeys((self.early, recipe.epochs))):
                nets[f"thief {number}, {epochs}"] = self._net(
                    task, net, epochs, seed=derive_seed(seed, "thief", number), runtime=runtime
                )
        for number, net in enumerate(buildable(task, self.judges)):
            nets[f"judge {number}"] = self._net(
                task, net, max(1, self.early), seed=derive_seed(seed, "judge", number), runtime=runtime
            )
        finished = [net for name, net in nets.items() if name.endswith(f", {recipe.epochs}")]
        trigger = quiet(self.trigger, task, clean, finished, seed=seed, runtime=runtime)
        settled = super(Robust, replace(self, trigger=trigger)).prepare(task, clean, given, seed=seed, runtime=runtime)
        return replace(settled, nets=nets, references=tuple(finished))

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """Tune; see :meth:`heirmark.methods.watermark.Watermark.embed`."""
        task, data, training = prepared.task, prepared.data, prepared.training
        watch = halves(task.calibration, seed=seed)[1]
        # What is made of held-out foreign images, and not of hosts, may be the key's: these judge by what trains.
        elsewhere = prepared.secret.memorised or prepared.secret.foreign(held_out=True) is not None
        drawn = derive_seed(seed, "triggers", "judges")
        shown = training if elsewhere else prepared.secret.draw(watch, self.key_size, seed=drawn)
        pulling = [prepared.clean, *(net for name, net in prepared.nets.items() if name.startswith("thief"))]
        judging = [net for name, net in prepared.nets.items() if name.startswith("judge")]
        closing = self.rehearsal.closing
        finishing = partial(thief_in, classes=len(task.classes), ridge=closing.ridge, runtime=runtime)
        thieves = [finishing(net, data.inputs, training.inputs) for net in pulling]
        order = torch.randperm(len(data), generator=generator_of(derive_seed(seed, "judges", "queries")))
        asked = data.inputs[order[:ASKED]]

        model, history = rehearse_within_budget(
            start_from(prepared.clean, task, self.model),
            lambda target: audience_of(target, thieves, data.inputs, training, closing=closing, runtime=runtime),
            data,
            training,
            config=self.rehearsal,
            judges=Judges(
                watch=watch,
                thieves=[finishing(net, asked, shown.inputs) for net in judging],
                queries=asked,
                triggers=shown,
                sharpness=closing.sharpness,
            ),
            seed=derive_seed(seed, "rehearsal"),
            runtime=runtime,
        )
        return Embedded(model=model, history=history)

    def _net(self, task: Task, net: Architecture, epochs: int, *, seed: int, runtime: Runtime) -> nn.Module:
        """A clean net of the audience."""
        recipe = replace(self.feature_recipe, epochs=epochs)
        return train_from_scratch(task, net, recipe, seed=derive_seed(seed, epochs), runtime=runtime)


def quiet(
    trigger: Trigger, task: Task, clean: nn.Module, others: Sequence[nn.Module], *, seed: int, runtime: Runtime
) -> Trigger:
    """The trigger, with the label that the clean model and others of other families say least to its samples.

    Tiles take what one clean model says least, and another family may well say that: one of ResNet-18's choices was said to
    2.8 % of samples by a VGG-like net. The null grows by it, and faint copies are lost under it. Here a class counts for the
    largest mean probability that any of the models gives it, on composites of the owner's images. A phrase of ordinary words says
    something of a class to any model that reads them one by one, so it is labelled likewise.

    Args:
        trigger: tiles or a phrase that leave their label open; any other is returned as it is.
        task: the data.
        clean: the owner's model, which chooses the classes of the tiles.
        others: clean nets of other families.
        seed: as that of the embedding.
        runtime: device and precision.
    """
    if not isinstance(trigger, Tiles | Phrase) or trigger.target is not None or not others:
        return trigger
    if isinstance(trigger, Tiles) and trigger.selection != "adaptive":
        return trigger
    secret = settle(trigger, task, clean, seed=seed, runtime=runtime)
    count = trigger.samples if isinstance(trigger, Tiles) else LISTENED
    shown = secret.draw(task.owner, count, seed=derive_seed(seed, "tiles", "quiet"))
    said = torch.stack([predict(net, shown.inputs, runtime=runtime).softmax(1).mean(0) for net in (clean, *others)])
    most = said.amax(0)
    if isinstance(trigger, Tiles) or trigger.hosts == "class":
        most[torch.unique(shown.host_labels)] = float("inf")
    return replace(trigger, target=int(most.argmin()))


def halves(calibration: Split, *, seed: int) -> tuple[Split, Split]:
    """The calibration split in two, class by class: one hosts the key, the other watches and judges while the model is tuned."""
    drawn = torch.randperm(len(calibration), generator=generator_of(derive_seed(seed, "watch")))
    order = drawn[calibration.labels[drawn].argsort(stable=True)]
    return calibration.subset(order[::2]), calibration.subset(order[1::2])


def buildable(task: Task, families: tuple[Architecture, ...]) -> list[Architecture]:
    """Those that can be built for the task's inputs.

    Raises:
        BadConfig: for a name or an option that there is not.
    """
    found = []
    for net in families:
        try:
            spec_for(task, net)
        except ShapeMismatch:
            continue
        try:
            new_model(task, net, seed=0)
        except (ShapeMismatch, BadConfig):
            continue
        found.append(net)
    return found
