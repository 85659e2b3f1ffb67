"""What is shown to people: a self-contained page, and the same table for the terminal."""

from heirmark.report.content import Example, Report, Row, rows_to_json
from heirmark.report.render import render, table

__all__ = ["Example", "Report", "Row", "render", "rows_to_json", "table"]
