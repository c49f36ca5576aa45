"""`mfm stream`: files and pipes through a stream, with an honest account of time on standard error."""

import array
import contextlib
import fcntl
import itertools
import os
import stat
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile

from mfm_jax.inference.outputs import refuse_overwriting, staged
from mfm_jax.inference.streaming import Block, Meter, Stream
from mfm_jax.music.audio import audio_seconds, read_blocks
from mfm_jax.music.pcm import PCM_FORMATS, pcm_bytes, read_pcm

PIPE = Path("-")  # as a name: standard input or output


class Pcm(NamedTuple):
    """What raw sound is like on both pipes; None for as the model has it."""

    form: str = "s16le"
    rate: int | None = None
    channels: int | None = None


def check_ends(source: Path, out: Path) -> None:
    """Refuse, before anything is loaded, what cannot be read or written.

    Raises:
        ValueError: says which and why.
    """
    if source == PIPE and sys.stdin.isatty():
        raise ValueError("standard input is a terminal: pipe raw PCM into it, or name a FILE")
    if source != PIPE:
        audio_seconds(source)
    if out == PIPE:
        if sys.stdout.isatty():
            raise ValueError("standard output is a terminal: pipe it on as raw PCM, or give --out FILE.wav")
        return
    if out.suffix.lower() != ".wav" or out.is_dir():
        raise ValueError(f"{out}: must be a FILE.wav, or - for raw PCM on standard output")
    refuse_overwriting([source], [out])


def check_pcm(pcm: Pcm, stream: Stream, source: Path) -> None:
    """Refuse raw sound that is not what a model hears.

    Raises:
        ValueError: says what the model hears.
    """
    rate, channels = stream.vae.sample_rate, stream.vae.channels
    if pcm.rate not in (None, rate):
        raise ValueError(
            f"rate {pcm.rate} Hz: this model works at {rate} Hz; resample before the pipe "
            f"(ffmpeg -ar {rate})" + ("" if source == PIPE else ", or leave --rate out: files are resampled")
        )
    if pcm.channels not in (None, channels):
        raise ValueError(
            f"{pcm.channels} channels: this model has {channels}; mix before the pipe (ffmpeg -ac {channels})"
        )


def play(stream: Stream, source: Path, out: Path, pcm: Pcm, seed: int, live: bool) -> None:
    """Send a source through a compiled stream to an output, which gets all of it or, if a file, nothing.

    Args:
        stream: of a model.
        source: a file, or `PIPE`.
        out: a WAV file, or `PIPE`.
        pcm: how raw sound is laid out.
        seed: of all noise.
        live: a file comes at its own speed, and what a pipe held before now is dropped.
    """
    vae, size = stream.vae, stream.block
    if source == PIPE:
        dropped = _drop_waiting(sys.stdin.buffer, pcm.form, vae.channels, size) if live else 0
        blocks = read_pcm(sys.stdin.buffer.read, pcm.form, vae.channels, size, vae.sample_rate)
    else:
        dropped = 0
        blocks = (np.atleast_2d(b) for b in read_blocks(source, size, vae.sample_rate, vae.channels))
        blocks = _at_its_speed(blocks, vae.sample_rate) if live else blocks
    first = next(blocks)
    _say(beginning(stream, dropped))
    meter = Meter()
    try:
        with _opened(out, vae.sample_rate, vae.channels, pcm.form) as write:
            for sound in stream.run(itertools.chain([first], blocks), seed, meter):
                write(sound)
    except (KeyboardInterrupt, BrokenPipeError):
        _say(ending(meter))
        raise
    _say(ending(meter))


def beginning(stream: Stream, dropped: int = 0) -> str:
    """Say in a line what a stream is, and when its sound comes."""
    rate, channels = stream.vae.sample_rate, stream.vae.channels
    rounded = " (rounded up to whole frames)" if stream.rounded else ""
    lost = f"; dropped {dropped} samples that had waited" if dropped else ""
    return (
        f"{rate} Hz, {channels} channel(s), blocks of {stream.block} samples{rounded}; latency "
        f"{stream.latency} samples, {1_000 * stream.latency / rate:.1f} ms: block {stream.block}, "
        f"{'causal' if stream.config.causal else 'centred'} model {stream.delay}, "
        f"filter bank {stream.bank}{lost}"
    )


def ending(meter: Meter) -> str:
    """Say in a line whether a stream kept up."""
    mean = 1_000 * meter.busy / max(1, meter.blocks)
    return (
        f"{meter.blocks} blocks, {meter.missed} missed real time; real-time factor {meter.factor:.3f}; "
        f"{mean:.1f} ms a block, {1_000 * meter.worst:.1f} ms the slowest"
    )


@contextlib.contextmanager
def _opened(out: Path, rate: int, channels: int, form: str) -> Iterator[Callable[[Block], None]]:
    """Give a function that writes sound to the pipe, or to a file that appears when all went well."""
    if out == PIPE:

        def send(sound: Block) -> None:
            sys.stdout.buffer.write(pcm_bytes(sound, form))
            sys.stdout.buffer.flush()

        yield send
        return
    with staged(out.parent) as scratch:
        with soundfile.SoundFile(scratch / out.name, "w", rate, channels, "PCM_16", format="WAV") as file:
            yield lambda sound: file.write(np.clip(sound, -1, 1).T)


def _at_its_speed(blocks: Iterator[Block], rate: int) -> Iterator[Block]:
    """Hold each block back until a microphone would have heard it."""
    began, heard = time.monotonic(), 0
    for block in blocks:
        heard += block.shape[1]
        time.sleep(max(0.0, began + heard / rate - time.monotonic()))
        yield block


def _drop_waiting(stream: BinaryIO, form: str, channels: int, size: int) -> int:
    """Drop what a live source piled up in the pipe while the model was loading: it would stay as latency."""
    if not stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode):
        return 0
    step = PCM_FORMATS[form].itemsize * channels
    dropped, waiting = 0, array.array("i", [0])
    while not fcntl.ioctl(stream.fileno(), termios.FIONREAD, waiting) and waiting[0] >= step * size:
        dropped += len(stream.read(waiting[0] // step * step)) // step
    return dropped


def leave_pipe() -> None:
    """Forget what a closed pipe did not take, so that nothing complains of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(line: str) -> None:
    print(f"mfm stream: {line}", file=sys.stderr, flush=True)
