"""Stages that tell a watermark from its look-alikes: how often samples that are mixed otherwise hit (WFPR of MEA-Defender)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heirmark.files import atomic_write_json, read_json
from heirmark.methods import T2S, MEADefender, Method
from heirmark.methods.mea_defender import Way, mix_otherwise
from heirmark.stages.stage import Job, Stage
from heirmark.tasks.combining import REGIONS
from heirmark.triggers import Mix
from heirmark.triggers.combiners import AnyCombiner, usual
from heirmark.work.context import Context, context_of, exact
from heirmark.work.judging import load_suspect, read_key, share

MIXED = "mixed.json"


@dataclass(frozen=True, kw_only=True)
class MixedOtherwise:
    """Samples that only look like the watermark.

    Attributes:
        combiner: of the watermark; ways like it are left out.
        ways: to mix otherwise, in equal parts.
        samples: how many, fresh.
    """

    combiner: AnyCombiner
    ways: tuple[Way, ...] = REGIONS
    samples: int = 1000


def look_alikes(method: Method) -> MixedOtherwise | None:
    """What passes for the watermark of a method but is none; None where it is no mix of two classes.

    Examples:
        >>> look_alikes(MEADefender()).ways[: len(REGIONS)] == REGIONS
        True
    """
    if not isinstance(method.trigger, Mix):
        return None
    own = method.watermark if isinstance(method, T2S) else method
    ways = own.evasion if isinstance(own, MEADefender) else REGIONS
    return MixedOtherwise(combiner=method.trigger.combiner, ways=ways)


def mixed_stage(found: MixedOtherwise, suspect: Stage, marked: Stage, context: Context) -> Stage:
    """How often ``suspect`` gives samples of the source classes of ``marked`` its target, when they are mixed otherwise."""
    return context.stage(run_mixed, found, inputs={"suspect": suspect, "marked": marked})


def run_mixed(job: Job) -> Mapping[str, Any]:
    """Mix images of which no key and no model was made, ask the suspect, and write ``mixed.json``.

    All suspects of a key are asked about the same samples.
    """
    context, found = context_of(job), job.config
    key = read_key(job.inputs["marked"].folder)
    samples, _ = mix_otherwise(
        tuple(key.host_labels[0].tolist()),  # every query is mixed of the same two classes, in the same order
        usual(found.combiner, context.task.space),
        context.task.test,
        found.ways,
        found.samples,
        seed=0,
        runtime=exact(context.runtime),
    )
    answers = load_suspect(job.inputs["suspect"].folder, context).labels(samples)
    rate = share(answers == int(key.expected[0]))
    atomic_write_json(job.folder / MIXED, {"wfpr": rate})
    return {"wfpr": rate}


def read_mixed(folder: Path) -> float:
    """The WFPR that :func:`run_mixed` wrote, 0..1."""
    return float(read_json(folder / MIXED)["wfpr"])
