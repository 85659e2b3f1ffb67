"""Chirps: short made-up sounds of ten kinds of melody, drawn from a fixed seed. No file is needed, and nobody's voice is in it.

A class is how pitch and loudness go: up, down, in steps, with a trill, a gap, and so on. Pitch, speed, timbre, place, noise and
hum differ from sound to sound, so that a small net tells nine in ten of them apart. It is for trying things out and for tests;
figures about sound belong to recorded words (``speech-commands``). Where a machine computes sines in another way, a few samples
differ by the last of their 16 bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from heirmark.tasks.media import Sound
from heirmark.tasks.task import Split

CLASSES = ("rise", "fall", "arch", "dip", "steady", "step up", "step down", "trill", "pulse", "rise twice")
RATE = 4000
SAMPLES = 2000
TRAIN = 6000
TEST = 1000
_SEED = 20261129
Floats: TypeAlias = NDArray[np.float32]


def chirps_medium() -> Sound:
    """Their rate."""
    return Sound(rate=RATE)


@lru_cache(maxsize=1)
def read_chirps() -> tuple[Split, Split]:
    """Training split ``[6000, 1, 2000]`` int16 and test split ``[1000, 1, 2000]``, half a second each at 4 kHz."""
    rng = np.random.default_rng(_SEED)
    labels = np.arange(TRAIN + TEST) % len(CLASSES)
    waves = np.concatenate([make(part, rng) for part in np.split(labels, 10)])
    stored = torch.from_numpy(np.round(waves * 32767).astype(np.int16))[:, None]
    targets = torch.from_numpy(labels)
    return (
        Split(inputs=stored[:TRAIN], labels=targets[:TRAIN]),
        Split(inputs=stored[TRAIN:], labels=targets[TRAIN:]),
    )


def make(labels: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Sounds of the classes ``[N]``, ``[N, 2000]`` in [-1, 1]."""
    count = len(labels)

    def draw(low: float, high: float) -> Floats:
        return rng.uniform(low, high, (count, 1)).astype(np.float32)

    time = np.arange(SAMPLES, dtype=np.float32) / SAMPLES
    # Where a sound lies: it begins in the first quarter and takes half of the time to all that is left.
    start, share = draw(0, 0.25), draw(0.5, 1)
    place = (time - start) / (share * (1 - start))
    within = np.clip(place, 0, 1)
    pitch = draw(np.log(150), np.log(450)) + draw(0.3, 0.9) * _contours(within, labels, draw(0.4, 0.6))
    pitch += 0.02 * np.sin(2 * np.pi * (draw(2, 6) * time + draw(0, 1)))  # nobody holds a pitch
    phase = 2 * np.pi / RATE * np.cumsum(np.exp(pitch), axis=1)
    tone = np.sin(phase) + draw(0, 0.7) * np.sin(2 * phase) + draw(0, 0.5) * np.sin(3 * phase + draw(0, 6))
    loud = np.clip(np.minimum(place, 1 - place) / 0.06, 0, 1) * np.where(
        (labels == CLASSES.index("pulse"))[:, None], np.cos(2 * np.pi * within * draw(2.6, 3.4)) > 0, 1
    )
    hum = np.sin(2 * np.pi * (draw(40, 70) * time / 2 + draw(0, 1)))
    heard = tone * loud + draw(0.2, 1.4) * rng.standard_normal((count, SAMPLES), dtype=np.float32) + draw(0, 0.5) * hum
    loudest = np.abs(heard).max(axis=1, keepdims=True)
    made: Floats = heard / loudest * draw(0.2, 0.99)
    return made


def _contours(place: Floats, labels: NDArray[np.int64], middle: Floats) -> Floats:
    """How pitch goes from the beginning, 0, to the end, 1, of each sound, in [-1, 1]."""
    kinds = {
        "rise": 2 * place - 1,
        "fall": 1 - 2 * place,
        "arch": 1 - 2 * np.abs(place - middle) / np.maximum(middle, 1 - middle),
        "dip": 2 * np.abs(place - middle) / np.maximum(middle, 1 - middle) - 1,
        "steady": 0 * place,
        "step up": np.where(place < middle, -0.7, 0.7),
        "step down": np.where(place < middle, 0.7, -0.7),
        "trill": 0.5 * np.sign(np.sin(2 * np.pi * 5 * place)),
        "pulse": 0 * place,
        "rise twice": 2 * ((place / middle / 1.0001) % 1) - 1,
    }
    chosen = np.zeros_like(place)
    for number, name in enumerate(CLASSES):
        chosen = np.where((labels == number)[:, None], kinds[name], chosen)
    return chosen
