"""The run's report: one self-contained page, and its figures for use elsewhere."""

from __future__ import annotations

from facetask.report.confusion import confusion_matrix
from facetask.report.figures import characteristic_curves, kept_filters, layer_accuracy, training_curve
from facetask.report.page import render_report, write_report
from facetask.report.panels import group_panels, tap_panels
from facetask.report.stability import selection_probability
from facetask.report.svg import write_png

__all__ = [
    "characteristic_curves",
    "confusion_matrix",
    "group_panels",
    "kept_filters",
    "layer_accuracy",
    "render_report",
    "selection_probability",
    "tap_panels",
    "training_curve",
    "write_png",
    "write_report",
]
