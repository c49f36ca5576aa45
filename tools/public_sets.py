"""Fetch a public set of recordings with their notes, and cut it into a folder of `NAME.wav` + `NAME.mid`.

    python tools/public_sets.py guitarset --out PAIRS/guitarset
    python tools/public_sets.py babyslakh --out PAIRS/babyslakh

guitarset: GuitarSet (Xi et al. 2018), a guitar before a microphone, notes by string; 680 MB, CC BY 4.0.
babyslakh: first tracks of Slakh (Manilow et al. 2019), bands of sampled instruments; 880 MB, CC BY 4.0.
Both from Zenodo, held to the checksums that mirdata publishes. A download that stopped goes on.
"""

import argparse
import hashlib
import json
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.music.audio import read_audio, write_audio
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.midi import read_midi, write_midi
from mfm_jax.music.notes import OFF, ON, Score, notes_in_seconds

CLIPS = 24
SECONDS = 30.0  # of a clip
SKIPPED = 30.0  # seconds of a long piece before its clip
STEEL_GUITAR = 25
VELOCITY = 80.0  # of notes that were recorded without one
BLOCK = 2**20


class Remote(NamedTuple):
    """A file of a record on Zenodo."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rpartition("/")[2]


class Clip(NamedTuple):
    """A recording of SECONDS at most, and its notes."""

    name: str
    wave: np.ndarray
    score: Score


class PublicSet(NamedTuple):
    """Files, and how so many clips are taken from them, by way of a scratch folder."""

    remotes: tuple[Remote, ...]
    clips: Callable[[list[Path], int, Path], Iterator[Clip]]


def fetch(remote: Remote, folder: Path) -> Path:
    """Download a file, going on where an earlier download stopped, and check it.

    Raises:
        ValueError: no network, or not the file that was meant.
    """
    path, partial = folder / remote.name, folder / f".{remote.name}.part"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(remote.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            with partial.open("ab" if answer.status == 206 else "wb") as file:
                _copy(answer, file, remote.name)
    except OSError as error:
        raise ValueError(
            f"{remote.url}: cannot be fetched ({error}); it needs a network, try again"
        ) from None
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != remote.md5:
        partial.unlink()
        raise ValueError(f"{remote.url}: its md5 is {found}, must be {remote.md5}; removed, fetch it again")
    partial.replace(path)
    return path


def _copy(source: IO[bytes], target: IO[bytes], name: str) -> None:
    done = 0
    while block := source.read(BLOCK):
        target.write(block)
        done += len(block)
        print(f"\r{name}: {done / 1e6:.0f} MB", end="", file=sys.stderr)
    print(file=sys.stderr)


def guitarset(files: list[Path], count: int, scratch: Path) -> Iterator[Clip]:
    """Take excerpts spread over all players and styles."""
    notes, sounds = (zipfile.ZipFile(file) for file in files)
    names = sorted(Path(name).stem for name in notes.namelist() if name.endswith(".jams"))
    waves = {Path(name).stem: name for name in sounds.namelist() if name.endswith(".wav")}
    where = {Path(name).stem: name for name in notes.namelist()}
    for name in spread(names, count):
        with sounds.open(waves[f"{name}_mic"]) as file:
            wave = _cut(_on_disk(file, scratch / f"{name}.wav"))
        yield Clip(name, wave, _jams(json.loads(notes.read(where[name]))))


def _jams(content: dict[str, Any]) -> Score:
    """Read the notes of every string from a JAMS file, in either of its two forms."""
    rows = []
    for annotation in content["annotations"]:
        if annotation["namespace"] == "note_midi":
            data = annotation["data"]
            if isinstance(data, dict):
                data = [dict(zip(data, row)) for row in zip(*data.values())]
            rows += [(n["time"], n["time"] + n["duration"], round(n["value"]), VELOCITY) for n in data]
    played = np.array(sorted(rows), np.float64).reshape(-1, 4)
    return Score.from_seconds([(instrument_of(STEEL_GUITAR), played[played[:, ON] < SECONDS])])


def babyslakh(files: list[Path], count: int, scratch: Path) -> Iterator[Clip]:
    """Take a stretch out of each mix."""
    with tarfile.open(files[0]) as archive:
        members = {member.name: member for member in archive.getmembers()}
        mixes = sorted(name for name in members if name.endswith("/mix.wav"))
        for mix in spread(mixes, count):
            folder = mix.removesuffix("mix.wav")
            sound, score = (archive.extractfile(members[name]) for name in (mix, f"{folder}all_src.mid"))
            assert sound is not None
            assert score is not None
            name = Path(folder).name
            wave = _cut(_on_disk(sound, scratch / f"{name}.wav"), SKIPPED)
            yield Clip(name, wave, _stretch(read_midi(_on_disk(score, scratch / f"{name}.mid"))))


def _cut(path: Path, start: float = 0.0) -> np.ndarray:
    """Read SECONDS of sound from `start` on."""
    wave = read_audio(path)
    path.unlink()
    first = int(start * SAMPLE_RATE)
    return wave[first : first + int(SECONDS * SAMPLE_RATE)]


def _on_disk(file: IO[bytes], path: Path) -> Path:
    """Write out a member of an archive: audio and MIDI are read from paths."""
    path.write_bytes(file.read())
    return path


def _stretch(score: Score) -> Score:
    """Keep what sounds in the clip; times count from its start."""
    parts = []
    for track in score.tracks:
        notes = notes_in_seconds(track.notes, score.tempo)
        inside = notes[(notes[:, OFF] > SKIPPED) & (notes[:, ON] < SKIPPED + SECONDS)]
        inside[:, :2] = np.clip(inside[:, :2] - SKIPPED, 0, SECONDS)
        parts.append((track.instrument, inside))
    return Score.from_seconds([part for part in parts if len(part[1])])


def spread(names: list[str], count: int) -> list[str]:
    """Choose `count` names at even distances."""
    return [names[i] for i in np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).astype(int))]


SETS = {
    "guitarset": PublicSet(
        (
            Remote(
                "https://zenodo.org/record/3371780/files/annotation.zip", "b39b78e63d3446f2e54ddb7a54df9b10"
            ),
            Remote(
                "https://zenodo.org/record/3371780/files/audio_mono-mic.zip",
                "275966d6610ac34999b58426beb119c3",
            ),
        ),
        guitarset,
    ),
    "babyslakh": PublicSet(
        (
            Remote(
                "https://zenodo.org/record/4603870/files/babyslakh_16k.tar.gz",
                "311096dc2bde7d61c97e930edbfc7f78",
            ),
        ),
        babyslakh,
    ),
}


def make(chosen: PublicSet, out: Path, cache: Path, count: int = CLIPS) -> int:
    """Fetch a set and write its clips, unless they are there; give their number."""
    if not out.is_dir():
        files = [fetch(remote, cache) for remote in chosen.remotes]
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            scratch, clips = Path(folder), Path(folder) / "clips"
            clips.mkdir()
            for clip in chosen.clips(files, count, scratch):
                write_midi(clips / f"{clip.name}.mid", clip.score)
                write_audio(clips / f"{clip.name}.wav", clip.wave)
            clips.replace(out)
    return len(list(out.glob("*.mid")))


def main() -> int:
    """Fetch and cut."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(SETS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--cache", type=Path, default=Path("out/downloads"), help="of what is fetched")
    options = parser.parse_args()
    try:
        made = make(SETS[options.name], options.out, options.cache / options.name, options.clips)
    except ValueError as error:
        parser.error(str(error))
    print(f"{made} clips in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
