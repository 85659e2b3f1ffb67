"""Grids of experiments: tasks x watermarks x attacks x seeds, on the stages that the demo and the audit are made of."""

from heirmark.bench.grid import Block, Grid, Marking, Published, Workload, select

__all__ = ["Block", "Grid", "Marking", "Published", "Workload", "select"]
