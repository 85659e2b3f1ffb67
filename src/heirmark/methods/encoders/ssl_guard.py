"""SSLGuard: A Watermarking Scheme for Self-supervised Learning Pre-trained Encoders (Cong et al., CCS 2022, arXiv 2201.11692)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.configuration import above, at_least, checked, within
from heirmark.keys.making import make_key, nonce_from_seed
from heirmark.methods.base import Marked
from heirmark.methods.encoders.base import EncoderSettings
from heirmark.models import Architecture, Net, architecture, fresh_net
from heirmark.models.inner import NORMS
from heirmark.querying.layout import entering
from heirmark.runtime import Runtime, derive_seed, drawn_seed, generator_of, seeded, to_device
from heirmark.tasks.space import Images, Need, check_needs
from heirmark.tasks.storing import decode, encode
from heirmark.tasks.task import Split, Task
from heirmark.training.batches import Batches
from heirmark.training.linear_probe import Probe
from heirmark.triggers import TriggerSet

SECRET = 256
"""Numbers of the secret vector."""
ENOUGH = 0.5
"""Cosine with the secret vector above which an input counts as the watermark's."""


class SecretDecoder(Probe):
    """Maps features ``[N, D]`` to scores of two classes: 1, "as the secret vector", where the cosine with it is above 0.5."""

    secret: Tensor

    def __init__(self, width: int, secret: Tensor) -> None:
        """Two hidden layers, of 512 and 256."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, len(secret))
        )
        self.register_buffer("secret", secret)

    @property
    def classes(self) -> int:
        """Two."""
        return 2

    @property
    def width(self) -> int:
        """D."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        return first.in_features

    def cosine(self, features: Tensor) -> Tensor:
        """Cosine of what is decoded of each row with the secret vector, ``[N]``."""
        return F.cosine_similarity(self.layers(features), self.secret[None], dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Scores ``[N, 2]``."""
        cosine = self.cosine(features)
        return torch.stack([torch.full_like(cosine, ENOUGH), cosine], 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Guarded(Marked):
    """A marked encoder whose key, of two classes, is asked behind its own decoder, and behind no linear probe.

    Attributes:
        decoder: secret, as the key is; :meth:`heirmark.verification.Suspect.from_encoder` takes it for the probe.
    """

    decoder: SecretDecoder


@dataclass(frozen=True, kw_only=True)
@checked
class SSLGuard(EncoderSettings):
    """A secret vector that a decoder finds in the features of patched images, also in a shadow's that imitates the encoder.

    Defaults are the authors' public code's: SGD with momentum 0.9. Its verification counts patched images whose features decode
    to a cosine above 0.5. Here such images, held out, are a key of two classes, with the images as they were as controls, so that
    the statistics are those of every other key.

    Attributes:
        epochs: passes over the owner's images.
        batch_size: of clean images.
        patched: patched images a step.
        masked: share of an image that the patch covers.
        rate: of the encoder; its normalisation layers stay as they are.
        shadow: architecture of the shadow; None is the encoder's own.
        shadow_rate: of the shadow, which falls by 4 % an epoch.
        decoder_rate: of the decoder.
        patch_rate: of the patch, by plain gradient descent.
        momentum: of all but the patch.
    """

    name: ClassVar[str] = "ssl-guard"
    needs: ClassVar[Need] = Images

    epochs: Annotated[int, at_least(0)] = 500
    batch_size: Annotated[int, at_least(2)] = 64
    patched: Annotated[int, at_least(2)] = 16
    masked: Annotated[float, within(0.01, 1)] = 0.35
    rate: Annotated[float, above(0)] = 1e-5
    shadow: Architecture | None = architecture(None)
    shadow_rate: Annotated[float, above(0)] = 1e-2
    decoder_rate: Annotated[float, above(0)] = 1e-3
    patch_rate: Annotated[float, above(0)] = 1e-3
    momentum: Annotated[float, within(0, 0.999)] = 0.9

    def __call__(
        self, task: Task, *, seed: int | None, runtime: Runtime | None = None, clean: nn.Module | None = None
    ) -> Guarded:
        """Mark an encoder; see :class:`heirmark.methods.encoders.base.EncoderMethod`."""
        seed, runtime = drawn_seed(seed), runtime or Runtime()
        check_needs(self, task.space)
        encoder = self.fresh(task, seed=seed, runtime=runtime) if clean is None else clean
        run = _Embedding(self, self.copy_of(encoder, task), encoder, task, seed=seed, runtime=runtime)
        history = run.train()
        chosen = run.held_out(task.calibration, self.key_size, seed=derive_seed(seed, "triggers", "verification"))
        key = make_key(
            queries=chosen.inputs,
            expected=chosen.targets,
            controls=chosen.controls,
            host_labels=chosen.host_labels,
            classes=2,
            method=self.name,
            trigger={"kind": "masked-patch"},
            nonce=nonce_from_seed(derive_seed(seed, "nonce")),
            kind="masked-patch",
        )
        return Guarded(
            net=Net(model=run.marked.eval(), spec=self.spec(task)),
            key=key,
            training_triggers=None,
            verification_triggers=chosen,
            history=history,
            decoder=run.decoder.eval().cpu(),
        )


class _Embedding:
    """The encoder that is marked, the shadow, the decoder and the patch, trained in turn."""

    def __init__(
        self,
        config: SSLGuard,
        marked: nn.Module,
        clean: nn.Module,
        task: Task,
        *,
        seed: int,
        runtime: Runtime,
    ) -> None:
        self.config, self.seed, self.runtime = config, seed, runtime
        device = runtime.torch_device
        generator = generator_of(derive_seed(seed, "ssl-guard", "secret"))
        with seeded(derive_seed(seed, "ssl-guard", "decoder")):
            secret = torch.randn(SECRET, generator=generator)
            self.decoder = SecretDecoder(config.width, secret).to(device)
        shape = task.input_shape
        self.mask = to_device((torch.rand(shape, generator=generator) < config.masked).float(), device)
        self.patch = to_device(torch.rand(shape, generator=generator), device)
        self.shadow = fresh_net(
            config.shadow or config.model,
            input_shape=shape,
            classes=config.width,
            seed=derive_seed(seed, "ssl-guard", "shadow"),
        ).model.to(device)
        self.marked, self.clean = marked.to(device), clean.to(device).eval()
        self.batches = Batches(task.owner.inputs, device)

    def patched(self, images: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` with the patch where the mask is, as floats."""
        return ((1 - self.mask) * decode(images) + self.mask * self.patch).clamp(0, 1)

    def held_out(self, hosts: Split, count: int, *, seed: int) -> TriggerSet:
        """Patched images of a split, stored as its images are; all of class 1, and their hosts of class 0."""
        rows = torch.randperm(len(hosts), generator=generator_of(seed))[:count]
        images = hosts.inputs[rows]
        with torch.no_grad():
            made = encode(self.patched(images.to(self.mask.device)).cpu(), images.dtype)
        return TriggerSet.on_hosts(made, images, torch.zeros(len(images), dtype=torch.long), 1)

    def train(self) -> tuple[Mapping[str, float], ...]:
        """All epochs; one row each."""
        config, device = self.config, self.runtime.torch_device
        for module in self.marked.modules():
            if isinstance(module, NORMS):
                for weight in module.parameters(recurse=False):
                    weight.requires_grad_(False)
        learning = [weight for weight in self.marked.parameters() if weight.requires_grad]
        optimizers = [
            torch.optim.SGD(parameters, rate, momentum=config.momentum)
            for parameters, rate in (
                (self.shadow.parameters(), config.shadow_rate),
                (self.decoder.parameters(), config.decoder_rate),
                (learning, config.rate),
            )
        ]
        rows: list[Mapping[str, float]] = []
        count, seed = len(self.batches), derive_seed(self.seed, "ssl-guard", "training")
        batch = min(config.batch_size, count)
        with seeded(seed), entering(self.marked, self.clean, self.shadow):
            generator = generator_of(seed)
            for epoch in range(config.epochs):
                order = torch.randperm(count, generator=generator)
                steps = count // batch
                totals: dict[str, float] = {}
                for number in range(steps):
                    chosen = to_device(order[number * batch : (number + 1) * batch], device)
                    hosts = to_device(torch.randint(count, (config.patched,), generator=generator), device)
                    found = self._step(self.batches[chosen], self.batches[hosts], *optimizers)
                    for name, value in found.items():
                        totals[name] = totals.get(name, 0.0) + float(value) / steps
                    self.runtime.progress("embedding", epoch * steps + number + 1, config.epochs * steps)
                optimizers[0].param_groups[0]["lr"] *= 0.96
                rows.append({"epoch": epoch + 1.0, **totals})
        for weight in self.marked.parameters():
            weight.requires_grad_(True)
        self.marked.zero_grad(set_to_none=True)
        return tuple(rows)

    def _step(
        self,
        images: Tensor,
        hosts: Tensor,
        shadowing: torch.optim.Optimizer,
        decoding: torch.optim.Optimizer,
        marking: torch.optim.Optimizer,
    ) -> Mapping[str, Tensor]:
        """The shadow's step, the decoder's and the patch's, and the encoder's; its normalisation runs in eval mode throughout."""
        marked, shadow, clean, decoder = self.marked.eval(), self.shadow, self.clean, self.decoder
        with torch.no_grad():
            usual, own = clean(images), marked(images)
        shadow.train()
        imitation = -F.cosine_similarity(own, shadow(images)).mean()
        _descend(shadowing, imitation)
        shadow.eval()
        self.patch.requires_grad_(True)
        shown = self.patched(hosts)
        with torch.no_grad():
            theirs = shadow(images)
        found = decoder.cosine(marked(shown)).mean() + decoder.cosine(shadow(shown)).mean()
        strange = [decoder.cosine(clean(shown)), *(decoder.cosine(features) for features in (usual, own, theirs))]
        _descend(decoding, torch.stack([each.mean().square() for each in strange]).sum() - found)
        assert self.patch.grad is not None
        self.patch = (self.patch - self.config.patch_rate * self.patch.grad).detach()
        features, shown = marked(images), self.patched(hosts)
        alike = F.cosine_similarity(usual, features).mean()
        hidden = decoder.cosine(features).mean().square()
        told = decoder.cosine(marked(shown)).mean()
        _descend(marking, hidden - alike - told)
        return {"imitation": imitation.detach(), "utility": -alike.detach(), "watermark": -told.detach()}


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """A step down a loss, of these parameters alone."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
