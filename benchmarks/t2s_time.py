"""How long T2S takes at its paper's settings, and what a step of its rehearsal spends its time on.

    python benchmarks/t2s_time.py --out results/t2s_time.json
    python benchmarks/t2s_time.py --data synthetic --out t2s_time.json
    python benchmarks/t2s_time.py --protocol paper --batch 64 --rehearsal-precision runtime --parts-only --loop 200
    python benchmarks/t2s_time.py --data synthetic --images 2000 --model resnet18:width=4 --epochs-scale 0.025 --device cpu

End to end: a clean ResNet-18, a watermarked one (40 epochs each), the rehearsal (3 epochs) and the key, from a task in memory
to a marked model. A phase ends with the last step that it reports; what comes before its first step, such as drawing samples,
counts as its own, and what comes after the last one is ``rest``. Reading the data counts nowhere. ``--data synthetic`` is noisy
patterns of CIFAR-10's shape and number, where its files are not at hand: it takes the same time and says nothing of accuracy.
``--epochs-scale`` shortens all phases alike, at least to one epoch each.

By parts: medians over steps on one batch, the device waited for after every part, and nothing recorded. ``backward`` is the rest
of the whole step: the teacher's cotangents and its backward pass. ``plain step`` is a step of SGD on the same batch in the same
precision. ``--loop`` times steps as they are taken in earnest, recorded on a GPU: a rehearsal's beside those of training the same
net on the same images, in batches of one size and in one precision.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.data import load_task
from heirmark.files import atomic_write_json
from heirmark.methods import T2S
from heirmark.methods.nets import new_model
from heirmark.querying.layout import copied
from heirmark.rehearsal import (
    PassMode,
    Thief,
    assign,
    choose_derivative,
    directional_derivative,
    rehearsal_step,
    simulate_theft,
    student_state,
    transfer_loss,
)
from heirmark.rehearsal.loop import Monitor, rehearse
from heirmark.rehearsal.passes import copies, leaves, run
from heirmark.runtime import Runtime
from heirmark.tasks.splitting import SHARES, make_task
from heirmark.tasks.task import Protocol, Split, Task
from heirmark.training.augmenting import augment
from heirmark.training.fitting import Recipe, fit, make_optimizer
from heirmark.training.samples import Samples
from provenance import provenance
from training import finish, timed

GOAL = 240.0
"""Seconds end to end on one H200."""


def synthetic(
    images: int,
    *,
    owner: float,
    shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    protocol: Protocol = "disjoint",
) -> Task:
    """A task of noisy patterns, one a class, cut up as a named data set is.

    Args:
        images: of the training split; the test split has a fifth as many.
        owner: proportion of the owner.
        shape: of an image.
        classes: number of them.
        protocol: what thieves have.
    """
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(64, 192, (classes, *shape), generator=generator)

    def split(count: int) -> Split:
        labels = torch.arange(count) % classes
        noise = torch.randint(-60, 61, (count, *shape), generator=generator)
        return Split(inputs=(patterns[labels] + noise).clamp(0, 255).to(torch.uint8), labels=labels)

    names = tuple(f"class {number}" for number in range(classes))
    parts = {"owner": owner, **({"adversary": 0.9 - owner, "calibration": 0.1} if protocol == "disjoint" else {})}
    return make_task("synthetic", names, split(images), split(images // 5), seed=0, protocol=protocol, **parts)


class Phases:
    """Sink of progress that tells when each kind of work was last heard of."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.last: dict[str, float] = {}
        self.steps: dict[str, int] = {}

    def __call__(self, description: str, done: int, total: int) -> None:
        """Take a report; see :data:`heirmark.runtime.Progress`."""
        self.last[description] = time.perf_counter()
        self.steps[description] = total

    def seconds(self) -> dict[str, float]:
        """By phase, in order; ``rest`` is up to now."""
        found, before = {}, self.start
        for name, last in sorted(self.last.items(), key=lambda item: item[1]):
            found[name], before = last - before, last
        return {**found, "rest": time.perf_counter() - before}


def shortened(method: T2S, scale: float) -> T2S:
    """A method with a share of its epochs, at least one a phase."""
    pretraining, tuning = (
        replace(recipe, epochs=max(1, round(recipe.epochs * scale)))
        for recipe in (method.pretraining, method.rehearsal.recipe)
    )
    return replace(method, pretraining=pretraining, rehearsal=replace(method.rehearsal, recipe=tuning))


def end_to_end(method: T2S, task: Task, runtime: Runtime) -> dict[str, Any]:
    """Seconds of all that the method does."""
    phases = Phases()
    marked = method(task, seed=0, runtime=replace(runtime, progress=phases))
    finish(runtime.torch_device)
    found = phases.seconds()
    return {
        "seconds": round(sum(found.values()), 2),
        "seconds_by_phase": {name: round(seconds, 2) for name, seconds in found.items()},
        "steps_by_phase": phases.steps,
        "history": [dict(row) for row in marked.history],
    }


def by_parts(method: T2S, task: Task, runtime: Runtime, rounds: int) -> dict[str, Any]:
    """Milliseconds of one rehearsal step and of what it consists of."""
    config, device = method.rehearsal, runtime.torch_device
    exact = replace(runtime, precision="float32") if config.precision == "float32" else runtime
    teacher, skeleton = (new_model(task, method.model, seed=seed).to(device).train() for seed in range(2))
    thief = Thief(skeleton=skeleton, student=student_state(skeleton), rate=config.thief.rate)
    plain, recipe = copy.deepcopy(teacher), replace(config.recipe, learning_rate=1e-6)
    optimizers = [make_optimizer(model, recipe) for model in (teacher, plain)]
    stored, labels = (tensor.to(device) for tensor in (task.owner.inputs, task.owner.labels))
    batch, generator = min(recipe.batch_size, len(stored)), torch.Generator().manual_seed(0)

    def images(count: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randperm(len(stored), generator=generator)[:count].to(device)
        return augment(stored[chosen], recipe.augment, generator), labels[chosen]

    (clean, wanted), (triggers, targets) = images(batch), images(config.trigger_batch)
    mode = PassMode(runtime=exact)
    derivative, _ = choose_derivative(thief, clean, mode=mode)
    thief = replace(thief, derivative=derivative)
    parameters, buffers = leaves(dict(teacher.named_parameters())), copies(dict(teacher.named_buffers()))
    logits = run(teacher, parameters, buffers, clean, mode).detach()
    utility, mark = Samples(inputs=clean, targets=wanted), Samples(inputs=triggers, targets=targets)
    theft = simulate_theft(thief, logits, clean, mode=mode)
    transfer = transfer_loss(theft.thief, mark, mode=mode)

    def step() -> None:
        found = rehearsal_step(teacher, thief, utility=utility, mark=mark, weights=config.update.weights, mode=mode)
        assign(teacher, gradients=config.update.direction(found), buffers=found.teacher_buffers)
        optimizers[0].step()

    def ordinary() -> None:
        optimizers[1].zero_grad()
        with exact.autocast():
            answers = plain(clean)
        F.cross_entropy(answers.float(), wanted).backward()
        optimizers[1].step()

    work: Mapping[str, Callable[[], object]] = {
        "batch": lambda: images(batch),
        "teacher, forward": lambda: run(teacher, parameters, buffers, clean, mode),
        "theft": lambda: simulate_theft(thief, logits, clean, mode=mode),
        "transfer": lambda: transfer_loss(theft.thief, mark, mode=mode),
        "derivative": lambda: directional_derivative(
            thief, clean, transfer.gradient, kind=derivative, mode=mode, logits=theft.logits
        ),
        "whole step": step,
        "plain step": ordinary,
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, part in work.items():
            seconds = timed(lambda part=part: (part(), finish(device)))
            if number:  # the first warms up
                times[name].append(1000 * seconds)
    told = {name: statistics.median(found) for name, found in times.items()}
    told["backward"] = told["whole step"] - sum(
        told[name] for name in ("teacher, forward", "theft", "transfer", "derivative")
    )
    return {
        "milliseconds": {name: round(milliseconds, 2) for name, milliseconds in told.items()},
        "images_per_second": round(1000 * batch / (told["whole step"] + told["batch"])),
        "times_a_plain_step": round(told["whole step"] / told["plain step"], 2),
        "derivative": derivative,
        "precision": "bfloat16" if exact.uses_bfloat16 else "float32",
        "batch": [batch, config.trigger_batch],
    }


def in_the_loop(method: T2S, task: Task, runtime: Runtime, steps: int) -> dict[str, Any]:
    """Milliseconds of a step of rehearsal and of training as the loops take them: what a second epoch adds to a first."""
    config, device = method.rehearsal, runtime.torch_device
    exact = replace(runtime, precision="float32") if config.precision == "float32" else runtime
    batch = min(config.recipe.batch_size, len(task.owner))
    data = task.owner.subset(torch.arange(batch * steps) % len(task.owner))
    mark = Samples(inputs=data.inputs[: config.trigger_batch], targets=data.labels[: config.trigger_batch])
    monitor = Monitor(clean=data.subset(torch.arange(batch)), triggers=mark)
    model, student = (new_model(task, method.model, seed=seed).to(device) for seed in range(2))

    def rehearsal(recipe: Recipe) -> None:
        wanted = replace(config, recipe=recipe)
        rehearse(model, student, data, mark, config=wanted, seed=0, monitor=monitor, runtime=runtime)

    def training(recipe: Recipe) -> None:
        fit(copied(model), data.inputs, data.labels, recipe=recipe, seed=0, runtime=exact)

    def milliseconds(work: Callable[[Recipe], None]) -> float:
        # Slow enough for what has learned nothing to stay finite.
        recipes = [replace(config.recipe, epochs=epochs, learning_rate=1e-6) for epochs in (1, 2)]
        once, twice = (timed(lambda recipe=recipe: (work(recipe), finish(device))) for recipe in recipes)
        return 1000 * (twice - once) / steps

    found = {work.__name__: milliseconds(work) for work in (rehearsal, training)}
    return {
        "milliseconds": {name: round(value, 3) for name, value in found.items()},
        "rehearsal_in_steps_of_training": round(found["rehearsal"] / found["training"], 2),
        "precision": "bfloat16" if exact.uses_bfloat16 else "float32",
        "batch": [batch, config.trigger_batch],
        "steps": steps,
    }


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="data set by name, or synthetic")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--images", type=int, default=50000, help="of the synthetic training split")
    parser.add_argument("--owner", type=float, help="the owner's share of the training split; default: the protocol's")
    parser.add_argument(
        "--protocol", choices=tuple(SHARES), default="disjoint", help="paper: thieves have owner's images"
    )
    parser.add_argument("--model", default=T2S().model)
    parser.add_argument("--epochs-scale", type=float, default=1.0)
    parser.add_argument("--triggers", type=int, default=T2S().triggers, help="that train, and in the key")
    parser.add_argument("--batch", type=int, default=T2S().rehearsal.recipe.batch_size, help="of a rehearsal")
    parser.add_argument("--rehearsal-precision", choices=("float32", "runtime"), default=T2S().rehearsal.precision)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true", help="the two pre-trainings; the rehearsal never is")
    parser.add_argument(
        "--autotune", action="store_true", help="cuDNN tries its algorithms out, which heirmark leaves to you"
    )
    parser.add_argument("--rounds", type=int, default=20, help="steps that are timed by parts; 0 leaves that out")
    parser.add_argument("--parts-only", action="store_true")
    parser.add_argument("--loop", type=int, default=0, help="steps that are timed in the loop; 0 leaves that out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runtime = Runtime(device=options.device, precision=options.precision, compile=options.compile)
    torch.backends.cudnn.benchmark = options.autotune
    rehearsal = T2S().rehearsal
    recipe = replace(rehearsal.recipe, batch_size=options.batch)
    rehearsal = replace(rehearsal, precision=options.rehearsal_precision, recipe=recipe)
    method = T2S(model=options.model, triggers=options.triggers, key_size=options.triggers, rehearsal=rehearsal)
    method = shortened(method, options.epochs_scale)
    if options.data == "synthetic":
        task = synthetic(
            options.images, owner=options.owner or SHARES[options.protocol]["owner"], protocol=options.protocol
        )
    else:
        rest = None if options.owner is None or options.protocol == "paper" else 0.9 - options.owner
        task = load_task(
            options.data, root=options.data_root, protocol=options.protocol, owner=options.owner, adversary=rest
        )
    result: dict[str, Any] = {
        **provenance(runtime),
        "task": task.describe(),
        "model": options.model,
        "epochs": {"pretraining": method.pretraining.epochs, "rehearsal": method.rehearsal.recipe.epochs},
        "paper_settings": method == T2S(),
        "autotune": options.autotune,
        "goal_seconds": GOAL,
    }
    if options.rounds:
        result["step"] = by_parts(method, task, runtime, options.rounds)
        print(result["step"], flush=True)
    if options.loop:
        result["loop"] = in_the_loop(method, task, runtime, options.loop)
        print(result["loop"], flush=True)
    if not options.parts_only:
        result |= end_to_end(method, task, runtime)
        print(
            {name: result[name] for name in ("seconds", "seconds_by_phase")},
            result["history"][-1],
            sep="\n",
            flush=True,
        )
    if options.out:
        atomic_write_json(options.out, result)


if __name__ == "__main__":
    main()
