"""Time, memory and error of one rehearsal step, against double backward and against a plain training step.

    python benchmarks/hypergradient.py --json

One run measures, for each net, everything that its ratios compare. Every measurement has a fresh process of its own.

- Time: medians over all steps after one to warm up; variants take turns in rounds, so that slow spells of a shared
  machine hit them all.
- Memory: what one step adds, at its peak, to what is there between steps (models, momentum, the student's state; the
  same for all variants). On a GPU the allocator's peak. On a CPU the high-water mark of the resident set, reset after a
  step to warm up, with glibc told to give every block over 64 KiB a mapping of its own: then freed memory leaves the
  resident set at once, and the mark is that of live tensors and scratch space rather than of the heap's fragments.
- Error: relative error of the hypergradient, on nets trained for a few steps, against double backward in float64; in
  float32 (median of three batches) and in float64. On ReLU networks float32 itself is off, however it differentiates,
  when units change sides by rounding; the row of ``double_backward`` shows by how much.

Variants: ``forward`` and ``difference`` are the two ways to the directional derivative, ``*_one_graph`` keeps one
autograd graph alive at a time; ``double_backward`` is the papers' way (create_graph=True); ``plain_step`` one training
step of the target on the same batch. All but the last give the direction of eq. 9 of T2S (arXiv 2606.11698) with
triggers a quarter of the batch, and all end with a step of SGD with momentum.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from heirmark.models import build
from heirmark.models.probing import decision_inputs
from heirmark.rehearsal import Memory, RehearsalStep, Student, Thief, assign, norm, rehearsal_step, student_state
from heirmark.rehearsal.asking import APART
from heirmark.rehearsal.closed_form import Audience, ClosedFormThief, Closing
from heirmark.rehearsal.closed_form_step import closed_form_step
from heirmark.runtime import Runtime
from heirmark.training.samples import Samples
from provenance import provenance as common

VARIANTS: dict[str, dict[str, Any]] = {
    "forward": {"derivative": "forward"},
    "difference": {"derivative": "difference"},
    "forward_one_graph": {"derivative": "forward", "one_graph": True},
    "difference_one_graph": {"derivative": "difference", "one_graph": True},
}
CLOSED = ("closed_form", "closed_form_apart")
DEFAULT = "forward"
RIVALS = ("double_backward", "plain_step")
NETS = ("resnet18-16", "resnet18-64", "vit-small")
ALPHA, WEIGHT, CLASSES, SEED = 0.05, 50.0, 10, 0
ROUNDS, WARM_STEPS, ERROR_DRAWS = 3, 20, 3
QUERIES = 1024
"""That thieves in closed form have asked; a step's cost does not depend on it."""


class Attention(nn.Module):
    """Self-attention over ``[N, T, D]``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.mix, self.out = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix ``[N, T, D]`` over T."""
        query, key, value = self.mix(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class VisionTransformer(nn.Module):
    """A small ViT (arXiv 2010.11929): patches of 4x4, pre-normalised blocks, mean pooling; 2.7 M parameters."""

    def __init__(self, classes: int, dim: int = 192, depth: int = 6, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, 4)
        self.position = nn.Parameter(0.02 * torch.randn(1, 64, dim))
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Sequential(nn.LayerNorm(dim), Attention(dim, heads)),
                    nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)),
                ]
            )
            for _ in range(depth)
        )
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, 3, 32, 32]`` to ``[N, classes]``."""
        tokens = self.patches(inputs).flatten(2).transpose(1, 2) + self.position
        for attention, feed_forward in self.blocks:
            tokens = tokens + attention(tokens)
            tokens = tokens + feed_forward(tokens)
        return self.head(tokens.mean(dim=1))


def make_net(name: str, seed: int) -> nn.Module:
    family, _, width = name.partition("-")
    if family == "resnet18":
        return build("resnet18", input_shape=(3, 32, 32), classes=CLASSES, seed=seed, width=int(width))
    torch.manual_seed(seed)
    return VisionTransformer(CLASSES)


def make_batch(count: int, device: str, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy images around one smooth prototype a class, float32 in [0, 1]."""
    prototypes = F.interpolate(torch.rand(CLASSES, 3, 4, 4, generator=torch.Generator().manual_seed(SEED)), size=32)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    images = (prototypes[labels] + torch.rand(count, 3, 32, 32, generator=generator)) / 2
    return images.to(device, memory_format=torch.channels_last), labels.to(device)


def double_backward(
    teacher: nn.Module, skeleton: nn.Module, state: Student, batch: tuple[Tensor, ...], weights: tuple[float, float]
) -> tuple[dict[str, Tensor], Student]:
    """The gradient for the teacher by reverse mode over reverse mode, and the student's state after its step."""
    inputs, labels, triggers, targets = batch
    leaves = {name: p.detach().requires_grad_() for name, p in state.parameters.items()}
    buffers = {name: b.clone() for name, b in state.buffers.items()}
    answers = teacher(inputs)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be differentiated twice
        skeleton.train()
        distilled = functional_call(skeleton, (leaves, buffers), (inputs,))
        log_teacher, log_student = answers.log_softmax(1), distilled.log_softmax(1)
        theft = (log_teacher.exp() * (log_teacher - log_student)).sum(1).mean()
        slopes = torch.autograd.grad(theft, list(leaves.values()), create_graph=True)
        after = {name: p - ALPHA * slope for (name, p), slope in zip(leaves.items(), slopes, strict=True)}
        skeleton.eval()
        mark = F.cross_entropy(functional_call(skeleton, (after, buffers), (triggers,)), targets)
    total = weights[0] * mark + weights[1] * F.cross_entropy(answers, labels)
    names, parameters = zip(*teacher.named_parameters(), strict=True)
    found = dict(zip(names, torch.autograd.grad(total, parameters), strict=True))
    detached = {name: p.detach() for name, p in after.items()}
    return found, Student(parameters=detached, frozen={}, buffers=buffers)


def rehearsed(
    teacher: nn.Module,
    skeleton: nn.Module,
    state: Student,
    batch: tuple[Tensor, ...],
    *,
    derivative: Any,
    one_graph: bool = False,
    weights: tuple[float, float],
) -> RehearsalStep:
    """Heirmark's step: one direction."""
    inputs, labels, triggers, targets = batch
    return rehearsal_step(
        teacher,
        Thief(skeleton=skeleton, student=state, rate=ALPHA, derivative=derivative),
        utility=Samples(inputs=inputs, targets=labels),
        mark=Samples(inputs=triggers, targets=targets),
        weights=[weights],
        memory=Memory(one_graph=one_graph),
    )


def listening(skeleton: nn.Module, batch: tuple[Tensor, ...], device: str) -> Audience:
    """Thieves in closed form, in the features of a net and in these at half the size, who have heard even answers."""
    queries, _ = make_batch(QUERIES, device, 5)
    runtime = Runtime(device=device, precision="float32")
    asked, shown = (decision_inputs(skeleton, inputs, runtime=runtime).to(device) for inputs in (queries, batch[2]))
    halves = [(asked, shown), (asked[:, ::2], shown[:, ::2])]
    thieves = [ClosedFormThief(a.clone(), b, classes=CLASSES, ridge=0.01) for a, b in halves]
    return Audience(thieves, batch[3], torch.full((QUERIES, CLASSES), 1 / CLASSES, device=device), Closing())


def make_step(net: str, variant: str, batch_size: int, device: str) -> Callable[[], None]:
    """A function that does one whole step, optimiser included, each time it is called."""
    teacher, skeleton = (make_net(net, seed).to(device, memory_format=torch.channels_last).train() for seed in (1, 2))
    state = student_state(skeleton)
    batch = (*make_batch(batch_size, device, 3), *make_batch(batch_size // 4, device, 4))
    optimiser = torch.optim.SGD(teacher.parameters(), 1e-4, momentum=0.9)
    audience = listening(skeleton, batch, device) if variant in CLOSED else None
    chosen, rows = (torch.arange(count, device=device) for count in (batch_size, batch_size // 4))
    weights = [(1.0, WEIGHT)] if variant == "closed_form" else APART

    def step() -> None:
        nonlocal state
        if variant == "plain_step":
            F.cross_entropy(teacher(batch[0]), batch[1]).backward()
        elif audience is not None:
            utility = Samples(inputs=batch[0], targets=batch[1])
            outcome = closed_form_step(teacher, audience, utility=utility, chosen=chosen, rows=rows, weights=weights)
            assign(teacher, gradients=outcome.gradients[0], buffers=outcome.teacher_buffers)
            del outcome
        elif variant == "double_backward":
            found, state = double_backward(teacher, skeleton, state, batch, (1.0, WEIGHT))
            assign(teacher, gradients=found, buffers={})
            del found
        else:
            result = rehearsed(teacher, skeleton, state, batch, weights=(1.0, WEIGHT), **VARIANTS[variant])
            assign(teacher, gradients=result.gradients[0], buffers=result.teacher_buffers)
            state = result.thief.student
            del result
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def measure_time(net: str, variant: str, batch_size: int, device: str, repeats: int) -> list[float]:
    step = make_step(net, variant, batch_size, device)
    step()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def measure_memory(net: str, variant: str, batch_size: int, device: str) -> int:
    step = make_step(net, variant, batch_size, device)
    step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        raise SystemExit("peak memory on a CPU needs Linux with a writable /proc/self/clear_refs") from None
    before = _resident("VmRSS")
    step()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure_error(net: str, batch_size: int, device: str) -> dict[str, dict[str, float]]:
    torch.backends.cudnn.allow_tf32 = False
    teacher, skeleton = (make_net(net, seed).to(device) for seed in (1, 2))
    for model, offset in ((teacher, 100), (skeleton, 200)):
        model.train()
        optimiser = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
        for number in range(WARM_STEPS):
            inputs, labels = make_batch(batch_size, device, offset + number)
            optimiser.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimiser.step()
    found: list[dict[str, dict[str, Tensor]]] = []
    truths: list[dict[str, Tensor]] = []
    for dtype in (torch.float32, torch.float64):
        teacher.to(dtype)
        state = student_state(skeleton.to(dtype))
        for draw in range(ERROR_DRAWS):
            inputs, labels = make_batch(batch_size, device, 300 + draw)
            triggers, targets = make_batch(batch_size // 4, device, 400 + draw)
            batch = (inputs.to(dtype), labels, triggers.flip(-1).to(dtype), (targets + 1) % CLASSES)
            # In float64, double backward is the truth, and one draw shows what is left between it and the others.
            wanted = VARIANTS if dtype == torch.float32 or draw == 0 else {}
            grads = {
                name: rehearsed(teacher, skeleton, state, batch, weights=(1.0, 0.0), **options).gradients[0]
                for name, options in wanted.items()
            }
            double, _ = double_backward(teacher, skeleton, state, batch, (1.0, 0.0))
            found.append({**grads, "double_backward": double})
            if dtype == torch.float64:
                truths.append(double)

    def error(grads: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
        return float(norm(grads[k].double() - truth[k] for k in truth) / norm(truth.values()))

    return {
        name: {
            "relative_error": statistics.median(error(found[draw][name], truths[draw]) for draw in range(ERROR_DRAWS)),
            "relative_error_float64": error(found[ERROR_DRAWS][name], truths[0]),
        }
        for name in (*VARIANTS, "double_backward")
    }


def in_child(job: dict[str, Any], threads: int) -> Any:
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    if job["what"] == "memory":
        env |= {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, str(Path(__file__).resolve()), "--child", json.dumps(job)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"measuring {job} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def child(job: dict[str, Any]) -> None:
    what = job.pop("what")
    measure = {"time": measure_time, "memory": measure_memory, "error": measure_error}[what]
    print(json.dumps(measure(**job)))


def measure_net(net: str, args: argparse.Namespace) -> dict[str, Any]:
    names = [*VARIANTS, *CLOSED, *RIVALS]
    place = {"net": net, "device": args.device}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    rounds = min(ROUNDS, args.repeats)
    for number in range(rounds):
        repeats = args.repeats // rounds + (number < args.repeats % rounds)
        for name in names:
            job = {**place, "what": "time", "variant": name, "batch_size": args.batch, "repeats": repeats}
            seconds[name] += in_child(job, args.threads)
    memory = {
        name: in_child({**place, "what": "memory", "variant": name, "batch_size": args.batch}, args.threads)
        for name in names
    }
    errors = in_child({**place, "what": "error", "batch_size": min(args.batch, 16)}, args.threads)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    rows = {
        name: {
            "seconds": middle[name],
            "seconds_best": min(seconds[name]),
            "peak_mib": memory[name] / 2**20,
            "time_vs_double_backward": middle[name] / middle["double_backward"],
            "memory_vs_double_backward": memory[name] / memory["double_backward"],
            "time_vs_plain_step": middle[name] / middle["plain_step"],
            "memory_vs_plain_step": memory[name] / memory["plain_step"],
            **errors.get(name, {}),
        }
        for name in names
    }
    return {"default": DEFAULT, **rows[DEFAULT], "variants": rows}


def provenance(args: argparse.Namespace) -> dict[str, Any]:
    models = [line for line in _cpu_lines() if line.startswith("model name")]
    return {
        **common(Runtime(device=args.device, precision="float32")),
        "cpu": models[0].split(":", 1)[1].strip() if models else platform.processor(),
        "threads": args.threads,
        "batch": args.batch,
        "triggers": args.batch // 4,
        "error_batch": min(args.batch, 16),
        "repeats": args.repeats,
        "seed": SEED,
        "alpha": ALPHA,
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON rather than a table")
    parser.add_argument("--batch", type=int, default=128, help="clean batch; triggers are a quarter of it")
    parser.add_argument("--repeats", type=int, default=9, help="timed steps of each variant")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--nets", nargs="+", default=list(NETS), help=f"of {', '.join(NETS)}; resnet18-<width>")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch < 8 or args.repeats < 1:
        parser.error("--batch must be at least 8 and --repeats at least 1")
    if args.child:
        child(json.loads(args.child))
        return
    report = {"provenance": provenance(args), "nets": {net: measure_net(net, args) for net in args.nets}}
    text = json.dumps(report, indent=2)
    if args.output:
        args.output.write_text(text + "\n")
    if args.json:
        print(text)
        return
    for net, row in report["nets"].items():
        print(f"\n{net:26} seconds    MiB  time/double  mem/double  time/plain  mem/plain  error    in float64")
        for name, cells in row["variants"].items():
            print(
                f"  {name:24} {cells['seconds']:7.3f} {cells['peak_mib']:6.0f} {cells['time_vs_double_backward']:12.2f}"
                f" {cells['memory_vs_double_backward']:11.2f} {cells['time_vs_plain_step']:11.2f}"
                f" {cells['memory_vs_plain_step']:10.2f}  {cells.get('relative_error', float('nan')):.1e}"
                f"  {cells.get('relative_error_float64', float('nan')):.1e}"
            )


if __name__ == "__main__":
    main()
