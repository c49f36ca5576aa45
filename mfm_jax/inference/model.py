"""The workflows as Python calls: lists in, lists out."""

from collections.abc import Sequence
from pathlib import Path

from mfm_jax.inference import workflows
from mfm_jax.inference.engine import Engine
from mfm_jax.inference.generation import generate
from mfm_jax.inference.pieces import Piece
from mfm_jax.inference.planning import Wish, seeds_of, understand
from mfm_jax.inference.tape import Source
from mfm_jax.music.notes import Score

Number = float | int


class MusicModel:
    """Generates, transcribes, synthesises, edits and explores music with one set of weights.

    Every call takes a list and gives a list of `Piece` in the same order; an item gives the same bytes alone
    and among others. Audio is a path or an array [S] at 44.1 kHz, a score is a path or a `Score`.
    """

    def __init__(self, engine: Engine):
        """Wrap loaded weights; users call `from_pretrained`."""
        self.engine = engine

    @classmethod
    def from_pretrained(cls, path: str | Path | None = None) -> "MusicModel":
        """Open a folder of weights; None for those that come with the package.

        Raises:
            ValueError: the folder is missing.
        """
        return cls(Engine(path))

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seed: int | Sequence[int] = 0,
        seconds: Number | None = None,
        bars: int | None = None,
        tempo: Number | None = None,
        key: str | None = None,
        metre: str | None = None,
        instruments: str | None = None,
        density: Number | None = None,
        register: str | Number | None = None,
        temperature: Number = 1.0,
        truncation: Number = 1.0,
        guidance: Number | None = None,
        negative: str | None = None,
    ) -> list[Piece]:
        """Write music for prompts. Arguments win over what a prompt says.

        Args:
            prompts: what to play, in words; `warm:1.5` weighs a word, `0:calm piano | 16:full strings`
                changes with the bar.
            seed: one for all, or one for each. A prompt that is repeated gets the next seeds.
            seconds: length; 20 unless the prompt says otherwise.
            bars: length in bars instead.
            tempo: quarter notes a minute.
            key: such as "G major".
            metre: such as "3/4".
            instruments: such as "piano, cello".
            density: notes a beat.
            register: "high", "low" or a mean MIDI pitch.
            temperature: below 1 safer, above 1 bolder.
            truncation: below 1 leaves the unlikeliest choices out: the share of the probability that is kept.
            guidance: above 1 keeps closer to the prompt; 1 unless given, 2 with a negative prompt.
            negative: what the music shall not be.

        Raises:
            ValueError: an empty or endless prompt, or a control out of range.
        """
        wish = Wish(
            _float(seconds),
            bars,
            _float(tempo),
            key,
            metre,
            instruments,
            float(temperature),
            _float(guidance),
            _float(density),
            None if register is None else str(register),
            float(truncation),
            negative,
        )
        plans = understand(prompts, wish)
        return list(generate(self.engine, plans, seeds_of(prompts, seed), wish))

    def synthesise(self, scores: Sequence[str | Path | Score]) -> list[Piece]:
        """Play scores, keeping their tempo, metre and instruments."""
        return [workflows.synthesise(self.engine, score).piece() for score in scores]

    def transcribe(
        self, audio: Sequence[Source], *, instruments: str | None = None, tempo: Number | None = None
    ) -> list[Piece]:
        """Write the notes of recordings.

        Args:
            audio: recordings.
            instruments: what plays; each instrument gets its own track. Found by listening unless given.
            tempo: of the score's grid, 120 unless given; it does not move notes in time.
        """
        return [workflows.transcribe(self.engine, source, instruments, _float(tempo)) for source in audio]

    def resynthesise(
        self,
        audio: Sequence[Source],
        *,
        transpose: int = 0,
        tempo: Number | None = None,
        edited: Sequence[str | Path | Score] | None = None,
    ) -> list[Piece]:
        """Transcribe, edit and play again; samples that no edit touches equal those of the unedited version.

        Args:
            audio: recordings.
            transpose: semitones.
            tempo: new tempo; a recording is taken as 120 bpm.
            edited: for each recording, the transcription as you changed it.
        """
        if edited is not None and len(edited) != len(audio):
            raise ValueError(f"{len(edited)} edited scores for {len(audio)} recordings: give one for each")
        scores = [None] * len(audio) if edited is None else list(edited)
        return [
            workflows.resynthesise(self.engine, source, transpose, _float(tempo), score).piece()
            for source, score in zip(audio, scores)
        ]

    def reconstruct(self, audio: Sequence[Source]) -> list[tuple[Piece, Piece]]:
        """Send recordings through the VAE latent, and through the music latent z: what does each keep?"""
        pairs = []
        for source in audio:
            frames, music = workflows.reconstruct(self.engine, source)
            pairs.append((frames.piece(), music.piece()))
        return pairs

    def explore(
        self,
        sources: Sequence[Source | Score],
        *,
        steps: int = 5,
        vary: str | None = None,
        direction: str | None = None,
        amount: Number = 1.0,
        seconds: Number | None = None,
        seed: int = 0,
    ) -> list[Piece]:
        """Move in latent space from one source, or between two; see `mfm explore --help`."""
        made = workflows.explore(
            self.engine, sources, steps, vary, direction, float(amount), _float(seconds), seed
        )
        return [sounding.piece() for sounding in made]


def _float(value: Number | None) -> float | None:
    return None if value is None else float(value)
