"""Numbers as people read them: sizes, spreads, percentages, durations; ``–`` where there is no number."""

from __future__ import annotations

import math
from collections.abc import Sequence

DASH = "–"
MINUS = "−"
NBSP = "\u00a0"
_COUNT_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTE_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_MAX_DECIMALS = 6


def is_number(value: float | None) -> bool:
    """Return whether there is a finite number."""
    return value is not None and math.isfinite(value)


def decimals_for(value: float, significant: int) -> int:
    """Return how many decimals show a value with so many significant digits, 0 … 6.

    Rounding is counted in: 9.996 needs one decimal less for three digits than 9.99, being 10.0.
    """
    if value == 0 or not math.isfinite(value):
        return significant - 1
    magnitude = int(f"{abs(value):.{significant - 1}e}".split("e")[1])
    return min(max(significant - 1 - magnitude, 0), _MAX_DECIMALS)


def number(value: float | None, *, significant: int = 3, decimals: int | None = None) -> str:
    """Return a number with so many significant digits, or with exactly so many decimals: ``7.70``, ``1,235``.

    Integers' digits are never rounded away: 1234.5 is ``1,234``, not ``1,230``. What is too small for six decimals is
    written with a power of ten, ``1.2e−7``.
    """
    if value is None or not math.isfinite(value):
        return DASH
    if decimals is None:
        decimals = decimals_for(value, significant)
        if 0 < abs(value) < 10.0**-_MAX_DECIMALS or abs(value) >= 1e15:
            return _signed(f"{value:.{significant - 1}e}".replace("e-0", "e-").replace("e+", "e"))
    text = f"{value:,.{decimals}f}"
    return _signed(text.lstrip("-") if float(text.replace(",", "")) == 0 else text)


def plus_minus(mean: float | None, std: float | None, *, decimals: int | None = None) -> str:
    """Return ``mean ± std`` with the same decimals; the mean alone where there is no spread.

    The mean gets three significant digits, or one more where the spread would otherwise read 0.
    """
    if mean is None or not math.isfinite(mean):
        return DASH
    if std is None or not math.isfinite(std) or std == 0:
        return number(mean, decimals=decimals)
    if decimals is None:
        decimals = decimals_for(mean, 3)
        if round(std, decimals) == 0:
            decimals = min(decimals_for(std, 1), decimals + 1)
    return f"{number(mean, decimals=decimals)}{NBSP}±{NBSP}{number(std, decimals=decimals)}"


def percent(fraction: float | None, *, decimals: int = 1) -> str:
    """Return a fraction in per cent, ``91.9 %``; decimals are added where 100 % would be claimed too early."""
    if fraction is None or not math.isfinite(fraction):
        return DASH
    while abs(fraction) < 1 and decimals < _MAX_DECIMALS and f"{abs(fraction) * 100:.{decimals}f}".startswith("100"):
        decimals += 1
    return f"{number(fraction * 100, decimals=decimals)}{NBSP}%"


def reduction(fraction: float | None) -> str:
    """Return a reduction as a signed change: 0.919 is ``−91.9 %``, −0.05 is ``+5.0 %``."""
    if fraction is None or not math.isfinite(fraction):
        return DASH
    if fraction == 0:
        return f"±0{NBSP}%"
    return (MINUS if fraction > 0 else "+") + percent(abs(fraction))


def count(value: int | None) -> str:
    """Return a whole number with thousands separated: ``5,937``."""
    return DASH if value is None else _signed(f"{value:,}")


def human_count(value: float | None) -> str:
    """Return a large count with three significant digits: ``5.61 M``; below 10,000 exactly: ``3,552``."""
    return _scaled(value, _COUNT_UNITS, exact_below=1e4, base_unit="")


def human_bytes(value: float | None) -> str:
    """Return a size in decimal units: ``22.5 MB``, ``832 B``."""
    return _scaled(value, _BYTE_UNITS, exact_below=1e3, base_unit="B")


def duration(seconds: float | None) -> str:
    """Return a wall time: ``0.42 s``, ``12.3 s``, ``1 min 23 s``, ``2 h 05 min``."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 59.95:
        return f"{number(seconds, decimals=2 if seconds < 0.995 else 1)}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min{NBSP}{rest:02d}{NBSP}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{NBSP}h{NBSP}{minutes:02d}{NBSP}min"


def ordinal(position: int) -> str:
    """Return an English ordinal: ``1st``, ``12th``, ``23rd``."""
    suffix = "th" if position % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(position % 10, "th")
    return f"{position}{suffix}"


def with_unit(text: str, unit: str) -> str:
    """Return a formatted number followed by its unit, where there are both."""
    return f"{text}{NBSP}{unit}" if unit and text != DASH else text


def _scaled(value: float | None, units: tuple[tuple[float, str], ...], *, exact_below: float, base_unit: str) -> str:
    """Return a value in the largest unit that leaves it at 1 or more."""
    if value is None or not math.isfinite(value):
        return DASH
    if abs(value) < exact_below:
        return with_unit(number(value, decimals=0), base_unit)
    for size, name in units:
        if float(f"{abs(value) / size:.2e}") >= 1:
            return with_unit(number(value / size), name)
    return with_unit(number(value, decimals=0), base_unit)


def _signed(text: str) -> str:
    """Return a number's text with a typographic minus."""
    return text.replace("-", MINUS)


def listed(names: Sequence[str]) -> str:
    """Return names as a reader lists them: ``yaw, age and glasses``; empty for none."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
