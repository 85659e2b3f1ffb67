"""The gauntlet: is a copy caught whatever net the thief has, and what does it cost? One recipe for all nets, no setting by hand.

    heirmark bench recipes/gauntlet.py:matrix --block resnet --seed 0 --out parts/resnet-0 --store stages

runs a part; every other victim and seed likewise, today or elsewhere, and then the parts are put together:

    heirmark bench recipes/gauntlet.py:matrix $(printf -- '--rows %s ' parts/*) --out results/bench/gauntlet-matrix

A block is a victim, so that a part is a victim and a seed (``--block``, ``--seed``), or half of one (``--only robust``). Parts
that share a ``--store`` train calibrators and their copies once a seed, and halves steal from the control once. What was
finished is kept, and the same command goes on, so any part can be cut short; with one ``--store`` for all four recipes they
share victims and thefts too. ``--trial`` gives other calibrators, and so no part of the whole.

Hours, of one core that others used as well: a training of 8 epochs over 9,000 images took 24 s (ViT), 29 (VGG-like), 31
(NaiveNet), 70 (ResNet-18) and 131 (WRN-16). Of these a part of ``matrix`` is 24 thefts of each of two marked models and of the
control, and some 20 of the victim's for embedding: by that reckoning 1.2 hours (NaiveNet, VGG-like, ViT), 1.4 (ResNet-18) and
1.7 (WRN-16), after 0.3 for the calibrators of a seed; 21 in all. A part of ``larger`` is 1.2 hours of Fashion-MNIST, 1.8 to 2.3
of CIFAR-10, which wants its files in the data root as thieves of ``matrix`` do; 20 in all. A part of ``rivals`` is 0.7
(NaiveNet) and 1.3 (ResNet-18), 6 in all, and one of ``after_theft`` 0.5 and 1.3, again 6. None of these whole parts has been
timed.

Three of the thieves' nets are families in whose features ``robust`` lets thieves pull (NaiveNet, VGG-like, ResNet-18), and WRN-16
judges there; the ViT alone is none of its. Each net of a thief has weights of its own.

What counts is the share of usable copies that are called marked, see :mod:`heirmark.results.catches`: the page begins with it.
Every theft is done to the first control too, and judged by the same key: those verdicts count false alarms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from common import Bench, block, quick, thefts
from heirmark.attacks import Pruning
from heirmark.grids import Block, Grid
from heirmark.grids.fitting import quick_attacks
from heirmark.grids.recipes import Scale
from heirmark.methods import T2S, Method
from heirmark.profiles import FULL, QUICK, Profile
from heirmark.querying.blackbox import AnswerKind, Api
from heirmark.triggers import Tiles
from heirmark.work.altering import Alteration
from heirmark.work.stealing import Theft
from heirmark.work.trials import Trial

OTHER = "cifar10"
"""What else thieves ask about: its training images."""
CALIBRATORS = 10
"""So many that ten are left where some did not learn, as VGG-like nets without BatchNorm do not at every third seed: of fewer
than ten no null is below 1/C."""
MARKS = ("robust", "t2s")
"""The default, and T2S with the settings of ``--quick``."""
ANSWERS: tuple[tuple[AnswerKind, str], ...] = (("probabilities", "soft"), ("label", "label"))
NETS = {
    "NaiveNet": "naivenet:batch_norm=true",
    "VGG-like": "vgg-like:width=16",
    "ResNet-18": "resnet18:width=8",
    "WRN-16": "wrn-16-4:factor=1",
    "ViT": "vit-s:patch=7,dim=48,depth=3,heads=3",
}
"""Victims and thieves, small enough for a CPU."""
WIDE = {**NETS, "ResNet-18": "resnet18:width=16"}
"""Those for photographs."""
WHOLE = {
    "NaiveNet": "naivenet:batch_norm=true",
    "VGG-like": "vgg-like",
    "ResNet-18": "resnet18",
    "WRN-16": "wrn-16-4",
    "ViT": "vit-s",
}
"""The papers' nets, which want a GPU."""
FEW = ("NaiveNet", "VGG-like", "ResNet-18")
REMOVED = ("fine-tuning", "pruning", "int8", "wrk", "mark-erase")
"""What thieves try on their copies: pruning takes half of the weights."""

PHOTOGRAPHS = replace(FULL, data="cifar10", recipe=replace(FULL.recipe, epochs=10, augment="crop-flip"))
"""CIFAR-10, where ten epochs of a small net do."""
PAPER = replace(PHOTOGRAPHS, recipe=replace(FULL.recipe, epochs=40, augment="crop-flip"))


def matrix(scale: Scale) -> Grid:
    """Five nets as victims, each stolen by every one of them, with fresh images and with another data set's."""
    base, nets = (QUICK, NETS) if scale == "cpu" else (PAPER, WHOLE)
    other = OTHER if scale == "cpu" else "cifar100"
    blocks = []
    for name in nets:
        bench = _bench(base, nets, name)
        trials = [*_by(bench, nets), *_by(bench, nets, pool=other), *thefts(bench, "jbda"), *_again(bench)]
        blocks.append(_block(name, bench, _marks(base, nets, name, *MARKS), trials, pools=(other,)))
    return _grid("matrix", "Every net steals from every net", *blocks)


def larger(scale: Scale) -> Grid:
    """Three nets on all of Fashion-MNIST and on CIFAR-10, each stolen by every one of them; the default alone."""
    sets = {"Fashion-MNIST": (FULL, NETS), "CIFAR-10": (PHOTOGRAPHS, WIDE)}
    if scale == "paper":
        sets = {"Fashion-MNIST": (replace(PAPER, data="fashion-mnist"), WHOLE), "CIFAR-10": (PAPER, WHOLE)}
    blocks = []
    for data, (base, every) in sets.items():
        nets = {name: every[name] for name in FEW}
        for name in nets:
            bench = _bench(base, nets, name)
            blocks.append(_block(f"{data}, {name}", bench, _marks(base, nets, name, "robust"), _by(bench, nets)))
    return replace(_grid("larger", "More data, wider nets", *blocks), seeds=(0, 1))


def rivals(scale: Scale) -> Grid:
    """Other marks, and a fingerprint that trains nothing, on two victims, stolen by the same net and by a VGG-like one."""
    base, nets = (QUICK, NETS) if scale == "cpu" else (PAPER, WHOLE)
    names = ("robust", "t2s", "ssw-s", "deeptracer", "mea-defender", "vanilla", "fingerprint")
    blocks = []
    for name in ("NaiveNet", "ResNet-18"):
        bench = _bench(base, nets, name)
        marks = {**_marks(base, nets, name, *names), "t2s, its paper's settings": T2S(model=nets[name])}
        blocks.append(_block(name, bench, marks, _by(bench, {each: nets[each] for each in (name, "VGG-like")})))
    return _grid("rivals", "The default and its rivals", *blocks)


def after_theft(scale: Scale) -> Grid:
    """What is left once a thief works on his copy: tuning, pruning, int8, and two removals published against such marks."""
    base, nets = (QUICK, NETS) if scale == "cpu" else (PAPER, WHOLE)
    blocks = []
    for name in ("NaiveNet", "ResNet-18"):
        bench = _bench(base, nets, name)
        copies = _by(bench, {each: nets[each] for each in (name, "VGG-like")})
        trials = [*copies, *(trial for copy in copies for trial in _altered(copy, bench))]
        blocks.append(_block(name, bench, _marks(base, nets, name, *MARKS), trials))
    return _grid("after-theft", "Copies that are worked on", *blocks)


def _profile(base: Profile, nets: Mapping[str, str], victim: str) -> Profile:
    """One victim's; unmarked models of every net that a suspect may be calibrate, trained as all nets are."""
    return replace(base, model=nets[victim], calibration_recipe=base.recipe, calibration_models=tuple(nets.values()))


def _bench(base: Profile, nets: Mapping[str, str], victim: str) -> Bench:
    return quick(_profile(base, nets, victim))


def _marks(base: Profile, nets: Mapping[str, str], victim: str, *names: str) -> dict[str, Method]:
    """Methods with the settings of small machines."""
    profile = _profile(base, nets, victim)
    return {name: profile.method(name) for name in names}


def _by(bench: Bench, nets: Mapping[str, str], *, pool: str = "") -> list[Trial]:
    """Knockoff by every net, which learns as its victim did; of another data set as many images as the adversary has."""
    steal = replace(bench.knockoff, queries=9000 if pool and bench.data == QUICK.data else None)
    asked = {"pool": pool} if pool else {}
    return [
        Trial(
            name=f"{name}{f' with {pool}' if pool else ''}, {short}",
            group=f"Knockoff with images of {pool}" if pool else "Knockoff",
            steps=(Theft(attack=replace(steal, model=model), api=Api(answers=answers), **asked),),
        )
        for name, model in nets.items()
        for answers, short in ANSWERS
    ]


def _again(bench: Bench) -> list[Trial]:
    """A copy of a copy, by two thieves with the victim's net."""
    thieves = {short: Theft(attack=bench.knockoff, api=Api(answers=answers)) for answers, short in ANSWERS}
    return [
        Trial(name=f"second extraction, {short}", group="Second extraction", steps=(thief, thief))
        for short, thief in thieves.items()
    ]


def _altered(copy: Trial, bench: Bench) -> list[Trial]:
    """A copy after every removal."""
    quick = quick_attacks(bench.recipe) | {"pruning": Pruning(rate=0.5)}
    return [
        Trial(name=f"{copy.name}, then {name}", group=name, steps=(*copy.steps, Alteration(attack=quick[name])))
        for name in REMOVED
    ]


def _block(
    name: str, bench: Bench, marks: Mapping[str, Method], trials: list[Trial], *, pools: tuple[str, ...] = ()
) -> Block:
    return block(name, bench, marks, trials, pools=pools, trigger=Tiles(), calibrators=CALIBRATORS)


def _grid(name: str, title: str, *blocks: Block) -> Grid:
    return Grid(name=f"gauntlet-{name}", title=title, blocks=blocks)
