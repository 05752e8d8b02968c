"""How long the curve stage takes beside what scikit-learn offers for it, on one thread, in one run.

The stage is measured at the 13 taps of VGG-16 on generated responses, as correlated as those of a real recognition
network (dlib's: condition of the correlations 10² to 10⁴). Everything the stage does counts: screening, the path, all
refits, the unpruned level. Of the rivals only the fitting counts; each gets the loosest tolerance at which its
optimality violation is no more than ours may be, and where only a few of its fits are run, their mean is multiplied and
the line says "extrapolated". `lasso_path` is also compared like with like: our path alone beside it; and beside our
whole stage, it with a least-squares refit of each distinct support on the Gram and its error on validation. Seconds are
processor time, so that other work on the machine counts for little; trust the ratios::

    python benchmarks/curve_stage.py
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import solve
from sklearn.linear_model import Lasso, MultiTaskLasso, lasso_path, orthogonal_mp_gram
from threadpoolctl import threadpool_limits

from facetask.plugins.selectors.greedy import GreedyParams, greedy
from facetask.plugins.selectors.group_lasso_path import GroupedProblem, kkt_violations
from facetask.plugins.selectors.homotopy import homotopy
from facetask.plugins.selectors.lasso import LassoParams, lasso
from facetask.records import SelectionPath, SelectionProblem
from facetask.statistics.curves import characteristic_curve
from facetask.statistics.moments import Moments

TAPS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
IMAGES = 10_000
STRENGTHS = np.geomspace(1, 1e-4, 100)
SAMPLE = np.array([0.1, 0.35, 0.6, 0.85])
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


def responses(width: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated responses as after a ReLU, and targets that depend on what lies behind them."""
    random = np.random.default_rng(width)
    factors = max(8, width // 4)
    hidden = random.standard_normal((IMAGES, factors))
    mixing = random.standard_normal((factors, width)) * (random.random((factors, width)) < 0.3)
    common = 2 * random.standard_normal((IMAGES, 1)) * random.random(width)
    noise = 0.3 * random.standard_normal((IMAGES, width))
    x = np.maximum(hidden @ mixing + common + noise + random.standard_normal(width), 0)
    weights = random.standard_normal((factors, outputs)) * (random.random((factors, outputs)) < 0.3)
    y = np.tanh(hidden @ weights) + 0.5 * random.standard_normal((IMAGES, outputs))
    return x, y / y.std(axis=0)


def timed(work: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Return seconds of processor time and the result."""
    start = time.process_time()
    result = work(*args)
    return time.process_time() - start, result


def best_of(times: int, work: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Return the least seconds of some runs, and the result."""
    return min((timed(work, *args) for _ in range(times)), key=lambda pair: pair[0])


def stage(moments: Moments, validation: Moments) -> SelectionPath:
    """Run selection and refits, as the curve stage does for one tap."""
    component = np.arange(moments.n_columns)
    path = lasso(SelectionProblem(moments=moments, component=component), LassoParams())
    characteristic_curve(moments, validation, component, path, moments.std_y)
    return path


def path_alone(moments: Moments) -> None:
    """Solve for the path, as our stage does, and nothing else."""
    gram, cross = moments.standardised(np.arange(moments.n_columns))
    homotopy(gram, cross[:, 0], np.abs(cross).max() * STRENGTHS)


def as_exact_as_ours(
    fit: Callable[[float], np.ndarray], problem: GroupedProblem, strengths: np.ndarray
) -> tuple[float, str]:
    """Return seconds and a description of a fit ``(k, p, m)`` at the loosest tolerance that is exact enough."""
    for tolerance in TOLERANCES:
        seconds, coef = timed(fit, tolerance)
        violation = float(kkt_violations(problem, coef, strengths).max())
        if violation <= LassoParams().tolerance:
            break
    return seconds, f"tol {tolerance:.0e}, largest KKT violation {violation:.0e}·λ"


class Rivals:
    """Scikit-learn's solvers on one tap's standardised responses."""

    def __init__(self, x: np.ndarray, y: np.ndarray, moments: Moments) -> None:
        columns = np.arange(moments.n_columns)
        self.x, self.y = (x - x.mean(axis=0)) / x.std(axis=0), y - y.mean(axis=0)
        self.problem = GroupedProblem.from_groups(*moments.standardised(columns), columns)
        self.strengths = self.problem.largest_strength * STRENGTHS

    def fits(self, model: type, n_strengths: int) -> tuple[float, str]:
        """Return the seconds of one fit for each of the first strengths, from the mean of a few."""
        sample = self.strengths[(SAMPLE * (n_strengths - 1)).round().astype(int)]
        y = self.y if self.y.shape[1] > 1 else self.y[:, 0]

        def fit(tolerance: float) -> np.ndarray:
            models = [model(alpha=strength, tol=tolerance, max_iter=20_000) for strength in sample]
            return np.stack([np.atleast_2d(model.fit(self.x, y).coef_).T for model in models])

        seconds, text = as_exact_as_ours(fit, self.problem, sample)
        seconds *= n_strengths / len(sample)
        return seconds, f"{model.__name__} × {n_strengths}: {seconds:.2f} s (extrapolated), {text}"

    def path(self) -> tuple[float, str]:
        """Return the seconds of ``lasso_path`` on the Gram."""
        gram, cross = self.problem.gram * len(self.x), self.problem.cross[:, 0] * len(self.x)
        options = {"alphas": self.strengths, "precompute": gram, "Xy": cross, "max_iter": 20_000}

        def fit(tolerance: float) -> np.ndarray:
            return lasso_path(self.x, self.y[:, 0], tol=tolerance, **options)[1].T[:, :, None]

        seconds, text = min(as_exact_as_ours(fit, self.problem, self.strengths) for _ in range(3))
        return seconds, f"lasso_path on the Gram: {seconds:.2f} s, {text}"

    def refits(self, supports: list[np.ndarray]) -> tuple[float, str]:
        """Return the seconds of least squares on each support, on the Gram, and of its error on every other image."""
        x, y = self.x[::2], self.y[::2, 0]
        check_gram, check_cross, check_square = x.T @ x / len(x), x.T @ y / len(x), float(y @ y) / len(x)

        def refit() -> list[float]:
            errors = []
            for columns in supports:
                block = np.ix_(columns, columns)
                coef = solve(self.problem.gram[block], self.problem.cross[columns, 0], assume_a="pos")
                square = check_square + coef @ (check_gram[block] @ coef - 2 * check_cross[columns])
                errors.append(float(np.sqrt(square)))
            return errors

        seconds, _ = best_of(3, refit)
        return seconds, f"least squares on the Gram for {len(supports)} distinct supports: {seconds:.2f} s"


def lasso_table(outputs: int) -> None:
    """Print the lasso stage at each width and over the 13 taps."""
    total: Counter[str] = Counter()
    path_only: Counter[str] = Counter()
    print(f"\nlasso stage, n = {IMAGES}, {outputs} output(s)")
    for width, count in Counter(TAPS).items():
        x, y = responses(width, outputs)
        moments, validation = Moments.from_arrays(x, y), Moments.from_arrays(x[::2], y[::2])
        seconds, path = best_of(3, stage, moments, validation)
        total["ours"] += count * seconds
        spread = np.linalg.cond(moments.standardised(np.arange(width))[0])
        print(f"  {width} filters, condition {spread:.0e}\n    ours: {seconds:.3f} s, {path.notes[-1]}")
        rivals = Rivals(x, y, moments)
        if outputs == 1:
            runs = {"Lasso × 100": rivals.fits(Lasso, 100), "lasso_path": rivals.path()}
            distinct = {support.tobytes(): support for support in path.supports}
            theirs, text = rivals.refits(list(distinct.values()))
            runs["lasso_path with refits"] = theirs + runs["lasso_path"][0], text
            alone, _ = best_of(3, path_alone, moments)
            path_only["ours"] += count * alone
            path_only["theirs"] += count * runs["lasso_path"][0]
            print(f"    our path alone: {alone:.4f} s")
        else:
            visited = len(path.supports) + 1
            runs = {
                "MultiTaskLasso at the strengths before the support is full": rivals.fits(MultiTaskLasso, visited),
                "MultiTaskLasso × 100": rivals.fits(MultiTaskLasso, 100),
            }
        for name, (seconds, text) in runs.items():
            total[name] += count * seconds
            print(f"    {text}")
    print(f"  13 taps of VGG-16: ours {total['ours']:.2f} s")
    for name in runs:
        print(f"    {name}: {total[name] / total['ours']:.1f} times as long")
    if path_only:
        print(f"    lasso_path beside our path alone: {path_only['theirs'] / path_only['ours']:.1f} times as long")


def greedy_table() -> None:
    """Print greedy selection beside orthogonal matching pursuit."""
    print("\ngreedy, all filters (orthogonal matching pursuit follows another rule: a rival in speed only)")
    for outputs in (1, 7):
        for width in (256, 512):
            moments = Moments.from_arrays(*responses(width, outputs))
            columns = np.arange(width)
            problem = SelectionProblem(moments=moments, component=columns)
            ours, _ = best_of(9, greedy, problem, GreedyParams())
            gram, cross = moments.standardised(columns)
            theirs, _ = best_of(9, lambda g, c: orthogonal_mp_gram(g, c, n_nonzero_coefs=len(g)), gram, cross)
            print(
                f"  {width} filters, {outputs} output(s): ours {ours:.4f} s, orthogonal_mp_gram {theirs:.4f} s, "
                f"{theirs / ours:.1f} times as long"
            )


def streaming_table() -> None:
    """Print how the moments' time grows with the number of images."""
    print("\nmoments of 512 responses and one target, read from float32 in blocks")
    for images in (10_000, 100_000):
        x = np.random.default_rng(0).standard_normal((images, 512), dtype=np.float32)
        seconds, _ = best_of(3, Moments.from_arrays, x, x[:, :1])
        print(f"  {images} images: {seconds:.2f} s, {seconds / images * 1e6:.1f} µs an image")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        streaming_table()
        greedy_table()
        lasso_table(1)
        lasso_table(7)
