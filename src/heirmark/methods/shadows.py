"""Triggers optimised with shadow models: the machinery of SSW (Tan et al., ACM MM 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.asking import evaluating, predict
from heirmark.errors import BadConfig, BadData
from heirmark.joint import Answers, Extra, Phase, fit_jointly
from heirmark.methods.base import Prepared, check_candidates, check_counts, new_model, start_from
from heirmark.models import Architecture
from heirmark.runtime import Runtime, derive_seed
from heirmark.space import decode, encode
from heirmark.training import Recipe, fit
from heirmark.triggers import AnyTrigger, TriggerSet
from heirmark.triggers.base import shuffled

CHUNK = 100
LEAST_GAIN = 0.001
MOST_STEPS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Shadows:
    """The three models that a trigger is optimised with.

    Attributes:
        host: the marked model.
        positive: a thief of it.
        negative: a clean model.
    """

    host: nn.Module
    positive: nn.Module
    negative: nn.Module


def fusion_loss(host: Tensor, positive: Tensor, negative: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over p_host * p_positive * (1 - p_negative) taken for logits, as the public code has it.

    Args:
        host: ``[m, C]`` logits.
        positive: the same of the positive shadow.
        negative: the same of the negative shadow.
        targets: ``[m]`` int64.

    Example:
        >>> sure, even = torch.tensor([[50.0, 0.0]]), torch.zeros(1, 2)
        >>> round(fusion_loss(sure, sure, even, torch.tensor([0])).item(), 4)  # log(1 + e^-0.5)
        0.4741
    """
    fused = host.softmax(1) * positive.softmax(1) * (1 - negative.softmax(1))
    return F.cross_entropy(fused, targets)


def refine(
    inputs: Tensor, targets: Tensor, shadows: Shadows, *, steps: int, learning_rate: float, runtime: Runtime
) -> Tensor:
    """Optimise pixels by Adam, a hundred samples at a time, at least so many steps and on while a shadow gains.

    Args:
        inputs: ``[M, ...]`` uint8 or float in [0, 1].
        targets: ``[M]`` int64.
        shadows: all in eval mode; they are moved to the runtime's device.
        steps: the least number; there are 200 at most (ours).
        learning_rate: of Adam, of the full range.
        runtime: device, progress.

    Returns:
        ``[M, ...]`` of the same dtype.
    """
    device = runtime.torch_device
    # Nothing else may have asked the clean model yet, which comes from a file where it was handed in.
    nets = [net.to(device) for net in (shadows.host, shadows.positive, shadows.negative)]
    made = []
    for start in range(0, len(inputs), CHUNK):
        pixels = decode(inputs[start : start + CHUNK].to(device)).clone().requires_grad_(True)
        wanted = targets[start : start + CHUNK].to(device)
        optimizer = torch.optim.Adam([pixels], learning_rate)
        hit_negative, hit_positive = 1.0, 0.0
        with torch.enable_grad():
            for step in range(MOST_STEPS):
                answers = [net(pixels).float() for net in nets]
                # Shares of the pixels that the last step made: the code measures them one more time each.
                positive, negative = (float((answer.argmax(1) == wanted).double().mean()) for answer in answers[1:])
                stalled = hit_negative - negative < LEAST_GAIN and positive - hit_positive < LEAST_GAIN
                if step >= steps and stalled:
                    break
                hit_positive, hit_negative = positive, negative
                (pixels.grad,) = torch.autograd.grad(fusion_loss(answers[0], answers[1], answers[2], wanted), [pixels])
                optimizer.step()
                with torch.no_grad():
                    pixels.clamp_(0, 1)
        made.append(pixels.detach().cpu())
        runtime.progress("optimising triggers", min(start + CHUNK, len(inputs)), len(inputs))
    return encode(torch.cat(made), inputs.dtype)


def optimised(
    drawn: TriggerSet,
    shadows: Shadows,
    permutation: Tensor,
    *,
    steps: int,
    learning_rate: float,
    runtime: Runtime,
) -> TriggerSet:
    """Trigger samples with optimised pixels; the controls of those that have no host are they themselves, shuffled."""
    with evaluating(shadows.host), evaluating(shadows.positive), evaluating(shadows.negative):
        inputs = refine(drawn.inputs, drawn.targets, shadows, steps=steps, learning_rate=learning_rate, runtime=runtime)
    return replace(
        drawn, inputs=inputs, controls=drawn.controls if drawn.hosts.shape[1] else shuffled(inputs, permutation)
    )


def select(drawn: TriggerSet, shadows: Shadows, keep: int, *, runtime: Runtime) -> TriggerSet:
    """The first samples that hit on host and positive shadow and miss on the negative one.

    Raises:
        BadData: when none does.
    """
    host, positive, negative = (
        predict(net, drawn.inputs, runtime=runtime).argmax(1) == drawn.targets
        for net in (shadows.host, shadows.positive, shadows.negative)
    )
    kept = (host & positive & ~negative).nonzero().flatten()[:keep]
    if len(kept) == 0:
        raise BadData(
            f"of {len(drawn)} candidates none hits on host and positive shadow and misses on the clean model: "
            "train longer, raise steps, or set selected=false"
        )
    return drawn.subset(kept)


class Settings(Protocol):
    """What both variants' configurations have; see :class:`SSWP`."""

    @property
    def model(self) -> Architecture: ...  # noqa: D102

    @property
    def trigger(self) -> AnyTrigger: ...  # noqa: D102

    @property
    def triggers(self) -> int: ...  # noqa: D102

    @property
    def key_size(self) -> int: ...  # noqa: D102

    @property
    def candidates(self) -> int: ...  # noqa: D102

    @property
    def pretraining(self) -> Recipe: ...  # noqa: D102

    @property
    def training(self) -> Recipe: ...  # noqa: D102

    @property
    def trigger_batch(self) -> int: ...  # noqa: D102

    @property
    def refinements(self) -> int: ...  # noqa: D102

    @property
    def steps(self) -> int: ...  # noqa: D102

    @property
    def pixel_rate(self) -> float: ...  # noqa: D102

    @property
    def selected(self) -> bool: ...  # noqa: D102


def check(settings: Settings) -> None:
    """Make sure that settings make sense.

    Raises:
        BadConfig: when they do not.
    """
    check_counts(
        triggers=settings.triggers,
        key_size=settings.key_size,
        candidates=settings.candidates,
        trigger_batch=settings.trigger_batch,
        steps=settings.steps,
    )
    if settings.selected:
        check_candidates(settings.candidates, settings.key_size)
    if not 0 <= settings.refinements <= settings.training.epochs:
        raise BadConfig(
            f"refinements follow on epochs of training, of which there are {settings.training.epochs}: "
            f"give 0 to {settings.training.epochs}, not {settings.refinements}"
        )
    if not 0 < settings.pixel_rate <= 1:
        raise BadConfig(f"pixel_rate must lie in (0, 1], not {settings.pixel_rate}")


def embed_with_shadows(
    settings: Settings, prepared: Prepared, permutation: Tensor, *, pretrained: bool, seed: int, runtime: Runtime
) -> tuple[Shadows, TriggerSet, tuple[Mapping[str, float], ...]]:
    """Train host and positive shadow in turn, an epoch each, and optimise the triggers after the last epochs.

    Args:
        settings: of the method.
        prepared: what it starts from.
        permutation: of the pixels of controls.
        pretrained: start both from the clean model, else from scratch.
        seed: of everything random.
        runtime: device, precision, progress.

    Returns:
        The models, the triggers as they are in the end, and one row an epoch.
    """
    data, triggers = prepared.data, prepared.training
    host, positive = (
        start_from(prepared.clean, prepared.task, settings.model)
        if pretrained
        else new_model(prepared.task, settings.model, seed=derive_seed(seed, "ssw", name, "init"))
        for name in ("host", "positive")
    )
    shadows = Shadows(host=host, positive=positive, negative=prepared.clean)
    trained = 0

    def follow(epoch: int = 1) -> None:
        """The positive shadow's epoch: the host's labels of the owner's images."""
        nonlocal trained
        if epoch:  # before the first epoch of a stretch, the host has nothing new to say
            fit(
                positive,
                data.inputs,
                predict(host, data.inputs, runtime=runtime).argmax(1),
                recipe=replace(settings.training, epochs=1),
                seed=derive_seed(seed, "ssw", "positive", trained),
                runtime=runtime,
                description="training the positive shadow",
            )
            trained += 1

    def losses(clean: Answers, extras: Sequence[Answers | None]) -> Mapping[str, Tensor]:
        asked = [clean, *(extra for extra in extras if extra is not None)]
        logits, targets = torch.cat([a.logits for a in asked]), torch.cat([a.targets for a in asked])
        return {"classification": F.cross_entropy(logits, targets)}

    rounds = settings.refinements
    # The optimiser's memory is lost at the end of a stretch, at most once an optimisation of the triggers.
    stretches = [settings.training.epochs - max(rounds - 1, 0), *[1] * (rounds - 1)]
    history: list[Mapping[str, float]] = []
    for number, epochs in enumerate(stretches):
        rows = fit_jointly(
            host,
            data,
            [Extra.alone(triggers.inputs, triggers.targets)],
            losses,
            Phase(recipe=replace(settings.training, epochs=epochs), extras=(settings.trigger_batch,)),
            seed=derive_seed(seed, "ssw", "host", number),
            on_epoch=follow,
            runtime=runtime,
            description="training the host",
        )
        history += [{**row, "epoch": row["epoch"] + len(history)} for row in rows]
        follow()
        if rounds:
            triggers = optimised(
                triggers,
                shadows,
                permutation,
                steps=settings.steps,
                learning_rate=settings.pixel_rate,
                runtime=runtime,
            )
    return shadows, triggers, tuple(history)
