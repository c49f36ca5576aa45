"""Outside ears: transcribers of other projects, that say which notes a recording holds."""

import contextlib
import functools
import io
import logging
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mfm_jax.evaluation.note_files import read_notes
from mfm_jax.music.notes import Notes

Referee = Callable[[Path], Notes]  # a recording -> its notes in seconds
NAMES = ("basic-pitch", "transkun")


def referee(name: str) -> Referee:
    """Give a referee by name.

    Raises:
        ValueError: an unknown name, or one that is not installed.
    """
    if name not in NAMES:
        raise ValueError(f"referee {name!r}: must be one of {', '.join(NAMES)}")
    if name == "transkun":
        if shutil.which("transkun") is None:
            raise ValueError("referee transkun: not installed; pip install transkun, or take basic-pitch")
        return _transkun
    _basic_pitch_model()
    return _basic_pitch


@functools.cache
def _basic_pitch_model() -> Any:
    """Load basic-pitch's ONNX file (Bittner et al., ICASSP 2022); the TensorFlow it declares is not used."""
    try:
        with _quiet():
            from basic_pitch import ICASSP_2022_MODEL_PATH
            from basic_pitch.inference import Model

            return Model(Path(ICASSP_2022_MODEL_PATH).with_suffix(".onnx"))
    except ImportError as error:
        raise ValueError(
            f"referee basic-pitch: not installed ({error}); pip install 'mfm-jax[eval]' and then "
            "pip install --no-deps basic-pitch==0.4.0"
        ) from None


def _basic_pitch(path: Path) -> Notes:
    with _quiet():
        from basic_pitch.inference import predict

        _, _, events = predict(path, _basic_pitch_model())
    rows = sorted((e[0], e[1], float(e[2]), float(np.clip(round(127 * e[3]), 1, 127))) for e in events)
    return np.array(rows, np.float64).reshape(-1, 4)


def _transkun(path: Path) -> Notes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "heard.mid"
        done = subprocess.run(["transkun", path, out], capture_output=True, text=True)
        if done.returncode or not out.is_file():
            raise RuntimeError(f"transkun on {path}: {done.stderr.strip().splitlines()[-1:]}")
        return read_notes(out, pedal=True).pitched


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep what the referee prints, logs and warns of away from our output."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
