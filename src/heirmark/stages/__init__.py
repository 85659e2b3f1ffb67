"""Stages and the store of their artifacts: the one mechanism under the demo, the audit and the benchmark."""

from heirmark.stages.stage import Artifact, Job, Stage, lineage
from heirmark.stages.store import Event, Store

__all__ = ["Artifact", "Event", "Job", "Stage", "Store", "lineage"]
