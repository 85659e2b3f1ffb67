"""Draw a key's answers once its triggers are registered: the draft of a key, and the model that the draw marks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from heirmark.configuration import JSON, from_json, qualified_name, to_json
from heirmark.errors import BadArtifact, BadConfig
from heirmark.evidence.disclosing import DRAW, REGISTRATION, STAMP, read_beacon, read_registration
from heirmark.files import MIB, read_json
from heirmark.jobs.exporting import check_free, export_files
from heirmark.jobs.folder import Data
from heirmark.jobs.means import Work
from heirmark.jobs.starting import Start, ground_of
from heirmark.keys.drawing import drawn_answers
from heirmark.keys.key import Key
from heirmark.keys.registration import Registration, digest
from heirmark.methods import METHODS, Method, Robust, Watermark
from heirmark.models import Factory
from heirmark.stages.stage import Job, Stage
from heirmark.triggers import Groups
from heirmark.verification.certifying import check_drawn
from heirmark.work.context import Context, context_of
from heirmark.work.judging import homes_of, read_key

DRAFT: Final = "draft.json"
"""What marks the model, and by which seed: as secret as the key."""


def grouped(method: Method) -> Watermark:
    """``robust`` for drawn answers: groups of triggers, twenty queries and some sixty training samples of each.

    Raises:
        BadConfig: for another method.
    """
    if not isinstance(method, Robust):
        raise BadConfig("answers are drawn for the method robust: leave --method out")
    trigger = Groups()
    return replace(method, trigger=trigger, triggers=62 * trigger.count, key_size=20 * trigger.count)


def draft_stage(method: Watermark, context: Context, *, seed: int, clean: Stage | None) -> Stage:
    """The key of a method without its answers."""
    return context.stage(run_draft, method, kind="draft", inputs={"clean": clean}, seed=seed)


def run_draft(job: Job) -> Mapping[str, Any]:
    """Write ``key/``; its answers are only the first of the candidates."""
    from heirmark.models.storage import load_model

    context = context_of(job)
    given = {name: load_model(found.folder, factories=context.factories).model for name, found in job.inputs.items()}
    key = job.config.draft(context.task, given.get("clean"), seed=job.seed, runtime=context.runtime)
    key.save(job.folder / "key")
    return {"commitment": key.commitment, "key_size": len(key)}


def draft_job(method: Watermark, data: Data, out: Path, work: Work, *, start: Start | None = None) -> dict[str, Any]:
    """Settle the triggers of a mark whose answers are to be drawn, and write what is registered of it.

    ``out`` gets ``key/``, ``draft.json`` and ``task.json``. All of it is secret.

    Returns:
        Facts to show.

    Raises:
        BadConfig: when ``out`` is not free, or a draw cannot decide about the method's key.
    """
    check_free(out)
    method.check_draft(data.task)
    ground = ground_of(method, data.task, work, start)
    stage = draft_stage(method, ground.context, seed=work.seed, clean=ground.clean)
    kept = work.labelled({stage.name: "settle the triggers"} | ground.labels())
    made = kept.get(stage, ground.context)
    files = {file: made.folder / file for file in made.record["files"]}
    export_files(files, out, data, records={DRAFT: {"method": to_json(method), "seed": work.seed}})
    (out / DRAFT).chmod(0o600)
    key = read_key(out)
    groups = 0 if key.lots is None else len(key.lots.candidates)
    return {"draft": str(out), "groups": groups, "key_size": len(key), "seconds": made.record["seconds"]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Draft:
    """A registered draft, and the number that draws its answers.

    Attributes:
        folder: of the draft.
        method: that marks the model, with the answers that were drawn.
        seed: of the embedding.
        key: of the draft, with the answers that were drawn.
        registration: of it.
        beacon: what drew them.
    """

    folder: Path
    method: Watermark
    seed: int
    key: Key
    registration: Registration
    beacon: str

    @classmethod
    def open(cls, folder: Path, beacon: str, *, factory: Factory | None = None) -> Self:
        """Read a draft and its registration, and draw.

        Args:
            folder: that ``heirmark draft`` wrote, with the registration that ``heirmark commit`` added.
            beacon: the number that came later.
            factory: of a model of the user's own.

        Raises:
            BadArtifact: when something is missing, damaged, or does not belong together.
            BadConfig: for a beacon that is no value.
        """
        record: Any = read_json(folder / DRAFT, max_bytes=MIB) if (folder / DRAFT).is_file() else None
        if not isinstance(record, dict) or set(record) != {"method", "seed"} or type(record["seed"]) is not int:
            raise BadArtifact(f"{folder} holds no draft: make one by heirmark draft")
        known: dict[str, Any] = {kind.__name__: kind for kind in METHODS.values()}
        if factory is not None:
            known[qualified_name(factory)] = factory
        try:
            method = from_json(known, record["method"])
        except BadConfig as error:
            raise BadArtifact(
                f"{folder / DRAFT} is foreign or damaged ({error}): make it anew by heirmark draft"
            ) from error
        registration, key = read_registration(folder), read_key(folder)
        if not isinstance(method, Watermark) or not isinstance(method.trigger, Groups) or key.lots is None:
            raise BadArtifact(f"{folder} holds no key whose answers are drawn: make it anew by heirmark draft")
        targets = drawn_answers(digest(registration), beacon, key.lots.options)
        drawn = key.answered(targets)
        check_drawn(drawn, registration, beacon)
        return cls(
            folder=folder,
            method=replace(method, trigger=replace(method.trigger, targets=targets)),
            seed=record["seed"],
            key=drawn,
            registration=registration,
            beacon=beacon,
        )

    def check(self, made: Key) -> None:
        """Make sure that the key of the marked model is the registered one.

        Raises:
            BadArtifact: when it is another, which would prove nothing.
        """
        if replace(made, trigger=self.key.trigger).commitment != self.key.commitment:
            raise BadArtifact(
                "the model's key is not the registered one: mark it on the machine and with the data that the draft was made with"
            )

    def files(self) -> dict[str, Path]:
        """What goes with the marked model."""
        return {name: self.folder / name for name in (REGISTRATION, STAMP) if (self.folder / name).is_file()}

    def records(self) -> dict[str, JSON]:
        """Likewise."""
        return {DRAW: {"beacon": self.beacon}}


def read_draw(folder: Path) -> tuple[Registration, str] | None:
    """Registration and beacon of a drawn key; None where nothing was drawn.

    Raises:
        BadArtifact: when one of the files is damaged.
    """
    for place in homes_of(folder):
        if beacon := read_beacon(place):
            return read_registration(place), beacon
    return None
