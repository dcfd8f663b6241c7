"""Run folders -> one HTML page. `page.py` lays it out, `summary.py` reads a run, `chart.py` computes curves."""

from minimind.report.page import write_report

__all__ = ["write_report"]
