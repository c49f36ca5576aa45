"""Where the figures and samples of a run go: JSON lines, TensorBoard, Weights & Biases."""

import importlib
import importlib.util
import json
import secrets
import sys
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import soundfile
from PIL import Image

from mfm_jax.config import config

PICTURE, SOUND = ".png", ".wav"  # suffixes of the samples that writers can show
Figures = dict[str, float]
Samples = dict[str, Path]


@config
class WandbConfig:
    """A run of Weights & Biases.

    Attributes:
        project: it belongs to.
        name: shown there; the run folder's if None.
        mode: `offline` writes below the run folder, to be sent by `wandb sync` later.
    """

    project: str
    name: str | None = None
    mode: Literal["online", "offline"] = "online"


@runtime_checkable
class Writer(Protocol):
    """One of the places."""

    def figures(self, step: int, figures: Figures) -> None:
        """Add the figures of a step."""

    def samples(self, step: int, samples: Samples) -> None:
        """Show pictures and sounds, files in the run folder, by name."""

    def close(self) -> None:
        """Write out and close."""


def make_writers(
    folder: Path, resumed_from: int, tensorboard: bool, wandb: WandbConfig | None, about: dict[str, Any]
) -> list[Writer]:
    """Open the writers of a run, or of what it goes on from.

    Args:
        folder: of the run.
        resumed_from: step; what was written of later ones does not count.
        tensorboard: whether to write its events.
        wandb: its run, None for none.
        about: the run's configs, shown beside its figures.

    Raises:
        ValueError: a package that is asked for is not installed.
    """
    for name, module, wanted in (
        ("tensorboard", "tensorboardX", tensorboard),
        ("wandb", "wandb", wandb is not None),
    ):
        if wanted and importlib.util.find_spec(module) is None:
            raise ValueError(
                f"{name}: {module} is not installed; pip install 'mfm-jax[{name}]', or leave {name} out"
            )
    writers: list[Writer] = [JsonLines(folder, resumed_from)]
    if tensorboard:
        writers.append(TensorBoard(folder, resumed_from))
    if wandb is not None:
        writers.append(Wandb(folder, wandb, about))
    return writers


def samples_in(folder: Path) -> Samples:
    """Give the pictures and sounds of a folder by the names that they are shown under."""
    found = sorted(path for path in folder.glob("*") if path.suffix in (PICTURE, SOUND))
    return {f"sample/{path.stem}{path.suffix}": path for path in found}


class JsonLines:
    """Appends figures to `metrics.jsonl`; lines beyond the step that a run resumes from are dropped."""

    def __init__(self, folder: Path, resumed_from: int) -> None:
        path = folder / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= resumed_from]
            temporary = path.with_suffix(".part")
            temporary.write_text("".join(line + "\n" for line in kept))
            temporary.replace(path)
        self._file = path.open("a")

    def figures(self, step: int, figures: Figures) -> None:
        """Add a line."""
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()

    def samples(self, step: int, samples: Samples) -> None:
        """Samples are files already."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Writes events below `tensorboard/`; those of steps that come again are purged by their reader."""

    def __init__(self, folder: Path, resumed_from: int) -> None:
        module: Any = importlib.import_module("tensorboardX")
        self._board = module.SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_from + 1)

    def figures(self, step: int, figures: Figures) -> None:
        """Add scalars."""
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def samples(self, step: int, samples: Samples) -> None:
        """Add images and sounds."""
        for name, path in samples.items():
            if path.suffix == PICTURE:
                self._board.add_image(
                    name, np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC"
                )
            elif path.suffix == SOUND:
                wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
                self._board.add_audio(name, wave.mean(1), step, sample_rate=rate)

    def close(self) -> None:
        """Write out and close."""
        self._board.close()


class Wandb:
    """Writes a run of Weights & Biases; a run that is resumed goes on in the same one."""

    def __init__(self, folder: Path, settings: WandbConfig, about: dict[str, Any]) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        known = folder / "wandb_id"
        if not known.exists():
            known.write_text(secrets.token_hex(4))
        self._run = self._wandb.init(
            project=settings.project,
            name=settings.name or folder.name,
            id=known.read_text().strip(),
            resume="allow",
            mode=settings.mode,
            dir=str(folder),
            config=about,
        )

    def figures(self, step: int, figures: Figures) -> None:
        """Log scalars."""
        self._run.log(figures, step=step)

    def samples(self, step: int, samples: Samples) -> None:
        """Log images and sounds."""
        kinds = {PICTURE: self._wandb.Image, SOUND: self._wandb.Audio}
        shown = {n: kinds[p.suffix](str(p)) for n, p in samples.items() if p.suffix in kinds}
        if shown:
            self._run.log(shown, step=step)

    def close(self) -> None:
        """Write out and end."""
        self._run.finish()


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return sys.maxsize  # cut off by a kill
