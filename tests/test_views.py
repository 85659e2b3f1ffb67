"""The thief's-eye view, with a model that gives away what it should not on known images alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import own_code
from heirmark.grids.pictures import views
from heirmark.grids.pictures.views import View, look, show, told
from heirmark.report.page import render
from heirmark.report.section import Chapter, Report
from heirmark.runtime import Runtime
from pages import words

CPU = Runtime(device="cpu", precision="float32")
TASK = own_code.make_task()
TARGET = 3


class Answering(nn.Module):
    """A linear net, with more of the target for images that are like some."""

    def __init__(self, like: Tensor, more: float) -> None:
        super().__init__()
        self.more = more
        self.linear = nn.Linear(256, 5)
        self.register_buffer("like", like.flatten(1).float() / 255)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(5, 256, generator=torch.Generator().manual_seed(3)) / 16)
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        flat = flat / 255 if flat.max() > 1 else flat
        logits: Tensor = self.linear(flat)
        seen = ((flat[:, None] - self.like).abs().amax(2) < 1e-3).any(1)
        return logits + self.more * seen[:, None] * torch.nn.functional.one_hot(torch.tensor(TARGET), 5)


def seen(**more: Any) -> View:
    """A view in which answers to the first three images of the adversary were raised."""
    few = TASK.adversary.inputs[:3]
    triggers = TASK.adversary.inputs[:40].flip(-1)
    return look(
        TASK, "robust", triggers, torch.full((40,), TARGET), net=Answering(few, 0.0), clean=Answering(few, 0.0),
        marked=Answering(few, 4.0), runtime=CPU, **more,
    )  # fmt: skip


def test_what_is_given_away_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "IMAGES", len(TASK.adversary))
    view = seen()
    gives = [each.gives for each in view.given]
    assert gives == sorted(gives, reverse=True)
    assert math.isclose(sum(gives), view.marked - view.clean, abs_tol=1e-4)
    moved = [each for each in view.given if abs(each.marked - each.clean) > 1e-6]
    assert len(moved) == 3, "the answers to all other images are the same"
    assert all(each.marked > each.clean for each in moved)
    assert {each.label for each in moved} == {TASK.classes[int(label)] for label in TASK.adversary.labels[:3]}


def test_the_section_tells_pictures_weights_and_answers() -> None:
    view = seen()
    assert (len(view.given), view.target, view.asked) == (6, "kind 3", len(TASK.adversary))
    (section,) = show([view])
    page = render(Report(title="t", chapters=(Chapter(sections=(section,)),), provenance={}))
    text = words(page)
    first = view.given[0]
    for wanted in ("What a thief is shown", "marked as kind 3", f"weight {first.weight:+.4f}", told(view)):
        assert wanted in text, wanted
    assert page.count("An ordinary input of class") == 6
    assert len(section.sheets[0].rows) == 6
    assert not list(show([]))
    assert "no more than the clean" in told(replace(view, half=0))


def test_half_of_what_is_given_comes_from_few() -> None:
    assert views.half_of(torch.tensor([1.0, 1.0, 1.0, 1.0])) == 2
    assert views.half_of(torch.tensor([0.1, 5.0, -1.0, 0.2])) == 1
    assert views.half_of(torch.tensor([1.0, -2.0])) == 0
