"""The public names and where they are."""

from .page import write_comparison as write_comparison, write_report as write_report
