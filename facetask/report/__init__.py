"""The run's report: one self-contained page, and its figures for use elsewhere."""

from __future__ import annotations

from facetask.report.confusion import confusion_matrix
from facetask.report.figures import characteristic_curves, kept_filters, layer_accuracy, training_curve
from facetask.report.page import render_report, write_report
from facetask.report.panels import group_panels, tap_panels
from facetask.report.response import filter_response
from facetask.report.selectors import selectors_figure, selectors_table
from facetask.report.sharing import best_taps, filter_map, sharing_table
from facetask.report.slices import slices_figure
from facetask.report.stability import selection_probability
from facetask.report.svg import write_png, write_svg

__all__ = [
    "best_taps",
    "characteristic_curves",
    "confusion_matrix",
    "filter_map",
    "filter_response",
    "group_panels",
    "kept_filters",
    "layer_accuracy",
    "render_report",
    "selection_probability",
    "selectors_figure",
    "selectors_table",
    "sharing_table",
    "slices_figure",
    "tap_panels",
    "training_curve",
    "write_png",
    "write_report",
    "write_svg",
]
