"""A ranking for people: lines for the console, and a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from facetask.experiments.page import Figure, Folded, Section, Shown, write_page
from facetask.experiments.rank.figure import score_figure
from facetask.experiments.rank.results import Agreement, RankedTask, Ranking, RankResults
from facetask.report.format import DASH, duration, listed, number, percent, plus_minus
from facetask.report.metrics import column_label, metric_text, style, unit_of
from facetask.report.tables import Table
from facetask.running.results import Metric

_FEW = 5


def rank_lines(results: RankResults) -> Iterator[str]:
    """Yield the ranking as lines for the console: the order of the networks for every task and score."""
    for task in results.tasks:
        yield f"{task.name}, the best network first; on test: the regression at that tap"
        yield from _aligned(order_table(task))
        if task.finetuned:
            found = ", ".join(f"{f.network} {_metric(task, f.metric)}" for f in task.finetuned)
            yield f"  finetuned: {found}"
        if task.over_networks:
            yield from _aligned(networks_table(task))
        yield ""


def order_table(task: RankedTask) -> Table:
    """Return the networks in each score's order, the best first, each at its best tap."""
    rows, marked = [], {}
    for ranking in task.rankings:
        if not ranking.places:
            rows.append([ranking.score, "does not apply", *[DASH] * 3])
        for index, place in enumerate(ranking.places):
            if index == 0:
                marked[len(rows)] = "final"
            metric = _metric(task, place.metrics.get(task.main_metric), with_units=False)
            value = plus_minus(place.score.mean, place.score.std)
            rows.append(["" if index else ranking.score, place.network, place.tap, value, metric])
    label = column_label(task.main_metric, _unit(task))
    return Table(["score", "network", "at tap", "its score", f"{label} on test"], rows, marked)


def taps_table(task: RankedTask) -> Table:
    """Return how far each score orders the taps as the regression's test metric does: weighted tau."""
    names = list(dict.fromkeys(agreement.network for agreement in task.over_taps))
    counts = {name: max(a.n for a in task.over_taps if a.network == name) for name in names}
    found = {(a.score, a.network): a for a in task.over_taps}
    rows = [[ranking.score, *(_tau(found[ranking.score, name]) for name in names)] for ranking in task.rankings]
    return Table(["weighted τ over taps", *(f"{name or 'all networks'}, n = {counts[name]}" for name in names)], rows)


def networks_table(task: RankedTask) -> Table:
    """Return how far each score orders the networks as their finetuned metrics do."""
    rows = [
        [a.score, str(a.n), _tau(a), number(a.spearman, decimals=2), percent(a.chance, decimals=0)]
        for a in task.over_networks
    ]
    return Table(["score against finetuned", "networks", "weighted τ", "Spearman's ρ", "by chance as well"], rows)


def summary_table(results: RankResults) -> Table:
    """Return each score's mean agreement over the tasks."""
    over_taps = [a for task in results.tasks for a in task.over_taps]
    over_networks = [a for task in results.tasks for a in task.over_networks]
    columns = {
        "within a network's taps": [a for a in over_taps if a.network is not None],
        "all networks' taps together": [a for a in over_taps if a.network is None],
    }
    if over_networks:
        columns[f"finetuned networks, at most {max(a.n for a in over_networks)}"] = over_networks
    rows = [
        [score.name, *(_mean_tau([a for a in found if a.score == score.name]) for found in columns.values())]
        for score in results.scores
    ]
    return Table(["score", *columns], rows)


def write_rank_page(results: RankResults, path: Path) -> None:
    """Write a ranking's page.

    Raises:
        RunDirError: If it cannot be written.
    """
    sections = [_task_section(task) for task in results.tasks]
    sections += [_trust_section(results), _parts_section(results)]
    n, k = len(results.networks), len(results.tasks)
    lede = (
        f"{n} base network{'s' * (n > 1)}, {k} task{'s' * (k > 1)}, nothing trained: every image passes every network "
        "once, then a regression and the scores judge each tap on training and validation images. Test images serve "
        "only to show what the choice would have given."
    )
    write_page(path, "Which network for which task", sections, lede=lede, kind="ranking")


def _task_section(task: RankedTask) -> Section:
    """Return one task's part of the page."""
    parts: list[str | Table | Shown | Figure | Folded] = [
        Shown(
            order_table(task),
            "Networks in each score's order, each at the tap where the score is highest, with the regression's "
            f"{style(task.main_metric).label} there on test images; "
            + (f"mean ± spread over {task.trials} trials." if task.trials > 1 else "one trial, so no spread is known."),
        ),
        Figure(
            f"scores_{task.name}",
            partial(score_figure, task),
            "Every tap of every network: its score against the regression's metric on test images. A score that ranks "
            "well rises steadily, across the colours too.",
        ),
        Shown(
            taps_table(task),
            "Kendall's τ, in which the best taps count most: 1 is the same order as the regression's on test images, "
            "0 no relation. Neighbouring taps are alike, so n says less than it seems to.",
        ),
    ]
    if task.finetuned:
        rows = [[f.network, _metric(task, f.metric, with_units=False), f.run] for f in task.finetuned]
        parts.append(Table(["finetuned network", column_label(task.main_metric, _unit(task)), "run"], rows))
    if task.over_networks:
        few = max(a.n for a in task.over_networks)
        parts.append(
            Shown(
                networks_table(task),
                f"{few} networks"
                + (" are too few to judge a score by" if few < _FEW else "")
                + ": the last column is the share of all orders that agree with the finetuned networks at least as "
                "well.",
            )
        )
    return Section(task.name, parts, _headline(task), small=f"{task.labels.kind}, {task.labels.n_labelled:,} images")


def clearly_first(ranking: Ranking) -> str | None:
    """Return the network that a score puts first by more than the trials' spread, None where there is no such one."""
    if not ranking.places:
        return None
    first, *others = ranking.places
    for other in others:
        spread = math.hypot(first.score.std or 0.0, other.score.std or 0.0)
        if (first.score.mean or 0.0) - (other.score.mean or 0.0) <= spread:
            return None
    return first.network


def _headline(task: RankedTask) -> str:
    """Return which network the scores put first, and which of them cannot tell."""
    choices: dict[str | None, list[str]] = {}
    for ranking in task.rankings:
        if ranking.places:
            choices.setdefault(clearly_first(ranking), []).append(ranking.score)
    undecided = choices.pop(None, [])
    told = [f"{network} by {listed(scores)}" for network, scores in choices.items()]
    told += [f"undecided within the trials' spread by {listed(undecided)}"] if undecided else []
    return f"First: {'; '.join(told)}." if told else "No score applies."


def _trust_section(results: RankResults) -> Section:
    """Return the part that says how far the scores agree with what is measured."""
    text = (
        "Weighted τ, mean over the tasks and in brackets its range. Within a network it says whether a score finds the "
        "tap; over all networks' taps together, whether it may compare networks of different widths. Taps are judged "
        "by a linear regression on test images, which favours the scores that are linear regressions themselves; only "
        "finetuned networks judge them independently, and few of them prove little."
    )
    return Section("How far the scores can be trusted", [Shown(summary_table(results), text)])


def _parts_section(results: RankResults) -> Section:
    """Return what was compared, with what it took."""
    networks = [
        [n.name, str(n.n_taps), f"{n.n_filters:,}", n.weights_source, n.weights_licence, _seconds(results, n.name)]
        for n in results.networks
    ]
    scores = [[s.name, s.plugin, _params(s.params), duration(results.wall_s.get(s.name))] for s in results.scores]
    return Section(
        "What was compared",
        [
            Shown(
                Table(["network", "taps", "filters", "weights", "licence", "forward passes"], networks),
                "Images that were seen before come from the cache and take no time.",
            ),
            Shown(
                Table(["score", "plugin", "params", "time"], scores),
                f"Scores that need classes see continuous labels in {results.label_bins} equally frequent bins.",
            ),
        ],
    )


def _aligned(table: Table) -> Iterator[str]:
    """Yield a table's lines for the console."""
    lines = [table.head, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
    for line in lines:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _mean_tau(found: Sequence[Agreement]) -> str:
    """Return the mean and the range of some taus."""
    known = [a.weighted_tau for a in found if a.weighted_tau is not None]
    if not known:
        return DASH
    spread = f" ({number(min(known), decimals=2)} … {number(max(known), decimals=2)})" if len(known) > 1 else ""
    return f"{number(mean(known), decimals=2)}{spread}"


def _tau(agreement: Agreement) -> str:
    """Return one tau."""
    return number(agreement.weighted_tau, decimals=2)


def _unit(task: RankedTask) -> str:
    """Return the unit of the task's main metric."""
    return unit_of(task.labels, task.main_metric)


def _metric(task: RankedTask, metric: Metric | None, *, with_units: bool = True) -> str:
    """Return the task's main metric as text."""
    return metric_text(task.main_metric, metric, _unit(task), with_units=with_units)


def _seconds(results: RankResults, network: str) -> str:
    """Return how long a network's forward passes took."""
    return duration(results.wall_s.get(f"responses of {network}"))


def _params(params: Mapping[str, Any]) -> str:
    """Return a plugin's params in one line."""
    return ", ".join(f"{key}: {value}" for key, value in params.items()) or DASH
