"""Who is drawn and how: a person's lasting traits and one picture's attributes, all from seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "angry")
HAIR_STYLES = ("bald", "receding", "buzz", "short", "side-part", "spiky", "curly", "bob", "long", "bun")
HAIR_COLOURS = {
    "black": (0.10, 0.085, 0.08),
    "dark brown": (0.23, 0.15, 0.10),
    "brown": (0.39, 0.25, 0.15),
    "red": (0.60, 0.27, 0.12),
    "blond": (0.80, 0.64, 0.36),
}
IRISES = ((0.30, 0.18, 0.10), (0.20, 0.13, 0.09), (0.33, 0.45, 0.58), (0.35, 0.46, 0.30), (0.47, 0.36, 0.20))
YAW_LIMIT_DEG, PITCH_LIMIT_DEG, ROLL_LIMIT_DEG, LIGHT_LIMIT_DEG = 50.0, 25.0, 5.0, 60.0
AGE_RANGE_YEARS = (18.0, 85.0)

_Option = TypeVar("_Option")
_PERSON_STREAM, _PICTURE_STREAM, _CHANCE_STREAM = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Person:
    """What does not change from picture to picture; lengths in half head heights.

    Attributes:
        skin: Lightness of the skin, 0 (darkest) to 1.
        undertone: From cool (−1) to warm (1).
        hair_colour: A key of :data:`HAIR_COLOURS`, before any greying.
        hair: The style worn most often.
        iris: The iris's red, green and blue in [0, 1].
        freckles: Strength in [0, 1].
        shape: Named proportions, each about −1 to 1 around the average face.
    """

    skin: float
    undertone: float
    hair_colour: str
    hair: str
    iris: tuple[float, float, float]
    freckles: float
    shape: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture's exact labels.

    Attributes:
        person: Index of the person.
        yaw_deg: Turn of the head, positive towards the subject's left.
        pitch_deg: Nod, positive down.
        roll_deg: Tilt of the head, before yaw and pitch.
        age_years: Age shown.
        light_deg: Direction the light comes from, positive from the subject's left, 0 from the front.
        skin: Lightness of the skin, 0 (darkest) to 1.
        glasses: Whether glasses are worn.
        beard: Whether there is a beard.
        hat: Whether a hat is worn.
        expression: One of :data:`EXPRESSIONS`.
        hair: One of :data:`HAIR_STYLES`, under the hat if there is one.
    """

    person: int
    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    age_years: float
    light_deg: float
    skin: float
    glasses: bool
    beard: bool
    hat: bool
    expression: str
    hair: str


SHAPES = (
    "width", "jaw", "chin", "cheeks", "forehead", "depth", "eye_size", "eye_gap", "eye_tilt", "eye_height", "lids",
    "brow_height", "brow_weight", "brow_arch", "nose_length", "nose_width", "nose_height", "nose_bridge", "mouth_width",
    "mouth_height", "lips", "ear_size", "ear_angle", "neck",
)  # fmt: skip


@lru_cache(maxsize=4096)
def person(seed: int, index: int) -> Person:
    """Return the person with this index."""
    rng = np.random.default_rng([seed, _PERSON_STREAM, index])
    return Person(
        skin=float(rng.uniform()),
        undertone=float(rng.uniform(-1, 1)),
        hair_colour=_pick(tuple(HAIR_COLOURS), rng),
        hair=_pick(HAIR_STYLES, rng),
        iris=_pick(IRISES, rng),
        freckles=float(max(0.0, rng.uniform(-2, 1))),
        shape={name: float(value) for name, value in zip(SHAPES, rng.uniform(-1, 1, len(SHAPES)), strict=True)},
    )


def picture(seed: int, index: int, identities: int) -> Picture:
    """Return the labels of the picture with this index; every attribute is drawn independently of the others.

    People take turns. Three pictures in five show a person's usual hair, the others any style.
    """
    rng = np.random.default_rng([seed, _PICTURE_STREAM, index])
    number = index % identities
    who = person(seed, number)
    usual = rng.uniform() < 0.6
    other = _pick(HAIR_STYLES, rng)
    return Picture(
        person=number,
        yaw_deg=float(rng.uniform(-YAW_LIMIT_DEG, YAW_LIMIT_DEG)),
        pitch_deg=float(rng.uniform(-PITCH_LIMIT_DEG, PITCH_LIMIT_DEG)),
        roll_deg=float(rng.uniform(-ROLL_LIMIT_DEG, ROLL_LIMIT_DEG)),
        age_years=float(rng.uniform(*AGE_RANGE_YEARS)),
        light_deg=float(rng.uniform(-LIGHT_LIMIT_DEG, LIGHT_LIMIT_DEG)),
        skin=float(np.clip(who.skin + rng.uniform(-0.06, 0.06), 0, 1)),
        glasses=bool(rng.uniform() < 0.4),
        beard=bool(rng.uniform() < 0.3),
        hat=bool(rng.uniform() < 0.25),
        expression=_pick(EXPRESSIONS, rng),
        hair=who.hair if usual else other,
    )


def chance(seed: int, index: int) -> np.random.Generator:
    """Return the source of what no label describes in a picture: background, place, size, clothes, noise."""
    return np.random.default_rng([seed, _CHANCE_STREAM, index])


def _pick(options: Sequence[_Option], rng: np.random.Generator) -> _Option:
    """Return one of the options."""
    return options[int(rng.integers(len(options)))]
