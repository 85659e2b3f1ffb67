"""Questions and answers on the record: written down while models are asked, and read back in place of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from heirmark.errors import BadArtifact, printable
from heirmark.querying.oracle import ModelFault
from heirmark.querying.transcript import Entry, Transcript
from heirmark.tasks.storing import row_digests
from heirmark.verification.questions import FAILINGS, failing_of, meter
from heirmark.verification.suspects import Suspect

AT_ONCE: Final = 64
"""Inputs a line, at most: what a model has answered is on the disk before it is asked more."""
_ANSWERS = {"kind", "by", "inputs", "labels", "shown"}
_FAULT = {"kind", "by", "words", "shown"}


class Dialogue:
    """What several models are asked, one after another.

    What is found on the record is not asked again, so that an interrupted run goes on and a finished one needs no model. A line
    is ``{"kind": "answers", "by": NAME, "inputs": [DIGEST...], "labels": [CLASS...], "shown": N}``, or of a model that failed
    ``{"kind": "fault", "by": NAME, "words": ..., "shown": N}``, which counts if nothing follows on it.

    Args:
        found: lines that are there, without the head.
        transcript: where new ones go; None asks nobody, and what is not on the record is missing from it.
    """

    def __init__(self, found: Sequence[Entry], transcript: Transcript | None = None) -> None:
        self._found = [entry.said for entry in found]
        self._transcript = transcript
        self._place = 0

    def voice(self, name: str, suspect: Suspect) -> Suspect:
        """A model whose questions and answers are on the record.

        When it is asked, BadArtifact is raised if the record has other questions, or too few.

        Args:
            name: by which the record calls it.
            suspect: the model; where there is no transcript to write it is not asked, and only its shape and classes count.
        """
        shown = 0
        own = suspect.classes if suspect.order is None else len(suspect.order)

        def ask(inputs: Tensor) -> Tensor:
            nonlocal shown
            digests = [digest.hex() for digest in row_digests(inputs)]
            labels: list[int] = []
            while (done := len(labels)) < len(inputs):
                passed, line = self._recorded(name, digests[done:], own)
                shown += passed
                if line is None:
                    line = self._put(name, suspect, inputs[done : done + AT_ONCE], digests[done : done + AT_ONCE])
                shown += line["shown"]
                if line["kind"] == "fault":
                    raise ModelFault(line["words"])
                labels += line["labels"]
            return torch.tensor(labels, dtype=torch.int64)

        return replace(suspect, ask=ask, shown=lambda: shown)

    def finish(self) -> None:
        """Make sure that the record has no more questions than were put.

        Raises:
            BadArtifact: when it has.
        """
        if left := len(self._found) - self._place:
            raise BadArtifact(
                f"the transcript has {left} lines more than the verdict rests on: questions were put that it does not tell of"
            )

    def _recorded(self, name: str, digests: Sequence[str], classes: int) -> tuple[int, Mapping[str, Any] | None]:
        """The next line, if there is one, and how many inputs were shown by failed attempts before it."""
        passed = 0
        while self._place < len(self._found):
            line = self._found[self._place]
            _check(line, name, digests, classes)
            self._place += 1
            if line["kind"] == "answers" or (self._place == len(self._found) and self._transcript is None):
                return passed, line
            passed += line["shown"]
        if self._transcript is None:
            raise BadArtifact(
                f"the transcript ends before {name} has answered all questions: it was cut off, or never finished"
            )
        return passed, None

    def _put(self, name: str, suspect: Suspect, inputs: Tensor, digests: Sequence[str]) -> Mapping[str, Any]:
        assert self._transcript is not None
        shown = meter(suspect)
        said: dict[str, Any]
        try:
            labels = replace(suspect, order=None).labels(inputs).tolist()
            said = {"kind": "answers", "by": name, "inputs": list(digests), "labels": labels}
        except FAILINGS as fault:
            said = {"kind": "fault", "by": name, "words": printable(failing_of(fault)[1])}
        said["shown"] = shown(len(inputs))
        self._transcript.append(said)
        return said


def _check(line: Mapping[str, Any], name: str, digests: Sequence[str], classes: int) -> None:
    """Make sure that a line is one of a model's that was asked just this."""
    kind = line.get("kind")
    inputs, labels, shown = line.get("inputs"), line.get("labels"), line.get("shown")
    sound = isinstance(shown, int) and shown >= 0 and isinstance(line.get("by"), str)
    if kind == "answers":
        sound = (
            sound
            and set(line) == _ANSWERS
            and isinstance(labels, list)
            and isinstance(inputs, list)
            and 0 < len(inputs) == len(labels)
            and all(type(label) is int and 0 <= label < classes for label in labels)
        )
    else:
        sound = sound and kind == "fault" and set(line) == _FAULT and isinstance(line["words"], str)
    if not sound:
        raise BadArtifact("the transcript has a line that is no answer of a model: it was not written by heirmark")
    if line["by"] != name:
        raise BadArtifact(
            f"the transcript has {printable(line['by'])} answer where {name} is to: lines were moved or left out"
        )
    if kind == "answers" and inputs != list(digests[: len(inputs or ())]):
        raise BadArtifact(
            f"the transcript has {name} asked other questions than the key's, or in another order: it is of another key, or was "
            "written anew"
        )
