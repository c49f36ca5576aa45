"""Small charts as PNG, drawn with Pillow alone: points, lines and bars on one pair of linear axes."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mfm_jax.music.tempo import Number

WIDTH, HEIGHT = 860, 480  # pixels
LEFT, RIGHT, TOP, BOTTOM = 76, 20, 44, 58
PAPER, INK, GRID = (250, 250, 248), (40, 40, 46), (224, 224, 220)
COLOURS = ((38, 96, 164), (206, 88, 40), (46, 134, 80), (146, 72, 160))
RADIUS = 3
Place = Callable[[Number, Number], tuple[float, float]]  # values to pixels


class Series(NamedTuple):
    """One set of values; `bars` stand on zero and fill the space between neighbours."""

    label: str
    x: Sequence[Number]
    y: Sequence[Number]
    kind: Literal["points", "line", "bars"] = "points"


def chart(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> Image.Image:
    """Draw series whose x and y are finite; series without values are named in the legend only."""
    image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    canvas = ImageDraw.Draw(image)
    font, large = ImageFont.load_default(13), ImageFont.load_default(17)
    canvas.text((LEFT, 10), title.encode("ascii", "replace").decode(), INK, font=large)
    has_bars = any(one.kind == "bars" for one in series)
    xs = np.concatenate([np.asarray(one.x, float) for one in series] or [np.zeros(0)])
    ys = np.concatenate([np.asarray(one.y, float) for one in series] or [np.zeros(0)])
    step = float(np.min(np.diff(np.unique(xs)), initial=np.inf)) if has_bars else 0.0
    half = step / 2 if np.isfinite(step) else 0.5
    x_range = _range(xs, half)
    y_range = _range(np.append(ys, 0.0) if has_bars else ys, 0.0)

    def place(x: Number, y: Number) -> tuple[float, float]:
        across = (x - x_range[0]) / (x_range[1] - x_range[0])
        up = (y - y_range[0]) / (y_range[1] - y_range[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    for mark in _ticks(*x_range):
        x, _ = place(mark, y_range[0])
        canvas.line((x, TOP, x, HEIGHT - BOTTOM), GRID)
        canvas.text((x, HEIGHT - BOTTOM + 6), f"{mark:g}", INK, font=font, anchor="ma")
    for mark in _ticks(*y_range):
        _, y = place(x_range[0], mark)
        canvas.line((LEFT, y, WIDTH - RIGHT, y), GRID)
        canvas.text((LEFT - 8, y), f"{mark:g}", INK, font=font, anchor="rm")
    canvas.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 24), x_label, INK, font=font, anchor="ma")
    canvas.text((8, TOP - 18), y_label, INK, font=font)
    for number, one in enumerate(series):
        _draw(canvas, one, COLOURS[number % len(COLOURS)], place, half)
    _legend(canvas, series, font)
    return image


def histogram(title: str, x_label: str, values: np.ndarray, reach: float, step: float) -> Image.Image:
    """Draw how many of the values fall into each step from -reach to reach."""
    edges = np.arange(-reach, reach + step / 2, step)
    heights = np.histogram(values, edges)[0].tolist()
    return chart(
        title, x_label, "notes", [Series("notes", (edges[:-1] + step / 2).tolist(), heights, "bars")]
    )


def _draw(
    canvas: ImageDraw.ImageDraw, one: Series, colour: tuple[int, int, int], place: Place, half: float
) -> None:
    points = [place(x, y) for x, y in zip(one.x, one.y)]
    if one.kind == "line" and len(points) > 1:
        canvas.line(points, colour, 2)
    elif one.kind == "points":
        for x, y in points:
            canvas.ellipse((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), colour)
    elif one.kind == "bars":
        for value in zip(one.x, one.y):
            left, top = place(value[0] - half * 0.9, value[1])
            right, base = place(value[0] + half * 0.9, 0.0)
            canvas.rectangle((left, min(top, base), max(right, left + 1), max(top, base)), colour)


def _legend(
    canvas: ImageDraw.ImageDraw, series: Sequence[Series], font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> None:
    if len(series) < 2:
        return
    y = TOP + 6
    for number, one in enumerate(series):
        width = canvas.textlength(one.label, font=font)
        canvas.rectangle((WIDTH - RIGHT - width - 24, y, WIDTH - RIGHT - 4, y + 16), PAPER)
        left = WIDTH - RIGHT - width - 20
        canvas.rectangle((left, y + 4, left + 9, y + 13), COLOURS[number % len(COLOURS)])
        canvas.text((left + 14, y + 1), one.label, INK, font=font)
        y += 18


def _range(values: np.ndarray, margin: float) -> tuple[float, float]:
    """Give the span of the values, a little wider; a span of its own where they have none."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()) - margin, float(values.max()) + margin
    room = 0.04 * (high - low) or 0.5
    return low - (room if low != 0 else 0.0), high + room


def _ticks(low: float, high: float) -> list[float]:
    """Give four to ten round numbers within a span."""
    rough = (high - low) / 6
    size = 10.0 ** np.floor(np.log10(rough))
    step = float(size * min((1, 2, 5, 10), key=lambda k: abs(k * size - rough)))
    return [round(k * step, 10) for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]
