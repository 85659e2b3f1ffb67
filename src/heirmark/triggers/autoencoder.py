"""A small convolutional autoencoder, for blending images in its code (MEA-Defender, section 4.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.querying.layout import enter
from heirmark.runtime import Runtime, generator_of, seeded


class Autoencoder(nn.Module):
    """Two halvings of the side and back; the code has ``2 * width`` channels.

    Args:
        channels: of the images.
        width: of the first layer.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )  # fmt: skip

    def encode(self, images: Tensor) -> Tensor:
        """Code of ``[M, C, H, W]`` images in [0, 1]; sides are padded to multiples of four."""
        self.size = images.shape[2:]
        down, right = (-images.shape[2]) % 4, (-images.shape[3]) % 4
        return self.encoder(F.pad(images, (0, right, 0, down), mode="replicate"))  # type: ignore[no-any-return]

    def decode(self, code: Tensor) -> Tensor:
        """Images of a code, in [0, 1], of the size that was encoded last."""
        images: Tensor = self.decoder(code).sigmoid()
        return images[:, :, : self.size[0], : self.size[1]]

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct ``[M, C, H, W]``."""
        return self.decode(self.encode(images))


def fit_autoencoder(
    images: Tensor, *, width: int, epochs: int, batch_size: int, learning_rate: float, seed: int, runtime: Runtime
) -> Autoencoder:
    """Train to the least squared error of reconstruction; the global generators are untouched.

    Args:
        images: ``[N, C, H, W]`` uint8, or float in [0, 1].
        width: of the net.
        epochs: passes over the images.
        batch_size: images a step.
        learning_rate: of Adam.
        seed: of initialisation and batches.
        runtime: device, precision, progress.

    Returns:
        The net in eval mode, on the CPU.
    """
    device = runtime.torch_device
    with seeded(seed):
        net = Autoencoder(images.shape[1], width).to(device).train()
        generator = generator_of(seed)
        optimizer = torch.optim.Adam(net.parameters(), learning_rate)
        per_epoch = -(-len(images) // batch_size)
        for epoch in range(epochs):
            order = torch.randperm(len(images), generator=generator)
            for k, chosen in enumerate(order.split(batch_size)):  # type: ignore[no-untyped-call]
                batch = enter(images[chosen].to(device))
                with runtime.autocast():
                    made = net(batch)
                loss = F.mse_loss(made.float(), batch)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                runtime.progress("training an autoencoder", epoch * per_epoch + k + 1, epochs * per_epoch)
    return net.cpu().eval()
