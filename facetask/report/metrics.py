"""How each metric is named, scaled and judged; unknown metrics get a plain treatment.

A metric of one of several outputs says which in brackets, ``f1[goatee]``; without brackets it is that of all together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from facetask.report.format import DASH, NBSP, is_number, plus_minus, with_unit
from facetask.running.results import LabelSummary, Metric

Scale = Literal["unit", "percent", "score", "plain"]


@dataclass(frozen=True)
class MetricStyle:
    """How one metric is shown.

    Attributes:
        label: Its name for a reader.
        scale: ``unit``: in the label's unit; ``percent``: a share in [0, 1]; ``score``: three decimals; ``plain``.
        better: Which direction is better, or nothing where unknown.
    """

    label: str
    scale: Scale = "plain"
    better: Literal["lower", "higher", ""] = ""


_STYLES = {
    "rmse": MetricStyle("RMSE", "unit", "lower"),
    "mae": MetricStyle("MAE", "unit", "lower"),
    "r2": MetricStyle("R²", "score", "higher"),
    "accuracy": MetricStyle("accuracy", "percent", "higher"),
    "within_one": MetricStyle("within one bin", "percent", "higher"),
    "balanced_accuracy": MetricStyle("balanced accuracy", "percent", "higher"),
    "auc": MetricStyle("AUC", "score", "higher"),
    "f1": MetricStyle("F1", "score", "higher"),
    "accuracy_least_squares": MetricStyle("accuracy, least squares", "percent", "higher"),
    "balanced_accuracy_least_squares": MetricStyle("balanced accuracy, least squares", "percent", "higher"),
}


def style(name: str) -> MetricStyle:
    """Return how a metric is shown; an unknown one under its own name."""
    base, part = split_name(name)
    shown = _STYLES.get(base, MetricStyle(base.replace("_", " ")))
    return replace(shown, label=f"{shown.label} of {part}") if part else shown


def split_name(name: str) -> tuple[str, str]:
    """Return a metric's name and the output it belongs to: ``f1[goatee]`` is F1 of goatee, ``f1`` of all together."""
    base, bracket, rest = name.partition("[")
    return (base, rest[:-1]) if bracket and rest.endswith("]") else (name, "")


def of_part(name: str, part: str) -> str:
    """Return the name of one output's metric."""
    return f"{name}[{part}]"


def parts_of(names: Iterable[str]) -> list[str]:
    """Return the outputs that have metrics of their own, in their order."""
    return [part for part in dict.fromkeys(split_name(name)[1] for name in names) if part]


def unit_of(labels: LabelSummary, name: str) -> str:
    """Return the unit of a metric: the label's, except for the RMSE of several outputs together."""
    return labels.rmse_unit if name == "rmse" and labels.rmse_unit is not None else labels.unit


def ordered(kind: str, names: Iterable[str]) -> list[str]:
    """Return distinct metrics of all outputs together: those that suit the kind first, the unknown ones last."""
    regression = [name for name, shown in _STYLES.items() if shown.scale == "unit" or name == "r2"]
    decision = [name for name in _STYLES if name not in regression]
    first, second = (regression, decision) if kind == "continuous" else (decision, regression)
    judged = ["auc"] if kind == "multilabel" else []
    rank = {name: position for position, name in enumerate(dict.fromkeys([*judged, *first, *second]))}
    together = {name for name in names if not split_name(name)[1]}
    return sorted(together, key=lambda name: (rank.get(name, len(rank)), name))


def main_metric(kind: str, names: Iterable[str]) -> str:
    """Return the metric that a task of this kind is judged by: the expected one, else the first that exists."""
    found = ordered(kind, names)
    return found[0] if found else "rmse" if kind == "continuous" else "accuracy"


def metric_text(name: str, metric: Metric | None, unit: str = "", *, with_units: bool = True) -> str:
    """Return ``mean ± std`` as this metric is read: ``7.70 ± 0.21 degrees``, ``91.4 ± 0.6 %``, ``0.827 ± 0.012``.

    Args:
        name: The metric's name in the results.
        metric: Mean and standard deviation over the trials, or nothing.
        unit: The label's unit.
        with_units: Whether the unit follows; a table says it once, in its head.
    """
    if metric is None or not is_number(metric.mean):
        return DASH
    scale = style(name).scale
    if scale == "percent":
        text = plus_minus(_times(metric.mean, 100), _times(metric.std, 100), decimals=1)
        return f"{text}{NBSP}%" if with_units else text
    text = plus_minus(metric.mean, metric.std, decimals=3 if scale == "score" else None)
    return with_unit(text, unit) if with_units and scale == "unit" else text


def column_label(name: str, unit: str) -> str:
    """Return a table column's head, with the unit: ``RMSE, degrees``, ``accuracy, %``."""
    shown = style(name)
    suffix = {"unit": unit, "percent": "%"}.get(shown.scale, "")
    return f"{shown.label}, {suffix}" if suffix else shown.label


def mean_of(metrics: Mapping[str, Metric], name: str) -> float | None:
    """Return a metric's finite mean, or nothing."""
    metric = metrics.get(name)
    return metric.mean if metric is not None and is_number(metric.mean) else None


def _times(value: float | None, factor: float) -> float | None:
    """Return a scaled number where there is one."""
    return None if value is None else value * factor
