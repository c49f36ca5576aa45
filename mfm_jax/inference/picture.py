"""One picture of a result: waveform, spectrogram and piano roll on one time axis, drawn with Pillow alone."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.music.notes import Score, notes_in_seconds

WIDTH, LEFT, RIGHT = 1600, 74, 16  # pixels
TITLE, WAVE, SPECTRUM, ROLL, AXIS, GAP = 34, 130, 300, 420, 30, 12
COLUMN = 2_048  # samples per column of the sketch
FFT = 4_096
BANDS, LOWEST, HIGHEST = 150, 40.0, 16_000.0  # log-frequency bands, Hz
RANGE = 70.0  # dB shown
PAPER, INK, FAINT, BARLINE = (250, 250, 248), (40, 40, 46), (228, 228, 224), (176, 176, 172)
SIGNAL = (52, 92, 138)
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
TRACKS = [
    (38, 96, 164),
    (206, 88, 40),
    (46, 134, 80),
    (146, 72, 160),
    (186, 50, 74),
    (30, 138, 150),
    (150, 108, 34),
    (98, 98, 108),
]
HEAT = np.array(
    [(8, 6, 28), (52, 18, 92), (124, 36, 118), (196, 62, 92), (244, 124, 70), (252, 232, 170)], float
)


class Sketch:
    """Outline and spectrum of audio in blocks: two numbers and `BANDS` levels for each `COLUMN` samples."""

    def __init__(self) -> None:
        edges = np.geomspace(LOWEST, HIGHEST, BANDS + 1) * FFT / SAMPLE_RATE
        low = np.floor(edges[:-1]).astype(int)
        self._bins = low, np.maximum(np.ceil(edges[1:]).astype(int), low + 1)
        self._window = np.hanning(FFT).astype(np.float32)
        self._rest = np.zeros(0, np.float32)
        self._outline: list[np.ndarray] = []
        self._levels: list[np.ndarray] = []
        self.samples = 0

    def push(self, block: np.ndarray) -> None:
        """Add mono samples."""
        self.samples += len(block)
        audio = np.concatenate([self._rest, block.astype(np.float32, copy=False)])
        count = max(0, (len(audio) - FFT) // COLUMN + 1)
        if count:
            self._add(audio, count)
        self._rest = audio[count * COLUMN :].copy()

    def close(self) -> None:
        """Add what is left, padded with silence."""
        count = -(-len(self._rest) // COLUMN)
        if count:
            self._add(np.pad(self._rest, (0, (count + 1) * COLUMN - len(self._rest))), count)
        self._rest = np.zeros(0, np.float32)

    def _add(self, audio: np.ndarray, count: int) -> None:
        columns = audio[: count * COLUMN].reshape(count, COLUMN)
        self._outline.append(np.stack([columns.min(1), columns.max(1)], 1))
        low, high = self._bins
        for first in range(0, count, 256):
            rows = range(first, min(first + 256, count))
            pieces = np.stack([audio[row * COLUMN : row * COLUMN + FFT] for row in rows])
            power = np.abs(np.fft.rfft(pieces * self._window)) ** 2
            total = np.cumsum(np.pad(power, ((0, 0), (1, 0))), axis=1)
            mean = (total[:, high] - total[:, low]) / (high - low)
            self._levels.append((10 * np.log10(mean + 1e-9)).astype(np.float16))

    @property
    def outline(self) -> np.ndarray:
        """Lowest and highest sample of each column, [n, 2]."""
        return np.concatenate(self._outline) if self._outline else np.zeros((1, 2), np.float32)

    @property
    def levels(self) -> np.ndarray:
        """Level of each band in each column, dB, [n, BANDS], low frequencies first."""
        return np.concatenate(self._levels) if self._levels else np.full((1, BANDS), -90, np.float16)


def sketch(blocks: Iterable[np.ndarray]) -> Sketch:
    """Outline audio given in blocks."""
    made = Sketch()
    for block in blocks:
        made.push(block)
    made.close()
    return made


def draw(path: Path, title: str, audio: Sketch, score: Score) -> None:
    """Write a PNG of waveform, spectrogram and piano roll over the same seconds."""
    seconds = max(audio.samples / SAMPLE_RATE, score.seconds, 0.1)
    plot = WIDTH - LEFT - RIGHT
    height = TITLE + WAVE + SPECTRUM + ROLL + 2 * GAP + AXIS
    image = Image.new("RGB", (WIDTH, height), PAPER)
    canvas = ImageDraw.Draw(image)
    font, large = ImageFont.load_default(13), ImageFont.load_default(17)
    shown = title if len(title) < 150 else title[:147] + "..."
    canvas.text((LEFT, 7), shown.encode("ascii", "replace").decode(), INK, font=large)
    heard = max(1, round(plot * audio.samples / SAMPLE_RATE / seconds))  # width of the audio panels
    _waveform(canvas, audio, TITLE, heard)
    image.paste(_spectrogram(audio, heard), (LEFT, TITLE + WAVE + GAP))
    for hertz in (100, 1_000, 10_000):
        y = TITLE + WAVE + GAP + SPECTRUM * (1 - np.log(hertz / LOWEST) / np.log(HIGHEST / LOWEST))
        canvas.text((LEFT - 8, y), f"{hertz:,} Hz", INK, font=font, anchor="rm")
    top = TITLE + WAVE + SPECTRUM + 2 * GAP
    _roll(canvas, score, top, seconds, font)
    bottom = top + ROLL
    step = next((s for s in (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800) if seconds / s <= 16), 3_600)
    for mark in np.arange(0, seconds + 1e-6, step):
        x = LEFT + plot * mark / seconds
        canvas.line((x, bottom, x, bottom + 5), INK)
        canvas.text((x, bottom + 8), f"{mark:g} s", INK, font=font, anchor="ma")
    image.save(path, format="PNG", optimize=True)


def _pool(values: np.ndarray, width: int) -> np.ndarray:
    """Stretch or max-pool rows [n, ...] to `width` rows."""
    edges = np.linspace(0, len(values), width + 1)
    low = np.minimum(edges[:-1].astype(int), len(values) - 1)
    if width >= len(values):
        return values[low]
    return np.maximum.reduceat(values, low, axis=0)


def _waveform(canvas: ImageDraw.ImageDraw, audio: Sketch, top: int, width: int) -> None:
    middle = top + WAVE / 2
    canvas.rectangle((LEFT, top, WIDTH - RIGHT, top + WAVE), outline=FAINT)
    spans = _pool(audio.outline * np.array([-1, 1], np.float32), width)
    scale = WAVE / 2 / max(1.0, float(spans.max()))
    for column, (low, high) in enumerate(spans):
        canvas.line((LEFT + column, middle - high * scale, LEFT + column, middle + low * scale), SIGNAL)
    peak = float(spans.max())
    label = f"peak\n{20 * np.log10(peak):.1f} dB" if peak > 1e-4 else "silent"
    canvas.text((LEFT - 8, middle), label, INK, font=ImageFont.load_default(13), anchor="rm", align="right")


def _spectrogram(audio: Sketch, width: int) -> Image.Image:
    levels = audio.levels.astype(np.float32)
    shade = np.clip((levels - levels.max()) / RANGE + 1, 0, 1) * (levels.max() > -60)
    place = _pool(shade, width).T[::-1] * (len(HEAT) - 1)
    below = np.minimum(place.astype(int), len(HEAT) - 2)
    colours = HEAT[below] + (HEAT[below + 1] - HEAT[below]) * (place - below)[..., None]
    return Image.fromarray(colours.astype(np.uint8)).resize((width, SPECTRUM), Image.Resampling.BILINEAR)


def _roll(canvas: ImageDraw.ImageDraw, score: Score, top: int, seconds: float, font: Font) -> None:
    plot = WIDTH - LEFT - RIGHT
    pitches = np.concatenate([track.notes[:, 2] for track in score.tracks] or [np.zeros(0)])
    low = int(min(pitches.min(initial=60) - 2, 48))
    high = int(max(pitches.max(initial=72) + 3, 84))
    tall = ROLL / (high - low)
    canvas.rectangle((LEFT, top, WIDTH - RIGHT, top + ROLL), fill=(255, 255, 255), outline=FAINT)
    for pitch in range(low, high):
        y = top + ROLL - (pitch - low) * tall
        if pitch % 12 in (1, 3, 6, 8, 10):
            canvas.rectangle((LEFT, y - tall, WIDTH - RIGHT, y), fill=(244, 244, 242))
        if pitch % 12 == 0:
            canvas.line((LEFT, y, WIDTH - RIGHT, y), FAINT)
            canvas.text((LEFT - 8, y - tall / 2), f"C{pitch // 12 - 1}", INK, font=font, anchor="rm")
    for bar in score.tempo.tick_to_second(score.tempo.bars(score.end)):
        x = LEFT + plot * float(bar) / seconds
        canvas.line((x, top, x, top + ROLL), BARLINE)
    legend = LEFT + 8
    for number, track in enumerate(score.tracks):
        colour = np.array(TRACKS[number % len(TRACKS)], float)
        for onset, offset, pitch, velocity in notes_in_seconds(track.notes, score.tempo):
            y = top + ROLL - (pitch - low) * tall
            shade = tuple(int(c) for c in 255 + (colour - 255) * (0.35 + 0.65 * min(velocity, 127) / 127))
            x = LEFT + plot * onset / seconds
            end = max(LEFT + plot * offset / seconds - 1, x + 1)
            canvas.rectangle((x, y - tall + 1, end, max(y - 1, y - tall + 1)), fill=shade)
            canvas.line((x, y - tall + 1, x, y - 1), tuple(int(c) for c in colour))
        if legend < WIDTH - 160:
            name = f"{track.instrument.name} ({len(track.notes)})"
            wide = canvas.textlength(name, font=font)
            canvas.rectangle((legend - 4, top + 4, legend + wide + 18, top + 22), fill=(255, 255, 255))
            canvas.rectangle((legend, top + 8, legend + 9, top + 17), fill=TRACKS[number % len(TRACKS)])
            canvas.text((legend + 14, top + 6), name, INK, font=font)
            legend += int(wide) + 34
