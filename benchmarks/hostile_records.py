"""Hostile suspects on the record: whatever they do, and wherever the asking is interrupted, no answer is lost."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from heirmark.errors import HeirmarkError
from heirmark.evidence.bundle import TRANSCRIPT
from heirmark.evidence.case import Asked
from heirmark.evidence.disclosing import Disclosed, disclose
from heirmark.evidence.gathering import Model, gather
from heirmark.evidence.rechecking import recheck
from heirmark.keys.registration import register
from heirmark.keys.shards import commitment_to, cut
from heirmark.keys.signing import Signer
from heirmark.querying.transcript import read_transcript
from heirmark.verification import Suspect
from hostile_files import small_key
from hostile_suspects import suspect

LEVEL = 1e-6


@cache
def disclosed() -> Disclosed:
    """A shard of forty queries of a registered key."""
    key = small_key(80)
    made = register(
        signer=Signer(bytes(32)),
        commitment=commitment_to(cut(key, 2)),
        nonce=key.nonce,
        method=key.method,
        family=key.kind,
        shards=2,
        made=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return disclose(key, made, 0)


def interrupted(asked: Suspect, calls: int) -> Suspect:
    """The same suspect; whoever asks it is interrupted before so many calls were answered, once."""
    left = [calls]

    def ask(inputs: Tensor) -> Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return asked.ask(inputs)

    return replace(asked, ask=ask)


def recorded(rng: random.Random, folder: Path) -> str:
    """The outcome on the record, which must be that of who reads the record alone; else the transcript counts as lost."""
    shutil.rmtree(folder, ignore_errors=True)
    asked = suspect(rng.choice(("callable", "module", "black-box")), rng)
    if rng.random() < 0.5:
        asked = interrupted(asked, rng.choice((1, 2)))
    model = Model(told=Asked.of(asked, "stranger:model"), suspect=asked)
    few = rng.random() < 0.3
    try:
        verdict = gather(
            model, disclosed(), folder, signer=Signer(b"\1" * 32), level=LEVEL, accept="assumed", sequential=few
        )
    except KeyboardInterrupt:
        before = read_transcript(folder / TRANSCRIPT)
        torch.set_grad_enabled(True)
        verdict = gather(
            model, disclosed(), folder, signer=Signer(b"\1" * 32), level=LEVEL, accept="assumed", sequential=few
        )
        if read_transcript(folder / TRANSCRIPT)[: len(before)] != before:
            return "lost transcript"
    try:
        found = recheck(folder)
    except HeirmarkError as error:
        raise RuntimeError("an honest record is refused") from error
    return str(verdict.outcome) if found.verdict == verdict else "lost transcript"
