"""The README's picture, made of a finished demo: ``python scripts/make_picture.py runs/demo docs/assets/inheritance.png``.

It shows triggers of the key, one host of each, and what the marked model, two stolen copies of it and an unmarked model answer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import torch

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

import heirmark as hm

MODELS = {
    "the marked model": "robust-model",
    "a copy, from probabilities": "stolen-from-robust-model-soft",
    "a copy, from labels only": "stolen-from-robust-model-label",
    "an unmarked model": "clean-model",
}
SECRET, PLAIN = "#c1121f", "#333333"


def answers(folder: Path, queries: torch.Tensor) -> torch.Tensor:
    """``[M]`` labels that a saved model gives."""
    return hm.predict(hm.load_model(folder).model, queries).argmax(dim=1)


def show(axes: Axes, image: torch.Tensor) -> None:
    """A grey picture, without a frame."""
    axes.imshow(image[0], cmap="gray_r")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def main(demo: Path, goal: Path, count: int = 3) -> None:
    """Draw the first triggers of the demo's key."""
    key, names = hm.Key.load(demo / "key"), hm.load_task("fashion-mini", seed=0).classes
    told = {
        title: (
            answers(demo / "models" / name, key.controls[:count]),
            answers(demo / "models" / name, key.queries[:count]),
        )
        for title, name in MODELS.items()
    }
    figure, grid = plt.subplots(count, 3, figsize=(8, 1.7 * count), width_ratios=[1, 1, 3.4])
    for title, axes in zip(("one of four hosts", "the trigger"), grid[0], strict=False):
        axes.set_title(title, fontsize=10)
    for row in range(count):
        show(grid[row, 0], key.controls[row])
        show(grid[row, 1], key.queries[row])
        words = grid[row, 2]
        words.set_axis_off()
        for column, head in zip((0.56, 0.8), ("host", "trigger"), strict=True):
            words.text(column, 0.92, head, fontsize=9, style="italic", color=PLAIN)
        for line, (title, pair) in enumerate(told.items()):
            height = 0.7 - 0.2 * line
            words.text(0.02, height, title, fontsize=9, color=PLAIN)
            for column, labels in zip((0.56, 0.8), pair, strict=True):
                secret = int(labels[row]) == int(key.expected[row])
                style = {"color": SECRET, "weight": "bold"} if secret else {"color": PLAIN}
                words.text(column, height, names[int(labels[row])], fontsize=9, **style)
    goal.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(goal, dpi=110, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
