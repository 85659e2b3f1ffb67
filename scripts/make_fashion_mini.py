"""Rebuild the embedded miniature of Fashion-MNIST, byte for byte, from Debian's package dataset-fashion-mnist.

    python scripts/make_fashion_mini.py [FOLDER_OF_THE_FOUR_GZ_FILES]

Exact duplicates would be dropped first, also between training and test (the official release has none). Then 2,000
training and 200 test images of every class are drawn, those of smallest salted SHA-256: this needs no random generator,
hence no particular version of one. The images are stored class by class, in official order.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch

from heirmark.data import fashion_mini
from heirmark.data.idx import DEBIAN_FASHION, FASHION_CLASSES, read_idx

SALT = b"heirmark fashion-mini 1"
TARGET = Path(__file__).parent.parent / "src" / "heirmark" / "data" / "embedded" / fashion_mini.FILE


def choose(contents: list[bytes], labels: list[int], banned: set[bytes], size: int) -> list[int]:
    """Positions of ``size`` distinct images that are not banned, balanced over the classes and sorted by class."""
    seen = set(banned)
    pools: list[list[int]] = [[] for _ in FASHION_CLASSES]
    for position, (content, label) in enumerate(zip(contents, labels, strict=True)):
        if content not in seen:
            seen.add(content)
            pools[label].append(position)

    def lot(position: int) -> bytes:
        return hashlib.sha256(SALT + contents[position]).digest()

    return [position for pool in pools for position in sorted(sorted(pool, key=lot)[: size // len(pools)])]


def read(folder: Path, part: str) -> tuple[list[bytes], list[int]]:
    """The bytes and labels of the official training or test images."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz", dims=3)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz", dims=1)
    return [image.tobytes() for image in images.numpy()], labels.to(torch.int64).tolist()


def main(folder: Path, target: Path) -> None:
    """Write the file; fail if it is not the one that the loader expects."""
    train, train_labels = read(folder, "train")
    test, test_labels = read(folder, "t10k")
    in_train = choose(train, train_labels, set(test), fashion_mini.TRAIN)
    in_test = choose(test, test_labels, set(), fashion_mini.TEST)
    packed = fashion_mini.encode(
        train_images=b"".join(train[i] for i in in_train),
        train_labels=bytes(train_labels[i] for i in in_train),
        test_images=b"".join(test[i] for i in in_test),
        test_labels=bytes(test_labels[i] for i in in_test),
    )
    digest = hashlib.sha256(packed).hexdigest()
    target.write_bytes(packed)
    print(f"{target.name}: {len(packed):,} bytes, sha256 {digest}")
    if digest != fashion_mini.SHA256:
        sys.exit(
            "the SHA-256 in heirmark/data/fashion_mini.py differs: use the xz that wrote it, or enter the new value"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEBIAN_FASHION, TARGET)
