"""Grids of experiments: tasks x watermarks x attacks x seeds, on the stages that the demo and the audit are made of."""

from heirmark.grids.grid import Block, Grid, Marking, Workload, select
from heirmark.results.summary import Published

__all__ = ["Block", "Grid", "Marking", "Published", "Workload", "select"]
