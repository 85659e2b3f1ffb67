"""What stages are handed besides their own configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from heirmark.models import Factory
from heirmark.runtime import Runtime
from heirmark.stages.stage import Job, Stage
from heirmark.tasks.media import digest_of
from heirmark.tasks.task import Split, Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """Data and hardware. A stage's identity covers them by :meth:`external`, the progress sink not at all.

    Attributes:
        task: the data.
        runtime: device, precision, progress.
        factories: the user's own, of models that stages load. They are in no identity: a custom model comes of a stage whose
            configuration has its factory, or was adopted with it.
        folders: of the user's, or files of weights, which stages adopt; see :mod:`heirmark.work.adopting`.
        pools: images of other data sets by name, in the task's shape, that thieves may ask about; a theft that asks one names
            its digest as external.
    """

    task: Task
    runtime: Runtime
    factories: tuple[Factory, ...] = ()
    folders: tuple[Path, ...] = ()
    pools: Mapping[str, Split] = field(default_factory=dict)

    def external(self) -> Mapping[str, str]:
        """Digests and facts that can change a stage's result."""
        # The name too, which the digest leaves out: methods look up a paper's own choices by it.
        facts = {"task": self.task.digest(), "task name": self.task.name, **self.runtime.facts()}
        if self.task.foreign is not None:
            facts["foreign"] = self.task.foreign.digest()
        if self.task.medium is not None:
            facts["medium"] = digest_of(self.task.medium)
        return facts

    def stage(
        self,
        run: Callable[[Job], Mapping[str, Any]],
        config: object = None,
        *,
        kind: str | None = None,
        inputs: Mapping[str, Stage | None],
        seed: int = 0,
        external: Mapping[str, str] | None = None,
    ) -> Stage:
        """A stage of a function ``run_KIND`` that works in this context, on those inputs that are there."""
        return Stage(
            kind=kind or run.__name__.removeprefix("run_"),
            run=run,
            config=config,
            inputs={name: needed for name, needed in inputs.items() if needed is not None},
            seed=seed,
            external={**self.external(), **(external or {})},
        )


def context_of(job: Job) -> Context:
    """The context of a job, as every stage here needs it."""
    if not isinstance(job.context, Context):
        raise TypeError("this stage runs with a heirmark.work.context.Context")
    return job.context


def exact(runtime: Runtime) -> Runtime:
    """The runtime that figures are measured with: float32, whatever a model was trained in, so that figures compare."""
    return replace(runtime, precision="float32")
