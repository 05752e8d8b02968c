"""What several tasks' networks cost together: separate ones are summed, one that tasks share counts once."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from facetask.json_record import Record
from facetask.report.format import human_bytes, human_count, listed, percent
from facetask.report.tables import Table
from facetask.running.results import NetworkCost, Results


class RunTogether(Record):
    """One run's networks for the tasks that all compared runs have."""

    run: str
    n_networks: int = Field(description="Networks that answer for these tasks; 1: they share one.")
    cost: NetworkCost = Field(description="Summed over these networks; an image goes through each of them.")
    cost_base: NetworkCost = Field(description="Of the whole base network, which serves all tasks at once.")


class Together(Record):
    """The networks of several tasks, run by run."""

    tasks: list[str] = Field(description="Those that every compared run has pruned a network for.")
    runs: list[RunTogether]


def together(runs: Sequence[tuple[str, Results]]) -> Together | None:
    """Return what each run's networks cost together for the tasks that all have; None for fewer than two tasks."""
    pruned = [{task.name: task.prune for task in results.tasks if task.prune} for _, results in runs]
    names = [name for name in pruned[0] if all(name in found for found in pruned)]
    if len(names) < 2:
        return None
    rows = []
    for (run, _), found in zip(runs, pruned, strict=True):
        networks = {tuple(found[name].shared) or name: found[name] for name in names}
        costs = [network.pruned for network in networks.values()]
        summed = {field: sum(getattr(cost, field) for cost in costs) for field in NetworkCost.model_fields}
        rows.append(
            RunTogether(run=run, n_networks=len(costs), cost=NetworkCost(**summed), cost_base=found[names[0]].base)
        )
    return Together(tasks=names, runs=rows)


def together_table(found: Together) -> Table:
    """Return one row a run: how many networks it takes, and what they cost."""
    rows: list[list[str]] = []
    share: dict[tuple[int, int], float] = {}
    for index, run in enumerate(found.runs):
        parts = [
            (run.cost.params, run.cost_base.params),
            (run.cost.size_bytes, run.cost_base.size_bytes),
            (run.cost.macs, run.cost_base.macs),
        ]
        shown = (human_count, human_bytes, human_count)
        rows.append(
            [
                run.run,
                str(run.n_networks),
                *(f"{show(own)}, {percent(own / base)}" for show, (own, base) in zip(shown, parts, strict=True)),
            ]
        )
        share |= {(index, column): min(own / base, 1.0) for column, (own, base) in enumerate(parts, start=2)}
    return Table(["run", "networks", "parameters", "size", "MACs"], rows, {}, share)


def together_text(found: Together) -> str:
    """Return what the table shows."""
    return (
        f"The networks for {listed(found.tasks)} together: separate ones are summed, since an image goes through each "
        "of them; one that tasks share counts once. Shares are those of each run’s base network."
    )
