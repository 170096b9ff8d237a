"""The report of a study: one HTML file that opens without a network."""

from layercast.study.report.write import write_report

__all__ = ["write_report"]
