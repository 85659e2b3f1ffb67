"""Run the stages of a plan, here and now; see :mod:`heirmark.grids.executors.on_ray` for elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from heirmark.errors import HeirmarkError, told
from heirmark.grids.plan import Plan
from heirmark.grids.settings import Contexts
from heirmark.stages.stage import Stage
from heirmark.stages.store import Event, Store


def needed(plan: Plan, store: Store) -> list[Stage]:
    """The stages that are still to be computed, inputs before their readers; what is finished needs none of its inputs.

    The store's listener is told of those that are there.
    """
    wanted: set[str] = set()
    pending = [*(goal for cell in plan.cells for goal in cell.goals), *plan.exported]
    seen: set[str] = set()
    while pending:
        stage = pending.pop()
        if stage.identity in seen:
            continue
        seen.add(stage.identity)
        if _is_there(stage, store):
            store.on_event(Event(what="cached", name=stage.name, folder=store.root / stage.name))
        else:
            wanted.add(stage.identity)
            pending.extend(stage.inputs.values())
    return [stage for stage in plan.stages if stage.identity in wanted]


def _is_there(stage: Stage, store: Store) -> bool:
    try:
        return store.find(stage) is not None
    except (HeirmarkError, OSError):  # a disk or a mirror that does not answer: the stage's own turn will tell
        return False


def run_here(plan: Plan, store: Store, contexts: Contexts) -> Mapping[str, str]:
    """Compute what is missing, one stage after the other. What fails takes along what builds on it and nothing else.

    Args:
        plan: cells and settings.
        store: of finished stages.
        contexts: the data.

    Returns:
        Why stages failed, by their names.
    """
    failed: dict[str, str] = {}
    for stage in needed(plan, store):
        why = next((failed[item.name] for item in stage.inputs.values() if item.name in failed), None)
        if why is None:
            try:
                store.get(stage, contexts(plan.settings[stage.identity]))
            except Exception as error:  # whatever a strategy runs into is a result
                why = told(error)
        if why is not None:
            failed[stage.name] = why
    return failed
