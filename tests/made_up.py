"""Made-up texts for tests."""

from __future__ import annotations

import torch

WORDS = ("good", "bad", "film", "plot", "a", "the", "was", "is", "so", "fine", "dull", "day")


def sentences(count: int, seed: int = 0, classes: int = 2, length: int = 8) -> list[tuple[str, int]]:
    """Texts that say their class by a word of its own."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(count):
        label = number % classes
        words = [WORDS[place] for place in torch.randint(len(WORDS), (length,), generator=generator).tolist()]
        words[int(torch.randint(length, (), generator=generator))] = f"class{label}"
        rows.append((" ".join(words), label))
    return rows
