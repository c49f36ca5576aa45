"""What a workflow gives back: sound, score, latent and the facts that make it again."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.inference.outputs import write_json, write_notes_csv
from mfm_jax.inference.picture import draw
from mfm_jax.inference.tape import write_blocks
from mfm_jax.music.midi import write_midi
from mfm_jax.music.notes import Score


@dataclasses.dataclass(frozen=True)
class Piece:
    """Music as sound and score.

    Attributes:
        audio: mono, float32 [S] at `sample_rate`; None where the workflow makes no sound.
        score: tracks of notes on a tempo map.
        z: the music latent, float32 [T, 64], one row a tick; None where the workflow has none.
        facts: seed, understood controls, hashes, versions: all that it takes to make the piece again.
    """

    audio: np.ndarray | None
    score: Score
    z: np.ndarray | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    sample_rate: int = SAMPLE_RATE

    def save(self, folder: str | Path) -> None:
        """Write audio.wav, score.mid, score.csv, latents.npz, picture.png and params.json into a folder."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        audio = np.zeros(0, np.float32) if self.audio is None else self.audio
        sketch = write_blocks(target / "audio.wav", [audio])
        write_midi(target / "score.mid", self.score)
        write_notes_csv(target / "score.csv", self.score)
        if self.z is not None:
            tempo = self.score.tempo
            np.savez(target / "latents.npz", z=self.z, tempo_ticks=tempo.ticks, tempo_bpm=tempo.bpm)
        draw(target / "picture.png", str(self.facts.get("prompt", self.score.title)), sketch, self.score)
        write_json(target / "params.json", self.facts)
