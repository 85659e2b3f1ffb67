"""From a draft to a certified verdict, on the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from heirmark.keys.key import Key
from heirmark.verification import DrawnVerdict
from test_cli import CPU, MY_WORD, NET, Ran, here, refused, run, settings

__all__ = ["here"]

SMALL = [
    *CPU[:2], *CPU[2:], "--model", NET, "--seed", "0",
    *settings(
        thieves="naivenet:width=4", judges="naivenet:width=3,hidden=8", feature_recipe__epochs=1, trigger__count=24,
        trigger__candidates=3, trigger__samples=10, triggers=240, key_size=240, pretraining__epochs=4, pretraining__batch_size=32,
        pretraining__learning_rate=0.05, rehearsal__recipe__epochs=8, rehearsal__recipe__batch_size=16,
        rehearsal__recipe__learning_rate=0.01, rehearsal__rho=1, rehearsal__accuracy_budget=0.5,
    ),
]  # fmt: skip
MACHINE = ["--device", "cpu", "--precision", "float32"]


def begin(*more: str) -> Ran:
    return run("draft", *SMALL, "--out", "draft", "--store", "store", *more)


def test_a_claim_from_the_draft_to_the_certified_verdict(here: Path) -> None:
    made = begin("--json")
    assert made.code == 0, made.err
    assert made.json["groups"] == 24
    assert "next: heirmark commit draft" in made.err
    refused(run("draw", "draft", "--beacon", "17", "--out", "mine"), 1, "not registered", "heirmark commit")
    key = Key.load(here / "draft/key")
    assert key.lots is not None
    assert key.lots.usual.shape[0] == 2, "the clean model and a finished net of the audience"
    said = ["--signer", "owner.pem", "--shards", "1", "--beacon", "a judge's number"]
    assert run("commit", "draft", *said).code == 0
    drawn = run("draw", "draft", "--beacon", "17", *MACHINE, "--calibrators", "0", "--out", "mine", "--store", "store")
    assert drawn.code in (0, 4), drawn.err
    mine = Key.load(here / "mine/key")
    assert mine.content != key.content
    registered = key.answered(tuple(mine.trigger["targets"]))
    assert replace(mine, trigger=key.trigger).commitment == registered.commitment
    published = ["--registration", "published.json", "--beacon", "17"]
    shutil.copy(here / "draft/registration.json", here / "published.json")
    alone = run("verify", "mine", "--key", "mine", "--json")
    assert (alone.code, alone.json["grade"]) == (3, "self-reported"), "an owner may draw until a draw fits"
    assert "as they were published" in alone.json["reason"]
    assert run("verify", "mine", "--key", "mine", *MY_WORD).code == 0
    assert run("verify", "mine", "--key", "mine", *published[2:]).code == 3
    refused(run("verify", "mine", "--key", "mine", *published[:2], "--beacon", "18"), 1, "second draw")
    shutil.copytree(here / "draft", here / "other", ignore=shutil.ignore_patterns("registration.json"))
    assert run("commit", "other", "--signer", "other.pem", *said[2:]).code == 0
    refused(run("verify", "mine", "--key", "mine", "--registration", "other/registration.json"), 1, "second draw")
    ran = run("verify", "mine", "--key", "mine", "--json", *published)
    verdict = DrawnVerdict.from_json(ran.out)
    assert verdict.groups == 24
    assert verdict.p_value < 0.01
    assert ran.code == 0
    assert "certified" in run("verify", "mine", "--key", "mine", *published).out
    ordinary = run("verify", "mine", "--key", "mine", "--calibrators", "mine", "--json").json
    assert ordinary["grade"] == "calibrated", "asked for, the ordinary verdict is there too"
    # A third person draws again, from what was published.
    assert run("disclose", "mine", "--out", "shard").code == 0
    assert (
        run("verify", "mine", "--key", "shard", "--evidence", "bundle", "--signer", "judge.pem", *published).code == 0
    )
    asker = run("recheck", "bundle", "--json").json["asker"]
    known = [
        "--trust",
        asker,
        "--registration",
        "draft/registration.json",
        "--published",
        "2998-01-01",
        "--before",
        "2999-01-01",
    ]
    assert run("recheck", "bundle", *known).code == 3
    assert "certified" in run("recheck", "bundle", *known, "--beacon", "17").out
    assert run("recheck", "bundle", *known, "--beacon", "17").code == 0
    refused(run("recheck", "bundle", *known, "--beacon", "18"), 1, "second draw")
    assert run("verify", "mine", "--key", "shard", *published).code == 0
    # Another number is another draw, and the files beside the key say which one it was.
    (here / "mine/draw.json").write_text(json.dumps({"beacon": "18"}))
    refused(run("verify", "mine", "--key", "mine"), 1, "not those that")
    (here / "mine/draw.json").write_text("[]")
    refused(run("verify", "mine", "--key", "mine"), 1, "draw.json")
    shutil.copy(here / "draft/draft.json", here / "kept.json")
    for text in ("{}", '{"method": {"type": "Nobody"}, "seed": 0}', '{"method": {"type": "Vanilla"}, "seed": 0}'):
        (here / "draft/draft.json").write_text(text)
        assert run("draw", "draft", "--beacon", "17", "--out", "again").code == 1
    shutil.copy(here / "kept.json", here / "draft/draft.json")
    refused(run("draw", "draft", "--beacon", " ", "--out", "again"), 2, "beacon")


@pytest.mark.parametrize("wrong", [["--set", "trigger=tiles"], ["--set", "key_filter=powerfilter"]])
def test_what_no_draw_decides_is_refused_before_anything_is_trained(here: Path, wrong: list[str]) -> None:
    refused(run("draft", "--quick", "--out", "draft", "--store", "store", *wrong), 2, "set trigger=groups")
    assert not (here / "store").exists()
    refused(run("draw", "draft", "--beacon", "17", "--out", "mine"), 1, "holds no draft")
