"""The `mfm` commands: inputs checked before any work, results written whole or not at all.

Each function takes the options of its command as `cli.py` parsed them.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mfm_jax.inference import live as performing
from mfm_jax.inference import workflows
from mfm_jax.inference.controls import Knobs, Turn
from mfm_jax.inference.engine import Engine, keep_compiled_code
from mfm_jax.inference.generation import generate as generate_pieces
from mfm_jax.inference.outputs import refuse_overwriting, slug, staged, stems, write_json, write_notes_csv
from mfm_jax.inference.picture import draw, sketch
from mfm_jax.inference.planning import Wish, seeds_of, understand
from mfm_jax.inference.rave import FrozenRave
from mfm_jax.inference.streaming import open_stream
from mfm_jax.inference.tape import BLOCK, blocks_of, check, write_blocks
from mfm_jax.inference.workflows import Sounding
from mfm_jax.music.audio import read_blocks
from mfm_jax.music.instruments import parse_instruments
from mfm_jax.music.midi import read_midi, write_midi

SOUND_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".opus", ".m4a"}


def generate(
    prompts: Sequence[str],
    out: Path,
    model: Path | None,
    seed: int,
    seconds: float | None,
    bars: int | None,
    tempo: float | None,
    key: str | None,
    metre: str | None,
    instruments: str | None,
    temperature: float,
    guidance: float | None,
    density: float | None,
    register: str | None,
    truncation: float,
    negative: str | None,
) -> None:
    """Write a folder for each prompt; what was understood is said on standard error."""
    wish = Wish(
        seconds,
        bars,
        tempo,
        key,
        metre,
        instruments,
        temperature,
        guidance,
        density,
        register,
        truncation,
        negative,
    )
    plans = understand(prompts, wish)
    engine = _engine(model)
    names = numbered([slug(prompt) for prompt in prompts])
    for name, plan in zip(names, plans):
        print(f"{name}: {plan.understood()}", file=sys.stderr)
    made = generate_pieces(engine, plans, seeds_of(prompts, seed), wish)
    with staged(out) as scratch:
        for name, piece in zip(names, made):
            piece.save(scratch / name)
            _progress(f"{name}: {piece.score.n_notes} notes")
    for name in names:
        print(out / name)


def synthesise(files: Sequence[Path], out: Path, model: Path | None) -> None:
    """Write `<stem>.wav` for each MIDI file."""
    for file in files:
        if not read_midi(file).n_notes:
            raise ValueError(f"{file}: no notes to play")
    names = stems(list(files))
    refuse_overwriting(list(files), [out / f"{name}.wav" for name in names])
    engine = _engine(model)
    for file, name in zip(files, names):
        write_rendering(engine, file, out, name)
        print(out / f"{name}.wav")


def transcribe(
    files: Sequence[Path], out: Path, model: Path | None, instruments: str | None, tempo: float | None
) -> None:
    """Write `<stem>.mid`, `.csv`, a picture and the facts for each recording."""
    if instruments is not None:
        parse_instruments(instruments)
    _check_recordings(files)
    names = stems(list(files))
    refuse_overwriting(list(files), [out / f"{name}.mid" for name in names])
    engine = _engine(model)
    for file, name in zip(files, names):
        write_transcription(engine, file, out, name, instruments, tempo)
        print(out / f"{name}.mid")


def write_rendering(engine: Engine, file: Path, out: Path, name: str) -> None:
    """Play one MIDI file into `out/name.wav`, with a picture and the facts.

    Raises:
        ValueError: not a MIDI file, or no notes in it.
    """
    if not read_midi(file).n_notes:
        raise ValueError(f"{file}: no notes to play")
    with staged(out) as scratch:
        _write_sounding(scratch, name, workflows.synthesise(engine, file), file.name)


def write_transcription(
    engine: Engine,
    file: Path,
    out: Path,
    name: str,
    instruments: str | None = None,
    tempo: float | None = None,
) -> None:
    """Transcribe one recording into `out/name.mid`, `.csv`, a picture and the facts.

    Raises:
        ValueError: not a recording that can be read.
    """
    with staged(out) as scratch:
        piece = workflows.transcribe(engine, file, instruments, tempo)
        write_midi(scratch / f"{name}.mid", piece.score)
        write_notes_csv(scratch / f"{name}.csv", piece.score)
        draw(scratch / f"{name}.png", file.name, sketch(blocks_of(file)), piece.score)
        write_json(scratch / f"{name}.json", piece.facts)


def resynthesise(
    file: Path, out: Path, model: Path | None, transpose: int, tempo: float | None, midi: Path | None
) -> None:
    """Write the edited recording and its score."""
    _check_recordings([file])
    sources = [file]
    if midi is not None:
        read_midi(midi)
        sources.append(midi)
    outputs = [out / f"{file.stem}.{suffix}" for suffix in ("wav", "mid", "csv")]
    refuse_overwriting(sources, outputs)
    engine = _engine(model)
    with staged(out) as scratch:
        made = workflows.resynthesise(engine, file, transpose, tempo, midi)
        _write_sounding(scratch, file.stem, made, file.name)
        write_midi(scratch / f"{file.stem}.mid", made.score)
        write_notes_csv(scratch / f"{file.stem}.csv", made.score)
    print(outputs[0])


def reconstruct(files: Sequence[Path], out: Path, model: Path | None) -> None:
    """Write `<stem>.wav` through the VAE latent and `<stem>.z.wav` through the music latent.

    A folder with a converted VAE only has no music latent: the first is written, at the VAE's own rate.
    """
    _check_recordings(files)
    names = stems(list(files))
    refuse_overwriting(list(files), [out / f"{name}{end}" for name in names for end in (".wav", ".z.wav")])
    engine = _engine(model)
    for file, name in zip(files, names):
        with staged(out) as scratch:
            if engine.rave is not None and not engine.has("codec"):
                _write_through(scratch, name, engine.rave, file)
                write_json(
                    scratch / f"{name}.json", workflows.facts_of(engine, "reconstruct", input=file.name)
                )
                continue
            frames, music = workflows.reconstruct(engine, file)
            _write_sounding(scratch, name, frames, f"{file.name} through the VAE latent")
            _write_sounding(scratch, f"{name}.z", music, f"{file.name} through z")
        print(out / f"{name}.wav")


def explore(
    sources: Sequence[str],
    out: Path,
    model: Path | None,
    steps: int,
    vary: str | None,
    direction: str | None,
    amount: float,
    seconds: float | None,
    seed: int,
) -> None:
    """Write a folder for each step of the move."""
    for source in sources:
        if Path(source).suffix.lower() in SOUND_SUFFIXES:
            check(source)
    engine = _engine(model)
    made = workflows.explore(engine, sources, steps, vary, direction, amount, seconds, seed)
    names: list[str] = []
    with staged(out) as scratch:
        for number, sounding in enumerate(made, 1):
            name = f"{number:02d}-{sounding.facts['move']}"
            sounding.piece().save(scratch / name)
            names.append(name)
    for name in names:
        print(out / name)


def stream(
    source: Path,
    out: Path,
    model: Path | None,
    block: int | None,
    scale: Sequence[Turn],
    bias: Sequence[Turn],
    jitter: float,
    smooth: float,
    seed: int,
    no_noise: bool,
    live: bool,
    format: str,
    rate: int | None,
    channels: int | None,
) -> None:
    """Send a file or standard input through a RAVE, to a file or standard output, block by block."""
    performing.check_ends(source, out)
    keep_compiled_code()
    opened = open_stream(model, block, Knobs(tuple(scale), tuple(bias), jitter, smooth / 1_000), not no_noise)
    pcm = performing.Pcm(format, rate, channels)
    performing.check_pcm(pcm, opened, source)
    opened.prepare()
    try:
        performing.play(opened, source, out, pcm, seed, live)
    except BrokenPipeError:  # who listened has gone: the usual end of a pipe
        performing.leave_pipe()
        return
    if out != performing.PIPE:
        print(out)


def _engine(model: Path | None) -> Engine:
    keep_compiled_code()
    return Engine(model)


def _check_recordings(files: Sequence[Path]) -> None:
    for file in files:
        check(file)


def numbered(names: Sequence[str]) -> list[str]:
    """Number folders in the order of the prompts: 01-calm-piano-waltz."""
    width = max(2, len(str(len(names))))
    return [f"{number:0{width}d}-{name}" for number, name in enumerate(names, 1)]


def _write_sounding(folder: Path, name: str, made: Sounding, title: str) -> None:
    outline = write_blocks(folder / f"{name}.wav", made.tape.play(made.gain))
    draw(folder / f"{name}.png", title, outline, made.score)
    write_json(folder / f"{name}.json", made.facts)
    if made.z is not None:
        np.savez(folder / f"{name}.npz", z=made.z)


def _write_through(folder: Path, name: str, vae: FrozenRave, file: Path) -> None:
    """Send a recording through a converted VAE at its own rate and channels, with a fixed noise."""
    rate, channels = vae.sample_rate, vae.channels
    samples = sum(block.shape[-1] for block in read_blocks(file, BLOCK, rate))
    blocks = (block.reshape(1, channels, -1) for block in read_blocks(file, BLOCK, rate, channels))
    made = vae.decode_blocks((mean for mean, _ in vae.encode_blocks(blocks)), noise=0)

    def cut() -> Iterator[np.ndarray]:
        left = samples
        for block in made:
            yield (block[0, 0] if channels == 1 else block[0])[..., :left]
            left = max(0, left - block.shape[2])

    write_blocks(folder / f"{name}.wav", cut(), rate, channels)


def _progress(line: str) -> None:
    """Show progress to a person; scripts get the final paths only."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)
