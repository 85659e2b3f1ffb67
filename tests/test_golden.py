"""What the house computes stays what it is, to the last bit, while it is rebuilt."""

from __future__ import annotations

import json

import pytest

import golden


@pytest.mark.slow
def test_a_tiny_grid_demo_and_audit_give_the_recorded_figures() -> None:
    recorded = json.loads(golden.RECORD.read_text())
    if recorded.pop("machine") != golden.machine():
        pytest.skip("recorded on another processor or torch, which round otherwise")
    found = golden.figures()
    for part, figures in recorded.items():
        assert found[part] == figures, part
