"""Reading logs back and adding them up."""

from __future__ import annotations

from aimeter.logs.export import export_csv
from aimeter.logs.read import ReadResult, read
from aimeter.report.summary import Summary, SummaryRow
from aimeter.report.tally import Tally, summarise

__all__ = ["ReadResult", "Summary", "SummaryRow", "Tally", "export_csv", "read", "summarise"]
