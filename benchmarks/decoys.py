"""How the zoo's secret ranks among decoys: on the marked model, its copies and innocent models.

    python benchmarks/decoys.py --out results/decoys.json

The zoo's tiles were not drawn by a beacon, so that this says how strong the test would be and is no claim: their four source
classes take the place of the first lot of a draw, the other lots are drawn, and the target is the zoo's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import heirmark as hm
from heirmark.files import atomic_write_json
from heirmark.jobs.folder import ModelFolder
from heirmark.verification.ranking import drawn_lots, rank_of
from provenance import provenance

CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10, help="of the other lots")
    parser.add_argument("--lots", type=int, default=50)
    parser.add_argument("--each", type=int, default=20, help="tiles of a lot")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    zoo = hm.load_zoo()
    secret = zoo.key.trigger
    own, target = tuple(secret["sources"]), secret["target"]
    hosts = ModelFolder(Path("zoo:marked")).data().task.test
    decoys = hm.Decoys(hosts=hosts, classes=CLASSES, nonce="0" * 64, lots=given.lots, each=given.each)
    draws = [
        (own, *drawn_lots(bytes(32), str(beacon), classes=CLASSES, lots=given.lots).lots[1:])
        for beacon in range(given.draws)
    ]
    distinct = sorted({sources for lots in draws for sources in lots})
    queries = torch.cat([decoys.tiles(sources) for sources in distinct])
    found = {}
    for name, net in {"marked": zoo.marked, **zoo.copies, **zoo.innocents}.items():
        answers = hm.Suspect.from_module(net.model, classes=CLASSES).labels(queries).view(len(distinct), -1)
        shares = {
            sources: np.bincount(row.numpy(), minlength=CLASSES) / given.each
            for sources, row in zip(distinct, answers, strict=True)
        }
        ranks = [rank_of(np.stack([shares[sources] for sources in lots]), lots, target) for lots in draws]
        p = [rank / candidates for rank, candidates in ranks]
        found[name] = {
            "hits": float(shares[own][target]),
            "hits on other lots": float(np.mean([shares[each][target] for each in distinct if target not in each])),
            "median p": float(np.median(p)),
            "largest p": max(p),
            "smallest p": min(p),
        }
        print(name, found[name], flush=True)
    atomic_write_json(given.out, {**provenance(), "candidates": ranks[0][1], "models": found})


if __name__ == "__main__":
    main()
