"""The small convolutional nets of the papers: NaiveNet and the VGG-like net."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from heirmark.models.layers import BuiltIn, Door


class NaiveNet(BuiltIn):
    """Two convolutional and two fully connected layers, the Fashion-MNIST victim of DeepTracer (arXiv 2511.08985).

    The paper gives the layer count only; kernel size and widths are ours. ``batch_norm=True`` is an option, not the
    paper's: it trains in a few epochs at a learning rate at which the plain net diverges, and rehearsal costs it
    hardly any accuracy.

    Args:
        input_shape: ``(C, H, W)`` with H, W of at least 16.
        classes: number of logits.
        width: channels of the first convolution; the second has twice as many.
        hidden: units of the first fully connected layer, which are the features.
        batch_norm: normalise after both convolutions.
        padded: zeros around each convolution's input, so that it sees the border in as many places as the middle.
    """

    smallest: ClassVar[int] = 16

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        *,
        width: int = 32,
        hidden: int = 128,
        batch_norm: bool = False,
        padded: bool = False,
    ) -> None:
        super().__init__()
        channels, height, side = input_shape

        def block(inner: int, outer: int) -> list[nn.Module]:
            norm: list[nn.Module] = [nn.BatchNorm2d(outer)] if batch_norm else []
            convolution = nn.Conv2d(inner, outer, 5, padding=2 if padded else 0, bias=not batch_norm)
            return [convolution, *norm, nn.ReLU(), nn.MaxPool2d(2)]

        def shrink(length: int) -> int:
            lost = 0 if padded else 4
            return ((length - lost) // 2 - lost) // 2

        flat = 2 * width * shrink(height) * shrink(side)
        self.features = nn.Sequential(
            Door(),
            *block(channels, width),
            *block(width, 2 * width),
            nn.Flatten(),
            nn.Linear(flat, hidden),
            nn.ReLU(),
        )
        self.head = nn.Linear(hidden, classes)


class AlexNet(BuiltIn):
    """Five convolutional and three fully connected layers, for small images.

    DeepTracer's surrogate (arXiv 2511.08985) and a thief's net in MEA-Defender (arXiv 2401.15239), after AlexNet
    (Krizhevsky 2012), whose strides are for images of 224 pixels: here the first layer has none, and there are fewer hidden
    units.

    Args:
        input_shape: ``(C, H, W)`` with H, W of at least 8.
        classes: number of logits.
        width: channels of the first convolution; the others have 3, 6, 4 and 4 times as many, as in the original.
        hidden: units of the first two fully connected layers; 4096 in the original.
        dropout: probability of dropping a hidden unit.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        *,
        width: int = 64,
        hidden: int = 1024,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels, height, side = input_shape
        self.features = nn.Sequential(
            Door(),
            nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 3 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(3 * width, 6 * width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(6 * width, 4 * width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout), nn.Linear(4 * width * (height // 8) * (side // 8), hidden), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(hidden, classes)


class VGGLike(BuiltIn):
    """Four convolutional and three fully connected layers with dropout and no BatchNorm.

    The CIFAR-10 victim of MEA-Defender (arXiv 2401.15239) and DeepTracer, after Composite (Lin 2020).

    Args:
        input_shape: ``(C, H, W)`` with H, W of at least 12.
        classes: number of logits.
        width: channels of the first two convolutions; the other two have twice as many.
        hidden: units of the first two fully connected layers.
        dropout: probability of dropping a hidden unit.
    """

    smallest: ClassVar[int] = 12

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        *,
        width: int = 32,
        hidden: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels, height, side = input_shape

        def block(inner: int, outer: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inner, outer, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(outer, outer, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]

        def shrink(length: int) -> int:
            return ((length - 2) // 2 - 2) // 2

        self.features = nn.Sequential(
            Door(),
            *block(channels, width),
            *block(width, 2 * width),
            nn.Flatten(),
            nn.Linear(2 * width * shrink(height) * shrink(side), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(hidden, classes)
