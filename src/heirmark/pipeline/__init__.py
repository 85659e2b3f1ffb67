"""Stages and the store of their artifacts: the one mechanism under the demo, the audit and the benchmark."""

from heirmark.pipeline.stage import Artifact, Job, Stage, lineage
from heirmark.pipeline.store import Event, Store

__all__ = ["Artifact", "Event", "Job", "Stage", "Store", "lineage"]
