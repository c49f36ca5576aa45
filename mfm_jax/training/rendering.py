"""Notes to audio through a General MIDI sound bank: libfluidsynth kept open, so that a bank is loaded once.

Only data preparation needs it. The library comes with the `fluidsynth` package of every system
(`apt install fluidsynth`, `brew install fluid-synth`); API: https://www.fluidsynth.org/api/.
"""

import ctypes
import ctypes.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mfm_jax.axes import SAMPLE_RATE

BLOCK = 64  # samples: libfluidsynth starts and stops notes on multiples of this (1.45 ms)
CHANNELS = 64
FINE_TUNE = 52  # SoundFont generator: cents
MELODIC, DRUM = 0, 1
LOG_LEVELS = 5


class Part(NamedTuple):
    """One instrument of a rendering: `notes` [n, 4] are onset s, offset s, pitch, velocity 1..127."""

    program: int
    is_drum: bool
    notes: np.ndarray


def _library() -> ctypes.CDLL:
    name = ctypes.util.find_library("fluidsynth")
    if name is None:
        raise ValueError("libfluidsynth is not installed: rendering needs it, try `apt install fluidsynth`")
    lib = ctypes.CDLL(name)
    pointer, text, number, real = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_double
    for function, result, arguments in [
        ("new_fluid_settings", pointer, []),
        ("fluid_settings_setnum", number, [pointer, text, real]),
        ("fluid_settings_setint", number, [pointer, text, number]),
        ("new_fluid_synth", pointer, [pointer]),
        ("delete_fluid_synth", None, [pointer]),
        ("delete_fluid_settings", None, [pointer]),
        ("fluid_synth_sfload", number, [pointer, text, number]),
        ("fluid_synth_get_sfont_by_id", pointer, [pointer, number]),
        ("fluid_synth_remove_sfont", number, [pointer, pointer]),
        ("fluid_synth_add_sfont", number, [pointer, pointer]),
        ("fluid_synth_set_channel_type", number, [pointer, number, number]),
        ("fluid_synth_program_change", number, [pointer, number, number]),
        ("fluid_synth_set_gen", number, [pointer, number, number, ctypes.c_float]),
        ("fluid_synth_noteon", number, [pointer, number, number, number]),
        ("fluid_synth_noteoff", number, [pointer, number, number]),
        ("fluid_synth_write_float", number, [pointer, number] + [pointer, number, number] * 2),
        ("fluid_set_log_function", pointer, [number, pointer, pointer]),
    ]:
        getattr(lib, function).restype = result
        getattr(lib, function).argtypes = arguments
    for level in range(
        LOG_LEVELS
    ):  # a bank without some preset falls back to another: not worth a line a note
        lib.fluid_set_log_function(level, None, None)
    return lib


class SoundBank:
    """A loaded sound bank; `render` is deterministic and keeps nothing between calls."""

    def __init__(self, path: str | Path) -> None:
        """Load a .sf2 or .sf3 file.

        Raises:
            ValueError: the file is missing or libfluidsynth cannot read it.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{path}: no such sound bank; give the path of a .sf2 or .sf3 file")
        self._lib: Any = _library()
        self._settings = self._lib.new_fluid_settings()
        for name, value in {"synth.sample-rate": float(SAMPLE_RATE), "synth.gain": 0.4}.items():
            self._lib.fluid_settings_setnum(self._settings, name.encode(), value)
        for name, count in {
            "synth.midi-channels": CHANNELS,
            "synth.reverb.active": 0,  # rooms are drawn by training/augment.py
            "synth.chorus.active": 0,
            "synth.polyphony": 256,
        }.items():
            self._lib.fluid_settings_setint(self._settings, name.encode(), count)
        self._synth = self._lib.new_fluid_synth(self._settings)
        font = self._lib.fluid_synth_sfload(self._synth, str(self.path).encode(), 1)
        if font < 0:
            raise ValueError(
                f"{path}: not a sound bank that libfluidsynth can read; give a .sf2 or .sf3 file"
            )
        self._font = self._lib.fluid_synth_get_sfont_by_id(self._synth, font)

    def _fresh(self) -> Any:
        """Move the bank to a new synthesiser: a used one keeps state of old voices, even after a reset."""
        self._lib.fluid_synth_remove_sfont(self._synth, self._font)
        self._lib.delete_fluid_synth(self._synth)
        self._synth = self._lib.new_fluid_synth(self._settings)
        self._lib.fluid_synth_add_sfont(self._synth, self._font)
        return self._synth

    @property
    def name(self) -> str:
        """The file's stem."""
        return self.path.stem

    def close(self) -> None:
        """Free the bank's memory."""
        if self._synth is not None:
            self._lib.delete_fluid_synth(self._synth)
            self._lib.delete_fluid_settings(self._settings)
            self._synth = None

    def render(self, parts: Sequence[Part], seconds: float, cents: float = 0.0) -> np.ndarray:
        """Play the parts from second 0.

        Args:
            parts: at most 64 instruments; overlapping notes of one pitch must have been cut before.
            seconds: length of the result; what sounds beyond is dropped.
            cents: tuning of everything but drums.

        Returns:
            float32 [S], mono, unnormalised (peaks above 1 happen).
        """
        if len(parts) > CHANNELS:
            raise ValueError(f"{len(parts)} parts: a rendering holds at most {CHANNELS}; merge some")
        lib, synth = self._lib, self._fresh()
        for channel, part in enumerate(parts):
            lib.fluid_synth_set_channel_type(synth, channel, DRUM if part.is_drum else MELODIC)
            lib.fluid_synth_program_change(synth, channel, part.program)
            lib.fluid_synth_set_gen(synth, channel, FINE_TUNE, 0.0 if part.is_drum else cents)
        n_samples = round(seconds * SAMPLE_RATE)
        n_blocks = -(-n_samples // BLOCK)
        stereo = np.zeros((2, n_blocks * BLOCK), np.float32)
        left, right = stereo[0].ctypes.data, stereo[1].ctypes.data
        position = 0

        def play_until(block: int) -> None:
            nonlocal position
            if block > position:
                start, length = position * BLOCK, (block - position) * BLOCK
                lib.fluid_synth_write_float(synth, length, left, start, 1, right, start, 1)
                position = block

        for block, velocity, channel, pitch in _events(parts):
            if block >= n_blocks:
                break
            play_until(block)
            if velocity:
                lib.fluid_synth_noteon(synth, channel, pitch, velocity)
            else:
                lib.fluid_synth_noteoff(synth, channel, pitch)
        play_until(n_blocks)
        return stereo.mean(axis=0)[:n_samples]


def _events(parts: Sequence[Part]) -> list[tuple[int, int, int, int]]:
    """List (block, velocity or 0 for off, channel, pitch) in playing order: offs before ons of one block."""
    events: list[tuple[int, int, int, int]] = []
    for channel, part in enumerate(parts):
        if not len(part.notes):
            continue
        starts = np.maximum(np.rint(part.notes[:, 0] * SAMPLE_RATE / BLOCK), 0).astype(int)
        stops = np.maximum(np.rint(part.notes[:, 1] * SAMPLE_RATE / BLOCK).astype(int), starts + 1)
        pitches = part.notes[:, 2].astype(int)
        velocities = np.clip(np.rint(part.notes[:, 3]), 1, 127).astype(int)
        events += zip(starts.tolist(), velocities.tolist(), [channel] * len(starts), pitches.tolist())
        events += zip(stops.tolist(), [0] * len(starts), [channel] * len(starts), pitches.tolist())
    return sorted(events)
