"""Long files through a fixed window: what is cut, what is kept, and notes that outlive a window.

The models see `WINDOW_FRAMES` frames at once, so one compiled shape serves every length and the memory does
not grow with the file. Neighbours overlap by twice `MARGIN_FRAMES`; only the middle of each is kept, where
every frame has the context that it would have had in the whole file.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from mfm_jax.axes import HOP, WINDOW_FRAMES

MARGIN_FRAMES = 128  # 0.74 s: covers the longest analysis window and the codec's convolutions
KEPT_FRAMES = WINDOW_FRAMES - 2 * MARGIN_FRAMES


class Window(NamedTuple):
    """A piece of a long file: `wave` starts `MARGIN_FRAMES` before frame `start`; `frames` are kept."""

    start: int  # first kept frame
    frames: int  # kept
    wave: np.ndarray  # float32 [WINDOW_FRAMES * HOP], zeros outside the file

    def keep(self, frames: np.ndarray) -> np.ndarray:
        """Cut the kept frames out of an array [WINDOW_FRAMES, ...]."""
        return frames[MARGIN_FRAMES : MARGIN_FRAMES + self.frames]


def frame_count(samples: int) -> int:
    """Count the frames that cover so many samples."""
    return -(-samples // HOP)


def starts(frames: int) -> Iterator[tuple[int, int]]:
    """Give (first kept frame, kept frames) of every window over so many frames."""
    for start in range(0, frames, KEPT_FRAMES):
        yield start, min(KEPT_FRAMES, frames - start)


def cut(blocks: Iterable[np.ndarray]) -> Iterator[Window]:
    """Cut mono audio that arrives in blocks of any length into overlapping windows.

    Holds one window and one block, whatever the length of the file.
    """
    size, step, margin = WINDOW_FRAMES * HOP, KEPT_FRAMES * HOP, MARGIN_FRAMES * HOP
    held = np.zeros(margin, np.float32)
    start = 0
    for block in blocks:
        held = np.concatenate([held, block.astype(np.float32, copy=False)])
        while len(held) >= size:
            yield Window(start, KEPT_FRAMES, held[:size])
            held = held[step:]
            start += KEPT_FRAMES
    while len(held) > margin:
        wave = np.pad(held[:size], (0, max(0, size - len(held))))
        yield Window(start, min(KEPT_FRAMES, frame_count(len(held) - margin)), wave)
        held = held[step:]
        start += KEPT_FRAMES


class NoteStream:
    """Turn roll probabilities that arrive window by window into the notes that the whole roll would give.

    A note is given out once its end has been seen; frames from the earliest one still sounding are held back.
    Notes longer than `longest` frames end there, which bounds the memory.
    """

    context = 32  # frames held before the cut, for peak picking and refinement
    longest = 4 * WINDOW_FRAMES

    def __init__(self, decode: Callable[[np.ndarray], np.ndarray]):
        """Take the function from probabilities [F, 128, 3] to notes [n, 4] in frames."""
        self._decode = decode
        self._held: np.ndarray | None = None
        self._first = 0  # position in the file of the first held frame
        self._done = 0  # notes with onsets before this frame have been given out

    def push(self, probabilities: np.ndarray) -> np.ndarray:
        """Add the next frames [n, 128, 3]; give the notes [m, 4] now complete, in frames of the file."""
        held = probabilities if self._held is None else np.concatenate([self._held, probabilities])
        notes = self._decode(held)
        end = len(held) - self.context
        open_onsets = notes[notes[:, 1] >= end, 0]
        until = int(min(end, np.floor(open_onsets.min()) - 1 if len(open_onsets) else end))
        until = max(until, len(held) - self.longest, self._done - self._first)
        complete = self._take(notes, until)
        drop = max(0, until - self.context)
        self._held = held[drop:].copy()
        self._first += drop
        return complete

    def close(self) -> np.ndarray:
        """Give the notes that were still held back."""
        if self._held is None:
            return np.zeros((0, 4))
        notes = self._take(self._decode(self._held), len(self._held) + 1)
        self._held = None
        return notes

    def _take(self, notes: np.ndarray, until: int) -> np.ndarray:
        notes = notes.astype(np.float64)
        notes[:, :2] += self._first
        chosen = notes[(notes[:, 0] >= self._done) & (notes[:, 0] < self._first + until)]
        self._done = max(self._done, self._first + until)
        return chosen
