"""Identities of a chain of stages, after each of several edits of a copy of the package; run as a script by ``test_identity``.

Reads from standard input one JSON document: ``[[{"path": ..., "old": ..., "new": ...}, ...], ...]``, paths in the package's
folder, whose parent is the first argument; ``old`` is a pattern that matches once, or None, which writes a new file. Prints the
identities before the first edits and after each.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path


def identities() -> dict[str, str]:
    """By stage, of the code as it stands now."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "heirmark"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    import torch

    import heirmark as hm
    from heirmark.work.altering import Alteration, alter_stage
    from heirmark.work.context import Context
    from heirmark.work.embedding import embed_stage, train_stage
    from heirmark.work.judging import calibrate_stage, verify_stage
    from heirmark.work.stealing import Theft, steal_stage

    def split(number: int) -> hm.Split:
        return hm.Split(inputs=torch.full((4, 1, 16, 16), number, dtype=torch.uint8), labels=torch.arange(4) % 2)

    task = hm.Task(
        name="grey", classes=("a", "b"), owner=split(1), adversary=split(2), calibration=split(3), test=split(4)
    )  # fmt: skip
    context = Context(task=task, runtime=hm.Runtime(device="cpu", precision="float32"))
    plain = hm.Unmarked(model="naivenet:width=2")
    clean = train_stage(plain, context, seed=0)
    marked = embed_stage(hm.T2S(model="naivenet:width=2", trigger=hm.Tiles()), context, seed=0, clean=clean)
    stolen = steal_stage(Theft(attack=hm.Knockoff(model="naivenet:width=2")), marked, context, seed=0)
    pruned = alter_stage(Alteration(attack=hm.Pruning()), stolen, context, seed=0)
    calibration = calibrate_stage(marked, [train_stage(plain, context, seed=1)], context)
    verdict = verify_stage(pruned, marked, calibration, context)
    stages = {
        "train": clean, "embed": marked, "steal": stolen, "prune": pruned, "calibrate": calibration, "verify": verdict,
    }  # fmt: skip
    return {name: stage.identity for name, stage in stages.items()}


def main() -> None:
    """Edit and print."""
    root = Path(sys.argv[1])
    sys.path.insert(0, str(root))
    found = [identities()]
    assert Path(sys.modules["heirmark"].__file__ or "").is_relative_to(root)
    for edits in json.load(sys.stdin):
        for edit in edits:
            file = root / "heirmark" / edit["path"]
            text, times = edit["new"], 1
            if edit["old"] is not None:
                text, times = re.subn(edit["old"], edit["new"], file.read_text())
            assert times == 1, edit
            file.write_text(text)
        found.append(identities())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
