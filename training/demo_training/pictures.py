"""Pictures of shapes, and of digits, drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw, ImageFont

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (222, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 210, 40),
    "orange": (245, 135, 30),
    "purple": (140, 50, 180),
    "black": (25, 25, 25),
}
KINDS = ("circle", "square", "triangle", "star")

_JITTER = 14  # of a colour channel
_FINER = 3  # pictures are drawn so many times as large, then reduced: smooth edges
_LIGHT = [(255, 255, 255), (255, 255, 255), (240, 240, 240), (225, 232, 240), (250, 244, 228)]


@dataclass(frozen=True, slots=True)
class Shape:
    """Centre and radius are in parts of the picture's width, height and shorter side."""

    kind: str
    colour: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        """Such as "red circle"."""
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture as a list of what is on it."""

    width: int
    height: int
    shapes: tuple[Shape, ...]

    def left_to_right(self) -> list[Shape]:
        """The shapes by their centres."""
        return sorted(self.shapes, key=lambda shape: shape.x)

    def draw(self, random: Random) -> Image.Image:
        """The same scene looks different with every `random`."""
        size = (self.width * _FINER, self.height * _FINER)
        picture = Image.new("RGB", size, random.choice(_LIGHT))
        pen = ImageDraw.Draw(picture)
        for shape in self.shapes:
            radius = shape.radius * min(size)
            centre = (shape.x * size[0], shape.y * size[1])
            colour, tilt = _jittered(shape.colour, random), random.uniform(-0.12, 0.12)
            _draw_shape(pen, shape.kind, centre, radius, tilt, colour)
        return picture.resize((self.width, self.height), Image.Resampling.BOX)


def label(shape: Shape) -> int:
    """A number from 1 for each colour and kind."""
    return 1 + list(COLOURS).index(shape.colour) * len(KINDS) + KINDS.index(shape.kind)


NUM_SHAPE_LABELS = 1 + len(COLOURS) * len(KINDS)


def picture_size(random: Random) -> tuple[int, int]:
    """Width and height in pixels: every layout of tiles, icons and larger pictures."""
    short = random.choice([random.randint(56, 96), random.randint(96, 200), 128, 256])
    ratio = random.choice([1.0, 1.0, random.uniform(1.0, 2.0), random.uniform(1.0, 1.5)])
    sides = (round(short * ratio), short)
    return sides if random.random() < 0.6 else (sides[1], sides[0])


def place(names: Sequence[tuple[str, str]], random: Random, x_gap: float = 0.0) -> Scene:
    """Puts shapes of (colour, kind) somewhere without touching; `x_gap` apart from left to right.

    With two shapes, one is clearly beside or clearly above the other.
    """
    width, height = picture_size(random)
    while True:
        smallest, largest = (0.14, 0.32) if len(names) < 3 else (0.1, 0.17)
        if len(names) > 1:
            largest = min(largest, 0.24)
        if min(width, height) < 90:
            smallest = max(smallest, 0.16 if len(names) < 3 else 0.12)
        for _ in range(60):
            scene = Scene(
                width, height, _somewhere(names, smallest, largest, width, height, random)
            )
            if _fits(scene, x_gap):
                return scene
        width, height = picture_size(random)


def _somewhere(
    names: Sequence[tuple[str, str]],
    smallest: float,
    largest: float,
    width: int,
    height: int,
    random: Random,
) -> tuple[Shape, ...]:
    shapes = []
    for colour, kind in names:
        radius = random.uniform(smallest, largest)
        margin_x = radius * min(width, height) / width + 0.01
        margin_y = radius * min(width, height) / height + 0.01
        x = random.uniform(margin_x, 1 - margin_x)
        y = random.uniform(margin_y, 1 - margin_y)
        shapes.append(Shape(kind, colour, x, y, radius))
    return tuple(shapes)


def _fits(scene: Scene, x_gap: float) -> bool:
    short = min(scene.width, scene.height)
    for i, one in enumerate(scene.shapes):
        for other in scene.shapes[:i]:
            dx = (one.x - other.x) * scene.width
            dy = (one.y - other.y) * scene.height
            if math.hypot(dx, dy) < (one.radius + other.radius) * short * 1.1 + 2:
                return False
            if abs(one.x - other.x) < x_gap:
                return False
            if len(scene.shapes) == 2 and not _clear(abs(dx), abs(dy)):
                return False
    return True


def _clear(dx: float, dy: float) -> bool:
    return max(dx, dy) > 1.7 * min(dx, dy)


def relation(one: Shape, other: Shape, scene: Scene) -> str:
    """Where `one` is, seen from `other`."""
    dx = (one.x - other.x) * scene.width
    dy = (one.y - other.y) * scene.height
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def zone(shape: Shape) -> str | None:
    """Which ninth of the picture a shape is in; None if it is near the border of two."""
    row, column = _third(shape.y), _third(shape.x)
    if row is None or column is None:
        return None
    if row == column == 1:
        return "in the middle"
    words = [("at the top", "", "at the bottom")[row], ("left", "", "right")[column]]
    if not words[0]:
        return f"on the {words[1]}"
    return " ".join(word for word in words if word)


def _third(value: float) -> int | None:
    for third, (start, end) in enumerate([(0, 0.3), (0.38, 0.62), (0.7, 1)]):
        if start <= value <= end:
            return third
    return None


def _jittered(colour: str, random: Random) -> Rgb:
    red, green, blue = (
        min(255, max(0, value + random.randint(-_JITTER, _JITTER))) for value in COLOURS[colour]
    )
    return red, green, blue


def _draw_shape(
    pen: ImageDraw.ImageDraw,
    kind: str,
    centre: tuple[float, float],
    radius: float,
    tilt: float,
    colour: Rgb,
) -> None:
    x, y = centre
    if kind == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        return
    if kind == "square":
        corners = [(radius, math.pi / 4 + i * math.pi / 2) for i in range(4)]
    elif kind == "triangle":
        corners = [(radius, -math.pi / 2 + i * 2 * math.pi / 3) for i in range(3)]
    else:
        corners = [
            (radius * (0.42 if i % 2 else 1.0), -math.pi / 2 + i * math.pi / 5) for i in range(10)
        ]
    points = [
        (x + length * math.cos(angle + tilt), y + length * math.sin(angle + tilt))
        for length, angle in corners
    ]
    pen.polygon(points, fill=colour)


# Strokes of handwritten digits, in a box of 100 x 100: points joined by smooth lines.
# Strokes are parted by slashes; a digit may be written in several ways.
_WRITTEN: dict[int, tuple[str, ...]] = {
    0: ("50,0 15,20 10,55 25,95 60,100 88,70 85,25 50,0",),
    1: (
        "50,0 50,100",
        "25,22 55,0 55,100",
    ),
    2: ("12,22 40,0 80,12 80,40 45,70 10,100 90,100",),
    3: ("15,10 50,0 80,18 70,42 40,48 78,55 85,80 50,100 12,88",),
    4: (
        "65,0 10,65 95,65 / 68,30 68,100",
        "20,0 15,50 85,50 / 80,0 75,100",
    ),
    5: ("85,0 22,0 18,45 / 18,45 55,38 88,62 75,92 40,100 10,88",),
    6: ("75,0 35,25 14,65 30,97 70,97 85,70 60,50 30,55 15,72",),
    7: (
        "10,0 90,0 40,100",
        "10,0 90,0 40,100 / 35,50 80,50",
    ),
    8: ("50,48 18,28 30,3 70,3 82,28 50,48 14,72 30,98 70,98 86,72 50,48",),
    9: (
        "80,25 55,0 22,12 20,40 50,52 80,25 80,60 65,100",
        "80,28 50,0 20,25 45,50 80,28 75,70 35,100",
    ),
}

Point = tuple[float, float]


def _strokes(written: str) -> list[list[Point]]:
    """The strokes of one way to write a digit, in a box of 1 x 1."""
    strokes = []
    for stroke in written.split(" / "):
        pairs = [point.split(",") for point in stroke.split()]
        strokes.append([(int(x) / 100, int(y) / 100) for x, y in pairs])
    return strokes


def draw_digit(digit: int, random: Random) -> Image.Image:
    """A digit on a plain ground, printed or as if by hand, dark on light or light on dark."""
    return place_digit(digit, random)[0]


def place_digit(digit: int, random: Random) -> tuple[Image.Image, Point]:
    """The picture, and the digit's centre in parts of width and height."""
    side = random.choice([28, 32, 48, 64, 64, 96, 128, 160, 200])
    width = round(side * random.choice([1, 1, random.uniform(1, 1.4)]))
    dark, light = random.randint(0, 70), random.randint(215, 255)
    ground, ink = (light, dark) if random.random() < 0.7 else (dark, light)
    ground_rgb, ink_rgb = (ground,) * 3, (ink,) * 3
    if ground > ink and random.random() < 0.3:
        ink_rgb = _jittered(random.choice(["red", "green", "blue", "purple"]), random)
    finer = max(1, 180 // side)
    picture = Image.new("RGB", (width * finer, side * finer), ground_rgb)
    height = side * finer * random.uniform(0.5, 0.88)
    paint = _print_digit if random.random() < 0.35 else _write_digit
    x, y = paint(picture, digit, height, ink_rgb, random)
    centre = (x / picture.width, y / picture.height)
    return picture.resize((width, side), Image.Resampling.BOX), centre


def _print_digit(
    picture: Image.Image, digit: int, height: float, ink: Rgb, random: Random
) -> Point:
    font = ImageFont.load_default(size=height * 1.3)
    pen = ImageDraw.Draw(picture)
    left, top, right, bottom = pen.textbbox((0, 0), str(digit), font=font)
    x = random.uniform(0.02, 0.98) * max(0, picture.width - (right - left)) - left
    y = random.uniform(0.1, 0.9) * max(0, picture.height - (bottom - top)) - top
    pen.text((x, y), str(digit), fill=ink, font=font)
    return x + (left + right) / 2, y + (top + bottom) / 2


def _write_digit(
    picture: Image.Image, digit: int, height: float, ink: Rgb, random: Random
) -> Point:
    wide = height * random.uniform(0.5, 0.75)
    left = random.uniform(0.1, 0.9) * max(0.0, picture.width - wide)
    top = random.uniform(0.1, 0.9) * max(0.0, picture.height - height)
    slant = random.uniform(-0.2, 0.25)
    turn = random.uniform(-0.15, 0.15)
    thick = max(2, round(height * random.uniform(0.06, 0.14)))
    pen = ImageDraw.Draw(picture)
    for stroke in _strokes(random.choice(_WRITTEN[digit])):
        shaken = [
            (x + random.uniform(-0.05, 0.05), y + random.uniform(-0.04, 0.04)) for x, y in stroke
        ]
        points = []
        for x, y in _smooth(shaken) if len(stroke) > 3 else shaken:
            x, y = x - 0.5 + slant * (0.5 - y), y - 0.5
            x, y = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
            points.append((left + (x + 0.5) * wide, top + (y + 0.5) * height))
        pen.line(points, fill=ink, width=thick, joint="curve")
        for x, y in (points[0], points[-1]):
            pen.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=ink)
    return left + wide / 2, top + height / 2


def _smooth(points: list[Point], steps: int = 8) -> list[Point]:
    """A Catmull-Rom curve through the points."""
    padded = [points[0], *points, points[-1]]
    curve = []
    for before, start, end, after in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for step in range(steps):
            t = step / steps
            curve.append(tuple(
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
                       + (3 * b - a - 3 * c + d) * t**3)
                for a, b, c, d in zip(before, start, end, after, strict=True)
            ))  # fmt: skip
    return [*curve, points[-1]]  # type: ignore[list-item]  # the tuples have two elements
