"""One picture: a person dressed as the labels say, rendered before a background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from facetask.plugins.datasets.rendered_faces.head import ARC, FACE_ROWS, FACE_THETA, Head, features
from facetask.plugins.datasets.rendered_faces.paint import FacePainter, beard_cover, hair_texture, skin_colour
from facetask.plugins.datasets.rendered_faces.people import HAIR_COLOURS
from facetask.plugins.datasets.rendered_faces.scene import Light, Scene, render, rotation
from facetask.plugins.datasets.rendered_faces.wear import HATS, STYLES, bare, glasses, hair, hat, roots

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.plugins.datasets.rendered_faces.mesh import Array
    from facetask.plugins.datasets.rendered_faces.people import Person, Picture

_NECK_TOP = np.array([0.0, 0.62, -0.22])
_GREY = np.float32(0.72)
_BACKGROUND_SIDE = 48


def draw(person: Person, picture: Picture, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture, ``(size, size, 3)`` RGB.

    Args:
        person: Who is drawn.
        picture: The labels.
        size: Height and width in pixels.
        rng: For all that no label describes.
    """
    colours, cover = render(dress(person, picture, rng), size)
    image = colours + _background(size, rng) * (1 - cover)
    exposure = rng.uniform(0.88, 1.1) * rng.uniform(0.96, 1.04, (3, 1, 1))
    image *= exposure.astype(np.float32)
    image += np.float32(rng.uniform(0.004, 0.014)) * rng.standard_normal(image.shape, np.float32)
    pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def dress(person: Person, picture: Picture, rng: np.random.Generator) -> Scene:
    """Return the scene of a picture: the person with all that is worn, its colours, its light and its place."""
    spec = features(person, picture)
    head = Head(person, spec)
    skin = skin_colour(picture.skin, person.undertone)
    style = STYLES[picture.hair]
    natural = np.asarray(HAIR_COLOURS[person.hair_colour], np.float32)
    grey = float(np.clip((picture.age_years - 36) / 36, 0, 1))
    faded = natural + (_GREY - natural) * np.float32(0.85 * grey)
    goatee = bool(rng.uniform() < 0.4)
    turn = rotation(picture.yaw_deg, picture.pitch_deg, picture.roll_deg)

    painter = FacePainter(spec, person, skin, rng)
    painter.skin_tones()
    painter.age_lines()
    painter.nose()
    beard = None
    if picture.beard:
        painter.beard(goatee, 0.9 * faded)
        beard = beard_cover(spec, goatee, ARC * FACE_THETA, FACE_ROWS[:, None])
    painter.mouth()
    gaze = (float(rng.uniform(-0.025, 0.025)), float(rng.uniform(-0.015, 0.015)))
    painter.eyes(gaze, 1.0 if picture.light_deg > 0 else -1.0)
    painter.brows(faded)
    parts = [head.face(beard, bare(style, picture.hat, FACE_THETA, FACE_ROWS))]
    if style is None or not style.length:
        parts += head.ears()
    textures = {"skin": skin[:, None, None], "cloth": _dye(rng, 0.15, 0.85), "frame": _dye(rng, 0.03, 0.35)}
    if style is not None:
        painter.roots(roots(style, painter.s, painter.t) * np.float32(0.95), 0.75 * faded)
        parts += hair(head, style, picture.hat, rng)
        base = natural + (_GREY - natural) * np.float32(0.3 * grey)
        textures["hair"] = hair_texture(base, grey, picture.hair == "curly", rng)
    if picture.hat:
        kind = HATS[rng.integers(len(HATS))]
        painter.hat_shadow()
        parts += hat(head, kind)
        textures["hat"] = _dye(rng, 0.1, 0.8)
        textures["visor"] = textures["hat"] * np.float32(0.75)
        if kind == "beanie":
            ribs = 1 + 0.12 * np.sin(np.linspace(0, 64 * np.pi, 256, dtype=np.float32))
            textures["hat"] = textures["hat"] * ribs
    lenses = []
    if picture.glasses:
        frame, lenses = glasses(head, float(rng.uniform(2, 4)), float(rng.uniform(0.92, 1.12)))
        parts += frame
    textures["face"] = painter.pixels
    shoulders = np.radians(0.35 * picture.yaw_deg + rng.uniform(-15, 15))
    return Scene(
        head=parts,
        body=head.neck(turn @ _NECK_TOP, float(shoulders)),
        lenses=lenses,
        lens_tint=float(rng.uniform(0.5, 0.85) if rng.uniform() < 0.12 else rng.uniform(0.03, 0.12)),
        textures=textures,
        rotation=turn,
        light=Light(
            side_deg=picture.light_deg,
            rise_deg=float(rng.uniform(10, 45)),
            strength=float(rng.uniform(0.42, 0.62)),
            ambient=float(rng.uniform(0.50, 0.60)),
        ),
        centre=(0.5 + float(rng.uniform(-0.045, 0.045)), 0.505 + float(rng.uniform(-0.04, 0.04))),
        scale=float(rng.uniform(0.365, 0.43)),
    )


def _dye(rng: np.random.Generator, low: float, high: float) -> Array:
    """Return a colour of no great saturation as a texture of one texel, ``(3, 1, 1)``."""
    colour = rng.uniform(low, high, 3)
    return (colour + 0.55 * (colour.mean() - colour)).astype(np.float32)[:, None, None]


def _background(size: int, rng: np.random.Generator) -> Array:
    """Return a room out of focus, ``(3, size, size)`` in [0, 1]: overlapping shapes, more or less blurred."""
    side = _BACKGROUND_SIDE

    def colour() -> tuple[int, int, int]:
        red, green, blue = (255 * _dye(rng, 0.15, 0.85)).astype(int).ravel()
        return int(red), int(green), int(blue)

    room = Image.new("RGB", (side, side), colour())
    pen = ImageDraw.Draw(room)
    for _ in range(rng.integers(3, 10)):
        x0, x1 = np.sort(rng.uniform(-0.2 * side, 1.2 * side, 2))
        y0, y1 = np.sort(rng.uniform(-0.2 * side, 1.2 * side, 2))
        shape = pen.ellipse if rng.uniform() < 0.5 else pen.rectangle
        shape([x0, y0, x1, y1], fill=colour())
    room = room.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.8, 3.0))))
    pixels = np.asarray(room.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return pixels.transpose(2, 0, 1) * np.float32(1 / 255)
