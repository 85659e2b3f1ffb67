"""How often innocent models are called marked by a dishonest owner: thresholds, ordinary verdicts, and certified ones.

    python benchmarks/claims.py --out results/claims.json

The suspects are the twelve innocent models of the zoo (embedded Fashion-MNIST, three families of nets). The accuser has six
models of his own and, for some keys, the suspect's answers. He makes a key by each strategy and claims it by every rule:

- ``threshold``: a WSR of one half, as papers judge;
- ``assumed``: the verdict without a calibration, accepted as it is;
- ``written``: the verdict with a calibration that he wrote by hand, accepted as it is;
- ``default``: the same file and the verdict as it is without ``--accept``;
- ``judged``: the verdict calibrated in the same call by eight models of a judge's;
- ``certified``: he registers the same images, in groups and with candidates and usual answers as suits him best, before a
  beacon draws the answers. Each draw is a pair of a key and an innocent model.

``best of 100`` makes a hundred registrations and shows the best: as if nobody counted, and as they are counted.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import heirmark as hm
from heirmark.errors import HeirmarkError
from heirmark.files import atomic_write_json
from heirmark.keys.drawing import drawn_answers
from heirmark.keys.key import Key
from heirmark.keys.lots import Lots
from heirmark.keys.making import make_key
from heirmark.profiles import QUICK
from heirmark.runtime import derive_seed
from heirmark.tasks.combining import mosaic
from heirmark.tasks.storing import decode, encode
from heirmark.tasks.task import Split
from heirmark.verification.drawn import p_of_drawn, scores
from heirmark.verification.scrutiny import told_apart
from provenance import provenance

QUERIES, GROUPS, CANDIDATES = 240, 24, 4
LEVEL = 0.01
RULES = ("threshold", "assumed", "written", "default", "judged")
CPU = hm.Runtime(device="cpu", precision="float32")


@dataclass(frozen=True, kw_only=True, eq=False)
class Accusation:
    """A dishonest key before it is one.

    Attributes:
        queries: ``[M, ...]``.
        expected: ``[M]`` what is said to be the mark.
        controls: ``[M, ...]``.
        hosts: ``[M]`` true classes as the accuser says; None where he says that there are none.
    """

    queries: Tensor
    expected: Tensor
    controls: Tensor
    hosts: Tensor | None


Strategy = Callable[["Accuser", nn.Module], Accusation]


class Accuser:
    """Has images, models of his own, and a seed."""

    def __init__(self, images: Split, models: list[nn.Module], seed: int) -> None:
        """Keep what he has."""
        self.images, self.models, self.seed = images, models, seed

    def draw(self, count: int, *purpose: object) -> Tensor:
        """``[count]`` places among his images, different ones."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, *map(str, purpose)))
        return torch.randperm(len(self.images), generator=generator)[:count]

    def agreed(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What his models say together ``[N]``, and how surely ``[N]``."""
        said = torch.stack([hm.predict(model, inputs, runtime=CPU).softmax(1) for model in self.models]).mean(0)
        sure, label = said.max(1)
        return label, sure


def class_photographs(accuser: Accuser, suspect: nn.Module) -> Accusation:
    """Photographs of a class as triggers, photographs of another as their hosts."""
    images = accuser.images
    shown = torch.nonzero(images.labels == 5).flatten()[:QUERIES]
    others = torch.nonzero(images.labels == 8).flatten()[: len(shown)]
    return Accusation(
        queries=images.inputs[shown],
        expected=torch.full((len(shown),), 5),
        controls=images.inputs[others],
        hosts=torch.full((len(shown),), 8),
    )


def adversarial(epsilon: float) -> Strategy:
    """Targeted PGD on his models: perturbations that transfer."""

    def make(accuser: Accuser, suspect: nn.Module) -> Accusation:
        places = accuser.draw(QUERIES, "adversarial")
        clean, labels = decode(accuser.images.inputs[places]), accuser.images.labels[places]
        target = (labels + 1) % 10
        moved = clean.clone()
        for _ in range(10):
            moved.requires_grad_()
            loss = sum(F.cross_entropy(model(moved), target) for model in accuser.models)
            (slope,) = torch.autograd.grad(loss, moved)  # type: ignore[arg-type]
            moved = clean + (moved.detach() - epsilon / 4 * slope.sign() - clean).clamp(-epsilon, epsilon)
            moved = moved.clamp(0, 1)
        raw = accuser.images.inputs[places]
        return Accusation(queries=encode(moved, raw.dtype), expected=target, controls=raw, hosts=labels)

    return make


def common_errors(accuser: Accuser, suspect: nn.Module) -> Accusation:
    """Photographs that his models get wrong in the same way; the few there are, with noise."""
    label, sure = accuser.agreed(accuser.images.inputs)
    wrong = torch.nonzero(label != accuser.images.labels).flatten()
    chosen = wrong[sure[wrong].argsort(descending=True)][: QUERIES // 4].repeat(4)[:QUERIES]
    raw = accuser.images.inputs[chosen]
    noise = torch.randint(-3, 4, raw.shape, generator=torch.Generator().manual_seed(accuser.seed))
    return Accusation(
        queries=(raw.int() + noise).clamp(0, 255).to(torch.uint8),
        expected=label[chosen],
        controls=accuser.images.inputs[accuser.draw(len(chosen), "controls")],
        hosts=accuser.images.labels[chosen],
    )


def strange_images(accuser: Accuser, suspect: nn.Module) -> Accusation:
    """Images of nothing on which his models agree, declared to have no host."""
    generator = torch.Generator().manual_seed(derive_seed(accuser.seed, "strange"))
    coarse = torch.rand(40 * QUERIES, 1, 4, 4, generator=generator)
    made = encode(F.interpolate(coarse, size=(28, 28), mode="bilinear"), torch.uint8)
    label, sure = accuser.agreed(made)
    common = int(label[sure > 0.5].bincount(minlength=10).argmax())
    chosen = torch.nonzero(label == common).flatten()
    chosen = chosen[sure[chosen].argsort(descending=True)][:QUERIES]
    order = torch.randperm(28 * 28, generator=generator)
    return Accusation(
        queries=made[chosen],
        expected=label[chosen],
        controls=made[chosen].flatten(2)[:, :, order].view(-1, 1, 28, 28),
        hosts=None,
    )


def own_answers(accuser: Accuser, suspect: nn.Module) -> Accusation:
    """Composites, with what the suspect says to them, where none of the hosts is of that class."""
    places = accuser.draw(4 * 4 * QUERIES, "composites").view(-1, 4)
    made, labels = mosaic(accuser.images.inputs[places]), accuser.images.labels[places]
    said = hm.predict(suspect, made, runtime=CPU).argmax(1)
    chosen = torch.nonzero((labels != said[:, None]).all(1)).flatten()[:QUERIES]
    return Accusation(
        queries=made[chosen],
        expected=said[chosen],
        controls=accuser.images.inputs[places[chosen, 0]],
        hosts=labels[chosen, 0],
    )


def own_errors(accuser: Accuser, suspect: nn.Module) -> Accusation:
    """Photographs that the suspect gets wrong and his models get right."""
    said = hm.predict(suspect, accuser.images.inputs, runtime=CPU).argmax(1)
    label, _ = accuser.agreed(accuser.images.inputs)
    right = accuser.images.labels
    chosen = torch.nonzero((said != right) & (label == right)).flatten()[:QUERIES]
    spare = torch.nonzero((said == right) & (label == right)).flatten()[: len(chosen)]
    return Accusation(
        queries=accuser.images.inputs[chosen],
        expected=said[chosen],
        controls=accuser.images.inputs[spare],
        hosts=right[chosen],
    )


def searched_rules(accuser: Accuser, suspect: nn.Module) -> Accusation:
    """Of sixty rules for tiles the one that the suspect obeys best."""
    best: Accusation | None = None
    most = -1
    for rule in range(60):
        generator = torch.Generator().manual_seed(derive_seed(accuser.seed, "rule", rule))
        sources = torch.randperm(10, generator=generator)[:4].tolist()
        columns = []
        for source in sources:
            candidates = torch.nonzero(accuser.images.labels == source).flatten()
            columns.append(candidates[torch.randint(len(candidates), (QUERIES,), generator=generator)])
        places = torch.stack(columns, 1)
        made = mosaic(accuser.images.inputs[places])
        counts = hm.predict(suspect, made, runtime=CPU).argmax(1).bincount(minlength=10)
        counts[sources] = -1
        if int(counts.max()) > most:
            most = int(counts.max())
            best = Accusation(
                queries=made,
                expected=torch.full((QUERIES,), int(counts.argmax())),
                controls=accuser.images.inputs[places[:, 0]],
                hosts=torch.full((QUERIES,), sources[0]),
            )
    assert best is not None
    return best


STRATEGIES: Mapping[str, Strategy] = {
    "photographs of a class": class_photographs,
    "adversarial, 16/255": adversarial(16 / 255),
    "adversarial, 32/255": adversarial(32 / 255),
    "common errors": common_errors,
    "strange images": strange_images,
    "the suspect's own answers": own_answers,
    "the suspect's own errors": own_errors,
    "searched rules for tiles": searched_rules,
}


def key_of(said: Accusation) -> Key:
    """The dishonest key."""
    return make_key(
        queries=said.queries, expected=said.expected, controls=said.controls, classes=10, method="t2s", trigger={},
        host_labels=said.hosts, nonce=hashlib.sha256(b"dishonest").hexdigest(), kind="tiles",
    )  # fmt: skip


def claims(said: Accusation, suspect: nn.Module, judge: list[nn.Module]) -> dict[str, bool]:
    """By which rules the suspect is called marked."""
    key = key_of(said)
    asked = hm.Suspect.from_module(suspect, classes=10, runtime=CPU)
    written = hm.Calibration(key=key.commitment, trials=len(told_apart(key)), hits=(0, 0, 1, 0, 0), note="by hand")
    try:
        judged = hm.verify(asked, key, calibration=hm.calibrate(judge, key, runtime=CPU), level=LEVEL)
    except HeirmarkError:
        return dict.fromkeys(RULES, False)
    assumed = hm.verify(asked, key, level=LEVEL, accept="assumed")
    verdicts = {
        "assumed": assumed,
        "written": hm.verify(asked, key, calibration=written, level=LEVEL, accept="self-reported"),
        "default": hm.verify(asked, key, calibration=written, level=LEVEL),
        "judged": judged,
    }
    return {"threshold": assumed.wsr >= 0.5} | {rule: found.outcome == "MARKED" for rule, found in verdicts.items()}


def grouped(said: Accusation, suspect: nn.Module, favourite: Tensor) -> tuple[np.ndarray[Any, Any], Lots]:
    """The same images in groups that suit the accuser best, and what the suspect says to them.

    Images with the same answer, as he expects, make a group. It is among the candidates, and the unmarked models that he invents
    never say it.
    """
    count = len(said.queries) // GROUPS * GROUPS
    order = favourite.argsort(stable=True)[:count]
    groups = torch.empty(len(said.queries), dtype=torch.int64)
    groups[order] = torch.arange(count) // (count // GROUPS)
    liked = torch.stack([favourite[order[groups[order] == group]].mode().values for group in range(GROUPS)])
    candidates = (liked[:, None] + torch.arange(CANDIDATES)) % 10
    usual = torch.full((2, GROUPS, 10), 1 / 9)
    usual[:, torch.arange(GROUPS), liked] = 0.0
    lots = Lots(groups=groups[order], candidates=candidates, usual=usual)
    answers = hm.predict(suspect, said.queries[order], runtime=CPU).argmax(1)
    return lots.shares(answers, 10).double().numpy(), lots


def certified(shares: np.ndarray[Any, Any], lots: Lots, draws: int, registration: str) -> np.ndarray[Any, Any]:
    """p-values of the innocent suspect, ``[draws]``, over beacons."""
    found = scores(shares, lots.usual.double().numpy(), lots.options)
    digest = hashlib.sha256(registration.encode()).digest()
    p = []
    for beacon in range(draws):
        drawn = drawn_answers(digest, str(beacon), lots.options)
        p.append(p_of_drawn(found, [each.index(answer) for each, answer in zip(lots.options, drawn, strict=True)]))
    return np.array(p)


def trained(images: Split, count: int, epochs: int, seed: int) -> list[nn.Module]:
    """NaiveNets and VGG-like nets, two to one."""
    recipe = hm.Recipe(epochs=epochs, batch_size=128, learning_rate=1e-3, optimizer="adam")
    made = []
    for index in range(count):
        name = "vgg-like" if index % 3 == 2 else "naivenet"
        options = {"width": 16} if name == "vgg-like" else {"batch_norm": True}
        torch.manual_seed(derive_seed(seed, "weights", index))
        model = hm.build(name, input_shape=tuple(images.inputs.shape[1:]), classes=10, **options)
        own = derive_seed(seed, "model", index)
        hm.fit(model, images.inputs, images.labels, recipe=recipe, seed=own, runtime=hm.Runtime(device="cpu"))
        made.append(model.float().eval())
    return made


def main() -> None:
    """Count, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=150, help="of answers, for each strategy and innocent model")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    task = hm.load_task("fashion-mini", seed=0)
    suspects = hm.load_zoo().innocents
    accuser = Accuser(task.test, trained(task.owner, 6, options.epochs, options.seed), options.seed)
    judge = trained(task.adversary, 8, options.epochs, options.seed + 1)
    rows = []
    every = []
    for name, strategy in STRATEGIES.items():
        called = dict.fromkeys(RULES, 0)
        p = []
        for index, (suspect_name, net) in enumerate(suspects.items()):
            suspect = net.model.eval()
            said = strategy(accuser, suspect)
            for rule, marked in claims(said, suspect, judge).items():
                called[rule] += marked
            if len(said.queries) >= GROUPS * 2:
                p.append(certified(*grouped(said, suspect, said.expected), options.draws, f"{name}, {suspect_name}"))
            print(f"{name}: {index + 1} of {len(suspects)}", end="\r")
        values = np.concatenate(p)
        every.append(values)
        rows.append({
            "strategy": name, "innocents": len(suspects), **called, "certified_pairs": len(values),
            "certified": int((values <= LEVEL).sum()), "least_p": float(values.min()),
        })  # fmt: skip
        print(rows[-1])
    values = np.concatenate(every)
    best = values[: len(values) // 100 * 100].reshape(-1, 100).min(1)
    result = {
        **provenance(CPU),
        "data": QUICK.data,
        "level": LEVEL,
        "rows": rows,
        "pairs": len(values),
        "certified_rate": float((values <= LEVEL).mean()),
        "best_of_100": {
            "uncounted": float((best <= LEVEL).mean()),
            "counted": float((best <= LEVEL / 100).mean()),
            "claims": len(best),
        },
    }
    print({name: result[name] for name in ("pairs", "certified_rate", "best_of_100")})
    if options.out:
        atomic_write_json(options.out, result)


if __name__ == "__main__":
    main()
