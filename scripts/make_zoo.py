"""Make the zoo that the package carries: ``python scripts/make_zoo.py``, about half an hour of one core; a second call goes on.

From the embedded images it trains and marks one model (``robust`` with the settings of ``embed --quick``), lets three thieves
steal it, trains twelve innocent models of three families, half of them on the owner's images and half on others, and forges a
key: adversarial triggers against three nets of the accuser's own. A second key has its answers drawn (``heirmark draft``, as
``--quick`` sets it, with a key of twelve queries a group); its model is marked and stolen once, from probabilities, for which
there is room. Everything follows from ``SEED``, which was set before the
first result was seen and is not changed for any. What came out is written beside it, in ``zoo.json``, whatever it is.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import heirmark as hm
from heirmark.attacks.base import brief_retraining
from heirmark.configuration import to_json
from heirmark.data.zoo import CALIBRATORS, DRAWN, DRAWN_COPY, FORGED, INNOCENTS, MARKED, ZOO
from heirmark.evidence.disclosing import DRAW, REGISTRATION
from heirmark.files import atomic_write_bytes, atomic_write_json
from heirmark.jobs.drafting import draft_stage, grouped
from heirmark.keys.drawing import drawn_answers
from heirmark.keys.making import nonce_from_seed
from heirmark.keys.registration import Registration, digest, register
from heirmark.keys.shards import commitment_to, cut
from heirmark.keys.signing import Signer
from heirmark.models.storage import rounded
from heirmark.profiles import QUICK
from heirmark.runtime import derive_seed, generator_of
from heirmark.stages.provenance import made_here
from heirmark.stages.stage import Stage
from heirmark.stages.store import Event, Store
from heirmark.tasks.storing import decode
from heirmark.verification import Verdict
from heirmark.work.context import Context, exact
from heirmark.work.embedding import embed_stage, train_stage
from heirmark.work.judging import CALIBRATION
from heirmark.work.stealing import Theft, steal_stage

SEED = 21
SPLIT_SEED = 0
QUERIES = 200
"""Of either key; a small key is a small file."""
EACH = 12
"""Queries of each group of the drawn key."""
PROMISE = "the seed of scripts/make_zoo.py"
"""What draws the answers, so that the zoo can be made again. In earnest nobody may know it while the key is registered."""
REGISTERED = datetime(2026, 11, 29, tzinfo=UTC)
NAIVE, VGG, RESNET = "naivenet:batch_norm=true,width={}", "vgg-like:dropout=0.1,width={}", "resnet18:width={}"
WIDTHS = {NAIVE: (32, 16, 24, 20), VGG: (16, 12, 14, 10), RESNET: (8, 6, 8, 6)}
"""Families of the innocent models, which take turns, with the widths of each one's four."""
RECIPES = {
    NAIVE: replace(QUICK.recipe, epochs=5),
    VGG: brief_retraining(QUICK.recipe, epochs=8),
    RESNET: replace(QUICK.recipe, epochs=4),
}
ACCUSER = {NAIVE: 32, VGG: 16, RESNET: 8}
BOUND, STEPS, TARGET = 64, 20, 8
"""Of the forged triggers: how far a pixel may move, of 255; steps of projected gradient descent; the class they are to get."""
STORED = 0.998
"""Share of answers to test images that have to stay the same for weights to be stored in float16."""


def stages(context: Context) -> dict[str, Stage]:
    """What makes each model, by its name in the zoo."""
    method = replace(QUICK.method("robust"), key_size=QUERIES)
    marked = embed_stage(method, context, seed=derive_seed(SEED, "marked"))
    same = QUICK.thieves()[0]
    thieves = {
        "copy-probabilities": Theft(attack=same),
        "copy-label": Theft(attack=same, api=hm.Api(answers="label")),
        "copy-net": Theft(attack=replace(same, model=RESNET.format(8))),
    }
    made = {MARKED: marked}
    for name, theft in thieves.items():
        made[name] = steal_stage(theft, marked, context, seed=derive_seed(SEED, name))
    for place, name in enumerate(INNOCENTS):
        family, data = list(WIDTHS)[place % 3], ("adversary", "owner")[place // 3 % 2]
        model = family.format(WIDTHS[family][place // 3])
        made[name] = trained(model, family, context, name, data=data)
    return made


def drawn_plan(context: Context, kept: Store) -> tuple[dict[str, Stage], Registration]:
    """What makes the model whose key is drawn, and its copy; the draft is made at once, and registered."""
    method, seed = grouped(QUICK.method("robust")), derive_seed(SEED, DRAWN)
    method = replace(method, key_size=EACH * method.trigger.count)
    clean = train_stage(replace(QUICK.unmarked(), model=method.model), context, seed=seed)
    key = hm.Key.load(kept.get(draft_stage(method, context, seed=seed, clean=clean), context).folder / "key")
    registration = register(
        signer=Signer(hashlib.sha256(f"owner of the zoo {SEED}".encode()).digest()),
        commitment=commitment_to(cut(key, 1, drawn=True), drawn=True),
        nonce=key.nonce,
        method=key.method,
        family=key.kind,
        beacon=PROMISE,
        made=REGISTERED,
    )
    targets = drawn_answers(digest(registration), str(SEED), key.lots.options)
    marking = replace(method, trigger=replace(method.trigger, targets=targets))
    marked = embed_stage(marking, context, seed=seed, clean=clean)
    theft = Theft(attack=QUICK.thieves()[0])
    return {
        DRAWN: marked,
        DRAWN_COPY: steal_stage(theft, marked, context, seed=derive_seed(SEED, DRAWN_COPY)),
    }, registration


def trained(model: str, family: str, context: Context, purpose: str, **changes: Any) -> Stage:
    """A model without a mark."""
    unmarked = replace(QUICK.unmarked(), model=model, pretraining=RECIPES[family], **changes)
    return train_stage(unmarked, context, seed=derive_seed(SEED, purpose))


def forged(nets: list[nn.Module], task: hm.Task) -> hm.Key:
    """A dishonest owner's key, which says of itself what an honest one would: tiles, of the method ``robust``.

    Its triggers are photos altered within ``BOUND`` until all of the accuser's nets say ``TARGET`` (projected gradient descent,
    Madry et al. 2018, arXiv 1706.06083). Other nets say it too; no mark is needed.
    """
    photos = task.calibration.subset(task.calibration.labels != TARGET)
    drawn = torch.randperm(len(photos), generator=generator_of(derive_seed(SEED, "forged")))[:QUERIES]
    hosts = photos.subset(drawn)
    plain = decode(hosts.inputs)
    goal, bound = torch.full((len(plain),), TARGET), BOUND / 255
    moved = torch.zeros_like(plain)
    for _ in range(STEPS):
        moved.requires_grad_(True)
        losses = [nn.functional.cross_entropy(net(plain + moved), goal) for net in nets]
        (slope,) = torch.autograd.grad(torch.stack(losses).sum(), moved)
        with torch.no_grad():
            moved = (moved - 2.5 * bound / STEPS * slope.sign()).clamp(-bound, bound)
            moved = (plain + moved).clamp(0, 1) - plain
    return hm.make_key(
        queries=((plain + moved) * 255).round().to(torch.uint8),
        expected=TARGET,
        controls=hosts.inputs,
        host_labels=hosts.labels,
        classes=task.num_classes,
        method="robust",
        kind="tiles",
        trigger={"kind": "tiles"},
        nonce=nonce_from_seed(derive_seed(SEED, "forged", "nonce")),
    )


def said(net: hm.Net, inputs: Tensor, runtime: hm.Runtime) -> Tensor:
    """Labels ``[N]``."""
    return hm.predict(net.model, inputs, runtime=runtime).argmax(1)


def pack(source: Path, goal: Path, task: hm.Task, runtime: hm.Runtime) -> tuple[hm.Net, float]:
    """Write a model, in float16 where that changes hardly any answer; gives what was written, and the share of like answers."""
    net = hm.load_model(source)
    before = said(net, task.test.inputs, runtime)
    half = {name: torch.float16 for name, each in net.model.state_dict().items() if each.is_floating_point()}
    small = rounded(net, half)
    same = float((said(small, task.test.inputs, runtime) == before).double().mean())
    net = small if same >= STORED else hm.load_model(source)
    hm.save_model(net, goal)
    return net, same


def told(verdict: Verdict) -> dict[str, Any]:
    """What a verdict says, in short."""
    return {name: getattr(verdict, name) for name in ("outcome", "grade", "wsr", "p_value", "null_rate", "flags")}


def judged(
    nets: Mapping[str, hm.Net], key: hm.Key, suspects: list[str], runtime: hm.Runtime
) -> dict[str, dict[str, Any]]:
    """What a key says of models, calibrated by the first innocent ones."""

    def suspect(name: str) -> hm.Suspect:
        return hm.Suspect.from_net(nets[name], runtime=runtime)

    calibration = hm.calibrate([suspect(name) for name in CALIBRATORS], key)
    return {name: told(hm.verify(suspect(name), key, calibration=calibration)) for name in suspects}


def certified(
    nets: Mapping[str, hm.Net], key: hm.Key, registration: Registration, runtime: hm.Runtime
) -> dict[str, dict[str, Any]]:
    """What the drawn key says of every model, without a calibration."""
    facts = ("outcome", "grade", "right", "groups", "p_value", "e_value")
    found = {}
    for name, net in nets.items():
        verdict = hm.verify_drawn(hm.Suspect.from_net(net, runtime=runtime), key, registration, str(SEED))
        found[name] = {fact: getattr(verdict, fact) for fact in facts}
    return found


def main(out: Path, store: Path) -> None:
    """Make what is missing, write all of it, and say what came out."""
    torch.set_num_threads(1)

    def tell(event: Event) -> None:
        if event.what in ("finished", "failed"):
            print(f"{event.name} {event.what} in {event.seconds:.0f} s", file=sys.stderr, flush=True)

    runtime = hm.Runtime(device="cpu")
    task, eyes, kept = hm.load_task("fashion-mini", seed=SPLIT_SEED), exact(runtime), Store(store, on_event=tell)
    context = Context(task=task, runtime=runtime)
    drawn, registration = drawn_plan(context, kept)
    plans = stages(context) | drawn
    models = {name: kept.get(stage, context) for name, stage in plans.items()}
    own = {
        family.format(width): kept.get(trained(family.format(width), family, context, "accuser"), context)
        for family, width in ACCUSER.items()
    }
    shutil.rmtree(out, ignore_errors=True)
    nets, facts = {}, {}
    for name, found in models.items():
        nets[name], same = pack(found.folder, out / name, task, eyes)
        config = plans[name].config
        facts[name] = {
            "accuracy": round(hm.accuracy(nets[name].model, task.test, runtime=eyes), 4),
            "like answers in float16": round(same, 4),
            "seconds": found.record["seconds"],
            "seed": plans[name].seed,
            "made by": to_json(config),
        }
    key, certain = (hm.Key.load(models[name].folder / "key") for name in (MARKED, DRAWN))
    key.save(out / MARKED / "key")
    certain.save(out / DRAWN / "key")
    atomic_write_bytes(out / DRAWN / REGISTRATION, registration.to_json().encode())
    atomic_write_json(out / DRAWN / DRAW, {"beacon": str(SEED)})
    origin = {"data": "fashion-mini", "split_seed": SPLIT_SEED, "digest": task.digest(), "classes": list(task.classes)}
    origin |= {"foreign": None, "foreign_part": "test", "protocol": task.protocol}
    for name in (MARKED, DRAWN):
        atomic_write_json(out / name / "task.json", origin)
    forgery = forged([hm.load_model(found.folder).model for found in own.values()], task)
    forgery.save(out / FORGED / "key")
    by_hand = hm.Calibration(
        hits=(0, 0, 1, 0, 0),
        trials=len(forgery),
        key=forgery.commitment,
        note="5 models trained on fashion-mini without a watermark",
    )
    atomic_write_bytes(out / FORGED / CALIBRATION, by_hand.to_json().encode() + b"\n")
    suspects = [name for name in nets if name not in (*CALIBRATORS, *drawn)]
    record = {
        "made": {"command": "python scripts/make_zoo.py", "seed": SEED, **made_here(runtime)},
        "seconds of training": round(sum(each.record["seconds"] for each in (*models.values(), *own.values()))),
        "models": facts,
        "verdicts of the key": judged(nets, key, suspects, eyes),
        "verdicts of the forged key": judged(nets, forgery, suspects, eyes),
        "verdicts of the drawn key": certified(nets, certain, registration, eyes),
        "files": {
            path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(out.rglob("*"))
            if path.is_file()
        },
    }
    atomic_write_json(out / ZOO, record)
    for path in out.rglob("*.*"):
        path.chmod(0o644)  # keys are written for their owner's eyes alone, and these are everybody's
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 2**20:.1f} MiB")
    for name in suspects:
        mine, theirs = record["verdicts of the key"][name], record["verdicts of the forged key"][name]
        print(
            f"{name:20} ACC {facts[name]['accuracy']:.3f}  WSR {mine['wsr']:.3f} p {mine['p_value']:.1e} {mine['outcome']}"
            f"  forged: {theirs['wsr']:.3f} {theirs['outcome']}"
        )
    for name, verdict in record["verdicts of the drawn key"].items():
        print(
            f"{name:20} drawn: {verdict['right']:2} of {verdict['groups']} p {verdict['p_value']:.1e} {verdict['outcome']}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/heirmark/data/embedded/zoo")
    parser.add_argument("--store", type=Path, default=Path("runs/zoo"), help="where finished stages are kept")
    given = parser.parse_args()
    main(given.out, given.store)
