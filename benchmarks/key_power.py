"""What a key that is chosen for power is worth: of one marked model a plain key and a chosen one, on copies by several thieves.

    heirmark embed --method t2s --quick --model resnet18:width=8 --seed 5 --calibrators 0 --out runs/faint
    python benchmarks/key_power.py runs/faint --out results/key-power.json

The marked model has a mark on tiles. Candidates are drawn of the same secret; shadows choose among them, see
:class:`heirmark.methods.PowerFilter`. The models that calibrate, the copies and the copies of unmarked models that are judged had
no part in the choice: seeds of their own, and thieves ask about their own images. The last thief's net is of a family of which no
shadow is.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from heirmark.console import Bars
from heirmark.files import atomic_write_json
from heirmark.jobs.folder import ModelFolder
from heirmark.keys.key import Key
from heirmark.methods import PowerFilter
from heirmark.methods.base import Prepared, key_from
from heirmark.models.storage import load_model
from heirmark.profiles import QUICK
from heirmark.querying.blackbox import Api
from heirmark.runtime import Runtime, derive_seed
from heirmark.stages.stage import Stage
from heirmark.stages.store import Store
from heirmark.tasks.task import Task
from heirmark.triggers.tiles import TilesSecret
from heirmark.verification import Suspect, calibrate, verify
from heirmark.work.context import Context, exact
from heirmark.work.embedding import train_stage
from heirmark.work.stealing import Theft, steal_stage
from provenance import provenance

THIEVES = ("vgg-like:width=16", "naivenet:batch_norm=true", "resnet18:width=8")
SHADOWS = THIEVES[:2]


def chosen_key(plain: Key, marked: nn.Module, task: Task, chooser: PowerFilter, *, seed: int, runtime: Runtime) -> Key:
    """A key of the same secret and size as a plain one, chosen for power.

    Args:
        plain: a key of tiles.
        marked: the model that it marks.
        task: whose calibration split gives the candidates.
        chooser: the filter.
        seed: of candidates and shadows.
        runtime: of the shadows.
    """
    secret = TilesSecret(sources=tuple(plain.trigger["sources"]), target=plain.trigger["target"])
    drawn = secret.draw(task.calibration, chooser.candidates, seed=derive_seed(seed, "candidates"))
    training = secret.draw(task.owner, 1, seed=0, held_out=False)
    prepared = Prepared(task=task, clean=nn.Identity(), secret=secret, training=training)
    own = derive_seed(seed, "key filter")
    found = chooser(
        drawn, marked, prepared, keep=len(plain), architecture=THIEVES[0], seed=own, runtime=runtime
    )  # the clean model and the architecture are not looked at
    return key_from(found, secret, task, method=plain.method, seed=seed)


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("marked", type=Path, help="folder that heirmark embed wrote, with a mark on tiles")
    parser.add_argument("--candidates", type=int, default=PowerFilter().candidates)
    parser.add_argument("--shadow-epochs", type=int, default=5)
    parser.add_argument("--calibrators", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    chooser = PowerFilter(candidates=options.candidates, thieves=SHADOWS)
    chooser = replace(chooser, recipe=replace(chooser.recipe, epochs=options.shadow_epochs))
    folder = ModelFolder(options.marked)
    if folder.key.kind != TilesSecret.kind:
        parser.error(f"{options.marked} has a key of {folder.key.kind}, and tiles are drawn here")
    with Bars() as bars:
        runtime, task = bars.runtime("auto", "auto"), folder.data().task
        context = Context(task=task, runtime=runtime, folders=(options.marked,))
        store, judging = Store(options.store), exact(runtime)
        marked = folder.net.model
        chosen = chosen_key(folder.key, marked, task, chooser, seed=options.seed, runtime=runtime)
        keys = {"plain": folder.key, "power": chosen}

        def seed(*purpose: str | int) -> int:
            return derive_seed(options.seed, "key power", *purpose)

        def stolen(victim: Stage, net: str, answers: Any, *purpose: str | int) -> Stage:
            theft = Theft(attack=replace(QUICK.knockoff(), model=net), api=Api(answers=answers))
            return steal_stage(theft, victim, context, seed=seed("thief", net, answers, *purpose))

        def built(stage: Stage) -> nn.Module:
            return load_model(store.get(stage, context).folder).model

        how = [QUICK.calibration()[index % QUICK.calibrators] for index in range(options.calibrators + 1)]
        free = [train_stage(each, context, seed=seed("unmarked", index)) for index, each in enumerate(how)]
        judged_free, calibrating = free[-1], free[:-1]
        copied = stolen(calibrating[0], THIEVES[0], "label", "calibrating")
        calibrations = {
            name: calibrate([built(each) for each in (*calibrating, copied)], key, copies=1, runtime=judging)
            for name, key in keys.items()
        }
        suspects: list[tuple[str, str, bool, nn.Module]] = [("the marked model", "", True, marked)]
        for net in THIEVES:
            for answers in ("probabilities", "label") if net in SHADOWS else ("label",):
                copy = built(stolen(folder.model_stage, net, answers))
                suspects.append((f"copy by {net}", answers, True, copy))
        suspects.append(("an unmarked model", "", False, built(judged_free)))
        suspects += [
            (f"copy of an unmarked model by {net}", "label", False, built(stolen(judged_free, net, "label", "control")))
            for net in SHADOWS
        ]
        rows = []
        for name, answers, is_marked, model in suspects:
            row: dict[str, Any] = {"suspect": name, "answers": answers, "marked": is_marked}
            for which, key in keys.items():
                asked = Suspect.from_module(model, classes=key.classes, runtime=judging)
                found = verify(asked, key, calibration=calibrations[which])
                row[which] = {
                    name: getattr(found, name) for name in ("outcome", "wsr", "control_rate", "p_value", "needed")
                }
            rows.append(row)
    result = {
        **provenance(runtime),
        "data": task.name,
        "marked": {"method": folder.key.method, "model": folder.architecture, "commitment": folder.key.commitment},
        "keys": {
            which: {
                "size": len(key),
                "distinct_controls": len(key.independent_pairs()),
                "unmarked_hits": list(calibrations[which].hits),
            }
            for which, key in keys.items()
        },
        "shadows": len(SHADOWS) * (len(chooser.answers) + chooser.unmarked),
        "shadow_epochs": options.shadow_epochs,
        "candidates": options.candidates,
        "rows": rows,
    }
    if options.out:
        atomic_write_json(options.out, result)
    for row in rows:
        print(row["suspect"], row["answers"], *(f"{which}: {row[which]}" for which in keys), sep="\n  ")


if __name__ == "__main__":
    main()
