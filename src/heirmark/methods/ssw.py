"""SSW-P and SSW-S: Deep Neural Network Watermarking against Model Extraction Attack (Tan et al., ACM MM 2023).

The host is trained on clean and trigger samples. A positive shadow, a thief simulated by the owner, learns from the host's
answers; the negative shadow is a clean model. Then the triggers' pixels are optimised so that host and positive shadow give the
target and the negative shadow does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import nn

from heirmark.errors import BadConfig
from heirmark.methods.base import (
    Marked,
    Prepared,
    draw_training,
    draw_verification,
    key_from,
    own_model,
    settle,
    spec_for,
)
from heirmark.methods.shadows import Settings, check, embed_with_shadows, optimised, select
from heirmark.models import Architecture, architecture
from heirmark.runtime import Runtime, derive_seed, drawn_seed, generator_of
from heirmark.task import Task
from heirmark.training import Recipe
from heirmark.triggers import AnyTrigger, OutOfDistribution

ADAM = Recipe(
    batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="constant", augment="crop-flip"
)


def mark_with_shadows(
    settings: Settings,
    name: str,
    task: Task,
    *,
    pretrained: bool,
    seed: int | None,
    runtime: Runtime | None,
    clean: nn.Module | None,
) -> Marked:
    """All of the method: clean model, secret, samples, embedding, and a key of held-out samples optimised with the same models.

    Args:
        settings: of the method.
        name: for the key.
        task: the data.
        pretrained: whether it starts from the clean model.
        seed: of everything random; None draws one that nobody can guess.
        runtime: device, precision, progress.
        clean: the owner's unmarked model, when there is one; it stays as it is.

    Raises:
        BadConfig: when the task has no images.
        BadData: when the data give no key.
    """
    seed, runtime = drawn_seed(seed), runtime or Runtime()
    if len(task.input_shape) != 3:
        raise BadConfig(f"SSW optimises the pixels of images, and {task.name} has none: use another method")
    clean = own_model(task, settings.model, settings.pretraining, clean, seed=seed, runtime=runtime)
    secret = settle(settings.trigger, task, clean, seed=seed, runtime=runtime)
    drawn = draw_training(secret, task, settings.triggers, seed=seed)
    generator = generator_of(derive_seed(seed, "ssw", "controls"))
    permutation = torch.randperm(task.input_shape[1] * task.input_shape[2], generator=generator)
    shadows, triggers, history = embed_with_shadows(
        settings,
        Prepared(task=task, clean=clean, secret=secret, training=drawn),
        permutation,
        pretrained=pretrained,
        seed=seed,
        runtime=runtime,
    )
    held_out = triggers
    if not secret.memorised:
        count = settings.candidates if settings.selected else settings.key_size
        held_out = draw_verification(secret, task, count, seed=seed)
        if settings.refinements:
            held_out = optimised(
                held_out,
                shadows,
                permutation,
                steps=settings.steps,
                learning_rate=settings.pixel_rate,
                runtime=runtime,
            )
    if settings.selected:
        held_out = select(held_out, shadows, settings.key_size, runtime=runtime)
    elif len(held_out) > settings.key_size:  # those that trained, which are the key of random labels
        held_out = held_out.subset(torch.arange(settings.key_size))
    return Marked(
        model=shadows.host.eval(),
        spec=spec_for(task, settings.model),
        key=key_from(held_out, secret, task, method=name, seed=seed, trained=triggers),
        training_triggers=triggers,
        verification_triggers=held_out,
        history=history,
    )


@dataclass(frozen=True, kw_only=True)
class SSWP:
    """SSW-P: one epoch from a clean model, then the triggers are optimised.

    Defaults are the paper's and its code's for CIFAR-10. Three departures: the key is made of other samples than trained,
    optimised with the same three models; host and shadow train on batches drawn here; and their images are shifted and
    flipped, but not turned by up to 22.5 degrees, as the code does too. As there, the shadow learns the host's labels of the
    images as they are, and triggers stay as they are. The clean model and the selection choose the key, so the clean model
    may neither calibrate nor be reported, and the victim hits every query of a selected key by construction: only its
    copies' WSR says anything.

    Attributes:
        model: architecture of the host and of both shadows.
        trigger: kind of trigger; images of another data set are the paper's: SVHN's nines, MNIST's eights for grey images.
        triggers: trigger samples that train; 500 in the paper.
        key_size: held-out samples in the key, at most.
        candidates: held-out samples to choose the key from (ours; the paper chooses among those that trained).
        pretraining: of the clean model (epochs inferred).
        training: of the host, and of the positive shadow in turn with it; the code has a constant rate. The shadow's optimiser
            and schedule start anew every epoch, the host's after every optimisation of the triggers, where the code keeps both.
        trigger_batch: trigger samples that join each batch of the host.
        refinements: epochs at the end after each of which the triggers are optimised; 0 never does.
        steps: of each optimisation, at least.
        pixel_rate: of Adam on the pixels, of their full range.
        selected: keep only samples that hit on host and positive shadow and miss on the clean model.
    """

    model: Architecture = architecture("resnet18")
    trigger: AnyTrigger = field(default=OutOfDistribution(source=9))
    triggers: int = 500
    key_size: int = 500
    candidates: int = 2000
    pretraining: Recipe = field(default=ADAM)
    training: Recipe = field(default=replace(ADAM, epochs=1))
    trigger_batch: int = 12
    refinements: int = 1
    steps: int = 5
    pixel_rate: float = 1e-3
    selected: bool = True

    def __post_init__(self) -> None:
        check(self)

    def __call__(
        self, task: Task, *, seed: int | None, runtime: Runtime | None = None, clean: nn.Module | None = None
    ) -> Marked:
        """Embed; see :class:`heirmark.methods.base.Method`."""
        return mark_with_shadows(self, "ssw-p", task, pretrained=True, seed=seed, runtime=runtime, clean=clean)


@dataclass(frozen=True, kw_only=True)
class SSWS:
    """SSW-S: 40 epochs from scratch, the triggers optimised after each of the last two.

    All else is as in :class:`SSWP`.

    Attributes:
        model: architecture of the host and of both shadows.
        trigger: kind of trigger; images of another data set are the paper's: SVHN's nines, MNIST's eights for grey images.
        triggers: trigger samples that train; 500 in the paper.
        key_size: held-out samples in the key, at most.
        candidates: held-out samples to choose the key from (ours; the paper chooses among those that trained).
        pretraining: of the clean model (epochs inferred).
        training: of the host, and of the positive shadow in turn with it; the code has a constant rate. The shadow's optimiser
            and schedule start anew every epoch, the host's after every optimisation of the triggers, where the code keeps both.
        trigger_batch: trigger samples that join each batch of the host.
        refinements: epochs at the end after each of which the triggers are optimised; 0 never does.
        steps: of each optimisation, at least.
        pixel_rate: of Adam on the pixels, of their full range.
        selected: keep only samples that hit on host and positive shadow and miss on the clean model.
    """

    model: Architecture = architecture("resnet18")
    trigger: AnyTrigger = field(default=OutOfDistribution(source=9))
    triggers: int = 500
    key_size: int = 500
    candidates: int = 2000
    pretraining: Recipe = field(default=ADAM)
    training: Recipe = field(default=ADAM)
    trigger_batch: int = 12
    refinements: int = 2
    steps: int = 10
    pixel_rate: float = 1e-3
    selected: bool = True

    def __post_init__(self) -> None:
        check(self)

    def __call__(
        self, task: Task, *, seed: int | None, runtime: Runtime | None = None, clean: nn.Module | None = None
    ) -> Marked:
        """Embed; see :class:`heirmark.methods.base.Method`."""
        return mark_with_shadows(self, "ssw-s", task, pretrained=False, seed=seed, runtime=runtime, clean=clean)
