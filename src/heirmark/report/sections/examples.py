"""Triggers beside the images that they were made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heirmark.errors import ShapeMismatch
from heirmark.report.section import Gallery, Section, Shown


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One trigger beside the images it was made of.

    Attributes:
        hosts: the images the trigger was made of, each ``[C, H, W]`` uint8; grey, or the first three channels as RGB.
        trigger: ``[C, H, W]`` uint8, sizes may differ from the hosts'.
        control: the matched control ``[C, H, W]`` uint8, or None.
        host_labels: class names of the hosts.
        target: class name that the key expects for the trigger.

    Raises:
        ShapeMismatch: when an image is not uint8 ``[C, H, W]``, or hosts and labels differ in number.
    """

    hosts: tuple[NDArray[np.uint8], ...]
    trigger: NDArray[np.uint8]
    control: NDArray[np.uint8] | None
    host_labels: tuple[str, ...]
    target: str

    def __post_init__(self) -> None:
        images = (*self.hosts, self.trigger) if self.control is None else (*self.hosts, self.trigger, self.control)
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
                raise ShapeMismatch(
                    f"an example image is {image.dtype} {list(image.shape)}: give uint8 [C, H, W], pixels 0..255"
                )
        if len(self.hosts) != len(self.host_labels):
            raise ShapeMismatch(
                f"an example has {len(self.hosts)} hosts and {len(self.host_labels)} labels: give one for each"
            )


def examples(found: Sequence[Example]) -> Iterator[Section]:
    """One section, where there are examples."""
    from heirmark.report.svg import png_uri

    if not found:
        return
    beside = "Each trigger stands beside the ordinary images it was made of. " if found[0].hosts else ""
    gallery = Gallery(
        examples=tuple(
            Shown(
                hosts=tuple((png_uri(host), label) for host, label in zip(each.hosts, each.host_labels, strict=True)),
                trigger=png_uri(each.trigger),
                control="" if each.control is None else png_uri(each.control),
                target=each.target,
            )
            for each in found
        )
    )
    yield Section(
        title="The triggers",
        aside=f"{beside}A marked model answers it with the target label; the matched control comes from the same "
        "images without the trigger, and should not be answered so.",
        parts=(gallery,),
    )
