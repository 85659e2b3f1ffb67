"""What stages are handed besides their own configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heirmark.models import Factory
from heirmark.pipeline.stage import Job
from heirmark.runtime import Runtime
from heirmark.task import Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """Data and hardware. A stage's identity covers them by :meth:`external`, the progress sink not at all.

    Attributes:
        task: the data.
        runtime: device, precision, progress.
        factory: the user's own model factory, for custom models.
        victim: folder of a victim that is no stage's artifact; a stage that reads it names its digest as external.
    """

    task: Task
    runtime: Runtime
    factory: Factory | None = None
    victim: Path | None = None

    def external(self) -> Mapping[str, str]:
        """Digests and facts that can change a stage's result."""
        return {"task": self.task.digest(), **self.runtime.facts()}


def context_of(job: Job) -> Context:
    """The context of a job, as every stage here needs it."""
    if not isinstance(job.context, Context):
        raise TypeError("this stage runs with a heirmark.pipeline.context.Context")
    return job.context
