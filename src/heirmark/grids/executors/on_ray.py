"""Run the stages of a plan as Ray tasks, on the cores of one machine or on a cluster.

Ray schedules: a stage is a task that waits for the tasks of its inputs, and runs where its CPUs and GPUs are free. What stages
hand on lies in the store, which all nodes must see (a shared folder, or a URL); tasks return a few words only.
"""

from __future__ import annotations

import logging
import math
import os
import site
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heirmark.data import data_root
from heirmark.errors import BadConfig, told
from heirmark.files import MIB
from heirmark.grids.executors.errands import Errand, Outcome, Place, work_packed
from heirmark.grids.executors.here import needed
from heirmark.grids.plan import Plan
from heirmark.grids.settings import Contexts
from heirmark.runtime import Runtime
from heirmark.stages.stage import Stage
from heirmark.stages.store import Event, Store

LOCAL = "local"
RETRIES = 3
"""How often a stage is tried again whose process was killed. A strategy's own exception is a result and never is."""
PATIENCE = 60.0
"""Seconds after which a network disk shows what another node wrote; NFS remembers for so long that a folder was not there."""
OBJECT_STORE = 128 * MIB
"""For the few words that tasks return; Ray by itself takes a third of the memory."""
STARTED = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_oom_retries": str(RETRIES)}
"""Environment of a Ray that is started here: it reports to nobody, and does not try for ever what the memory is too small for."""


def threads_for(cpus: float) -> int:
    """Threads of torch in a stage that holds so many CPUs; a node's other cores change no result."""
    return max(1, int(cpus))


def check_share(cpus: float, gpus: float) -> None:
    """Make sure that a stage can hold so much.

    Raises:
        BadConfig: when it cannot.
    """
    if not (0 < cpus < math.inf and 0 <= gpus < math.inf):
        raise BadConfig(f"a stage cannot hold {cpus:g} CPUs and {gpus:g} GPUs: give some CPUs, and no GPU or more")


def run_on_ray(
    plan: Plan,
    store: Store,
    contexts: Contexts,
    *,
    address: str = LOCAL,
    cpus: float = 1.0,
    gpus: float = 0.0,
    code: Path | None = None,
) -> Mapping[str, str]:
    """Compute what is missing; :func:`heirmark.grids.executors.here.run_here` says what it means to fail.

    A Ray that is running in this process already is used as it is and left running.

    Args:
        plan: cells and settings.
        store: of finished stages; its folder must be every node's, or it must have a mirror.
        contexts: the data, which workers load again by their names. Device and precision are settled here, for all nodes.
        address: ``"local"`` starts Ray here; else that of a cluster, such as ``"auto"`` or ``"10.0.0.1:6379"``.
        cpus: that a stage holds, and its threads.
        gpus: that a stage holds; a part of one lets several stages share it.
        code: folder of the user's own modules, whose Python files are sent to a cluster; the paths where this process finds
            modules are searched too.

    Returns:
        Why stages failed, by their names.

    Raises:
        BadConfig: without Ray, when no cluster answers, or when no node can hold a stage.
    """
    facts = contexts.runtime.facts()
    _check(store, cpus=cpus, gpus=gpus, device=facts["device"])
    stages = needed(plan, store)
    if not stages:
        return {}
    place = Place(
        root=str(store.root),
        url=None if store.mirror is None else store.mirror.url,
        data=str(data_root(contexts.root).absolute()),
        folder=str(Path.cwd()),
        threads=threads_for(cpus),
        facts=tuple(facts.items()),
    )
    with session(address, code) as ray:
        _check_room(ray.nodes(), cpus, gpus)
        task = ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_retries=RETRIES,
            retry_exceptions=False,
        )(work_packed)
        paths = own_paths()
        references: dict[str, Any] = {}
        for stage in stages:
            errand = Errand(
                stage=stage,
                setting=plan.settings[stage.identity],
                place=place,
                identity=stage.identity,
                code=dict(stage.code),
            )
            waits = [references[item.identity] for item in stage.inputs.values() if item.identity in references]
            references[stage.identity] = task.options(name=stage.name).remote(
                paths, ray.cloudpickle.dumps(errand), *waits
            )
        errors = _collect(ray, {references[stage.identity]: stage for stage in stages}, store, contexts.runtime)
    failed: dict[str, str] = {}
    for stage in stages:
        why = next((failed[item.name] for item in stage.inputs.values() if item.name in failed), errors[stage.name])
        if why:
            failed[stage.name] = why
    return failed | unseen([stage for stage in stages if stage.name not in failed], store)


def _collect(ray: Any, pending: dict[Any, Stage], store: Store, runtime: Runtime) -> dict[str, str]:
    """Wait for all tasks and pass on what they tell; why they failed by name, empty for those that did not."""
    errors: dict[str, str] = {}
    total = len(pending)
    try:
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1)
            for reference in ready:
                stage = pending.pop(reference)
                try:
                    outcome = ray.get(reference)
                except ray.exceptions.RayError as error:
                    why = why_lost(ray, error)
                    event = Event(what="failed", name=stage.name, folder=store.root, detail=why)
                    outcome = Outcome(error=why, events=(event,))
                errors[stage.name] = outcome.error
                for event in outcome.events:
                    store.on_event(event)
                runtime.progress("stages on Ray", total - len(pending), total)
    finally:
        for reference in pending:  # interrupted
            ray.cancel(reference, force=True)
    return errors


def why_lost(ray: Any, error: Exception) -> str:
    """A task that returned nothing: its process was killed, or could not rebuild the stage."""
    known = ray.exceptions
    if isinstance(error, (known.WorkerCrashedError, known.OutOfMemoryError, known.NodeDiedError)):
        return f"its process was killed {RETRIES + 1} times ({type(error).__name__}): is there memory enough?"
    last = str(error).strip().rpartition("\n")[2]
    return f"the stage cannot be rebuilt on its node ({last[:200]}): install there what is installed here, own code too"


def _check(store: Store, *, cpus: float, gpus: float, device: str) -> None:
    check_share(cpus, gpus)
    if device == "cuda" and not gpus:
        raise BadConfig(
            "stages are to run on cuda, but hold no GPU: give --ray-gpus 1 (0.5 shares one), or --device cpu"
        )
    if store.mirror is not None and store.mirror.url.startswith("memory:"):
        raise BadConfig("a store under memory:// lives in one process only: give --store a folder or another URL")


def _check_room(nodes: Sequence[Mapping[str, Any]], cpus: float, gpus: float) -> None:
    """Ray would wait for ever for a node that is large enough."""
    rooms = [(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in nodes if node["Alive"]]
    if not any(room[0] >= cpus and room[1] >= gpus for room in rooms):
        has = "; ".join(f"{room[0]:g} CPUs, {room[1]:g} GPUs" for room in dict.fromkeys(rooms))
        raise BadConfig(
            f"no node has {cpus:g} CPUs and {gpus:g} GPUs for a stage ({has}): lower --ray-cpus or --ray-gpus"
        )


def unseen(stages: Sequence[Stage], store: Store) -> dict[str, str]:
    """Stages that were computed where this process does not see them."""
    if store.mirror is not None:
        return {}
    missing, deadline = list(stages), time.monotonic() + PATIENCE
    while missing := [stage for stage in missing if not (store.root / stage.name).is_dir()]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    why = f"it was computed on a node whose {store.root} is another: give --store a folder that all nodes see, or a URL"
    return {stage.name: why for stage in missing}


def own_paths() -> list[str]:
    """Where this process finds modules, but for what comes with Python and its packages, which every node has."""
    given = [Path(path or ".").absolute() for path in dict.fromkeys(["", *sys.path])]
    # Not all that is below the prefix: that may be /usr, with projects in it.
    places = [*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")), *site.getsitepackages()]
    system = {Path(place).resolve() for place in places}
    return [str(path) for path in given if path.is_dir() and not system & {path.resolve(), *path.resolve().parents}]


@contextmanager
def session(address: str, code: Path | None, **further: Any) -> Iterator[Any]:
    """Ray: that which runs, else one that is started or joined, and left again; ``further`` options are Ray's."""
    try:
        import ray
    except ImportError:
        raise BadConfig('stages run on Ray only where it is installed: pip install "heirmark[ray]"') from None
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR, **further}
    if address == LOCAL:
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    elif code is not None:
        # Nothing of the data, models and runs that may lie beside it. A plain "*" would be the folder itself, too, to Ray.
        options["runtime_env"] = {"working_dir": str(code.absolute()), "excludes": ["[!.]*", ".?*", "!*.py"]}
    try:
        with _environment(STARTED if address == LOCAL else {}):
            ray.init(**options)
    except Exception as error:  # of many kinds
        where, remedy = (
            f"does not answer at {address}",
            "give the address of a cluster that runs, and its RAY_AUTH_TOKEN",
        )
        if address == LOCAL:
            where, remedy = "cannot be started here", "leave out --ray, or mend what Ray says"
        raise BadConfig(f"Ray {where} ({told(error)}): {remedy}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set what is not set, for a while."""
    added = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
