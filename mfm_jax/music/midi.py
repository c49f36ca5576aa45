"""MIDI files to scores and back."""

import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.music import smf
from mfm_jax.music.files import MAX_MIDI_BYTES, existing, replacing
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.notes import LOUD, OFF, ON, PITCH, Notes, Score, Track, check_notes, tidy
from mfm_jax.music.smf import Event
from mfm_jax.music.tempo import TempoMap

MAX_TICKS = 216_000 * TICKS_PER_BEAT  # 12 hours at 300 bpm: beyond that a file is taken for damaged
MAX_SECONDS = 12 * 3600.0
MIDI_SUFFIXES = (".mid", ".midi", ".smf")
DRUM_CHANNEL = 9
UNITS_PER_TICK = 160  # of files that we write: 1920 a quarter note, a multiple of 96, 120, 384, 480 and 960
_SUSTAIN, _ALL_SOUND_OFF, _ALL_NOTES_OFF = 64, 120, 123  # controllers
_MICROSECONDS = 60e6  # in a minute


class NoNotesError(ValueError):
    """A MIDI file that can be read but holds no notes."""


def read_midi(path: str | Path, pedal: bool = True) -> Score:
    """Read a MIDI file (type 0 or 1, any resolution) into a score.

    A track is one (file track, channel, program). Times keep the file's resolution as fractions of ticks.

    Args:
        path: the file.
        pedal: whether notes sound on while the sustain pedal (controller 64) is down; always cut where their
            pitch begins again.

    Raises:
        ValueError: names the file: missing, empty, no MIDI, damaged, or too long.
        NoNotesError: a ValueError too: the file holds no notes.
    """
    file = existing(path)
    if file.stat().st_size > MAX_MIDI_BYTES:
        raise ValueError(
            f"{file}: {file.stat().st_size / 2**20:.0f} MiB of MIDI: at most {MAX_MIDI_BYTES >> 20}"
        )
    try:
        return _score(*smf.parse(file.read_bytes()), pedal)
    except ValueError as error:
        raise type(error)(f"{file}: {error}") from None


def write_midi(path: str | Path, score: Score) -> None:
    """Write a score as a type 1 file of 1920 units a quarter note: whole, or not at all.

    One MIDI track per score track. Drums are on channel 10. Beyond 15 melodic tracks, those of one program
    share a channel; beyond 15 programs a program change goes before each note.

    Raises:
        ValueError: the path cannot be written, or a pitch, tempo or time does not fit MIDI.
    """
    content = midi_bytes(score)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def midi_bytes(score: Score) -> bytes:
    """Give the bytes that `write_midi` writes."""
    if not score.end <= MAX_TICKS:
        raise ValueError(f"score of {score.end:.0f} ticks: a MIDI file may have {MAX_TICKS}")
    channels = _channels(score.tracks)
    programs = defaultdict(set)
    for track, channel in zip(score.tracks, channels, strict=True):
        programs[channel].add(track.instrument.program)
    tracks = [_conductor(score.tempo, score.title)]
    for track, channel in zip(score.tracks, channels, strict=True):
        tracks.append(_track_events(track, channel, len(programs[channel]) > 1))
    return smf.build(UNITS_PER_TICK * TICKS_PER_BEAT, tracks)


class _Note:
    """A note while it is followed; `end` is None until something ends it."""

    __slots__ = ("end", "pitch", "start", "velocity")

    def __init__(self, start: int, pitch: int, velocity: int) -> None:
        self.start, self.pitch, self.velocity = start, pitch, velocity
        self.end: int | None = None


class _Channel:
    """What a synthesiser knows of one MIDI channel: its program, the keys that are down, the pedal."""

    def __init__(self, has_pedal: bool) -> None:
        self.has_pedal = has_pedal
        self.program = 0
        self.down = False
        self.own_program: dict[int, int] = {}  # of file tracks that choose one themselves
        self.keys: dict[tuple[int, int], list[_Note]] = defaultdict(
            list
        )  # by (file track, pitch), oldest first
        self.released: dict[tuple[int, int], int] = {}  # when a key was last let go
        self.held: list[_Note] = []  # let go, but sounding by the pedal

    def choose(self, index: int, program: int) -> None:
        self.program = self.own_program[index] = program

    def program_of(self, index: int) -> int:
        return self.own_program.get(index, self.program)

    def press(self, index: int, time: int, pitch: int, velocity: int) -> _Note:
        note = _Note(time, pitch, velocity)
        self.keys[index, pitch].append(note)
        return note

    def release(self, index: int, time: int, pitch: int) -> None:
        self.released[index, pitch] = time
        sounding = self.keys.get((index, pitch))
        if not sounding:  # some files let go in another track than they pressed
            sounding = next((notes for (_, p), notes in self.keys.items() if p == pitch and notes), [])
        if sounding:
            note = sounding.pop(0)
            note.end = time
            if self.down:
                self.held.append(note)

    def pedal(self, time: int, value: int) -> None:
        self.down = self.has_pedal and value >= 64
        if not self.down:
            self.let_ring_end(time)

    def let_ring_end(self, time: int) -> None:
        for note in self.held:
            note.end = time
        self.held.clear()

    def silence(self, time: int) -> None:
        self.let_ring_end(time)
        for notes in self.keys.values():
            for note in notes:
                note.end = time
            notes.clear()

    def finish(self, time: int) -> None:
        """End what the file leaves open: where its key was last let go, else at the file's end."""
        self.let_ring_end(time)
        for key, notes in self.keys.items():
            for note in notes:
                last = self.released.get(key, -1)
                note.end = last if last > note.start else time


def _score(units_per_quarter: float, has_tempo: bool, tracks: list[list[Event]], pedal: bool) -> Score:
    """Follow the events of all tracks in time and collect notes, tempo and metre."""
    merged = [(event, index) for index, events in enumerate(tracks) for event in events]
    merged.sort(key=lambda pair: pair[0].time)
    channels = [_Channel(pedal and number != DRUM_CHANNEL) for number in range(16)]
    found: dict[tuple[int, int, int], list[_Note]] = defaultdict(list)  # by file track, channel, program
    tempos: dict[int, float] = {}
    metres: dict[int, tuple[int, int]] = {}
    for (time, kind, number, a, b, data), index in merged:
        channel = channels[number]
        if kind == smf.NOTE_ON and b > 0:
            found[index, number, channel.program_of(index)].append(channel.press(index, time, a, b))
        elif kind in (smf.NOTE_ON, smf.NOTE_OFF):
            channel.release(index, time, a)
        elif kind == smf.PROGRAM:
            channel.choose(index, a)
        elif kind == smf.CONTROL and a == _SUSTAIN:
            channel.pedal(time, b)
        elif kind == smf.CONTROL and a in (_ALL_SOUND_OFF, _ALL_NOTES_OFF):
            channel.silence(time)
        elif kind == smf.META and a == smf.TEMPO and len(data) == 3 and any(data) and has_tempo:
            tempos[time] = _MICROSECONDS / int.from_bytes(data, "big")
        elif kind == smf.META and a == smf.METRE and len(data) >= 2 and data[0] and data[1] <= 7:
            metres[time] = (data[0], 1 << data[1])
    for channel in channels:
        channel.finish(merged[-1][0].time if merged else 0)
    parts = []
    for (_, number, program), followed in sorted(found.items(), key=lambda item: item[0]):
        notes = np.array([(note.start, note.end, note.pitch, note.velocity) for note in followed], np.float64)
        notes[:, :2] *= TICKS_PER_BEAT
        notes[:, :2] /= units_per_quarter
        parts.append(Track(instrument_of(program, number == DRUM_CHANNEL), tidy(notes)))
    if not parts:
        raise NoNotesError("a MIDI file without notes")
    kept = tuple(part for part in parts if len(part.notes))
    if not kept:
        raise NoNotesError("a MIDI file whose notes all have no length")
    score = Score(kept, _tempo_map(tempos, metres, units_per_quarter), _title(tracks))
    if score.end > MAX_TICKS or score.seconds > MAX_SECONDS:
        raise ValueError(
            f"{score.seconds / 3600:.1f} hours, {score.end:.0f} ticks: at most 12 hours are read"
        )
    return score


def _tempo_map(tempos: dict[int, float], metres: dict[int, tuple[int, int]], units: float) -> TempoMap:
    """Make the map; events that change nothing are left out."""
    tempos = {0: 120.0} | tempos
    metres = {0: (4, 4)} | metres
    times = sorted(tempos)
    changes = [t for i, t in enumerate(times) if i == 0 or tempos[t] != tempos[times[i - 1]]]
    bars: list[tuple[float, int, int]] = []
    for time in sorted(metres):
        entry = (time * TICKS_PER_BEAT / units, *metres[time])
        if bars and bars[-1][1:] == entry[1:]:
            bar = 4 * TICKS_PER_BEAT * entry[1] / entry[2]
            if (entry[0] - bars[-1][0]) % bar == 0:
                continue
        bars.append(entry)
    return TempoMap(
        tuple(t * TICKS_PER_BEAT / units for t in changes), tuple(tempos[t] for t in changes), tuple(bars)
    )


def _title(tracks: list[list[Event]]) -> str:
    """Take the name of the first track for the title if that track has no notes."""
    if not tracks or any(event.kind == smf.NOTE_ON for event in tracks[0]):
        return ""
    names = [event.data for event in tracks[0] if event.kind == smf.META and event.a == smf.TRACK_NAME]
    if not names:
        return ""
    try:
        text = names[0].decode("utf-8")
    except UnicodeDecodeError:
        text = names[0].decode("latin-1")
    return "".join(character for character in text if character.isprintable())


def _channels(tracks: tuple[Track, ...]) -> list[int]:
    """Give each track's channel: its own if there are enough, else its program's, else a shared one."""
    free = [channel for channel in range(16) if channel != DRUM_CHANNEL]
    melodic = [track.instrument.program for track in tracks if not track.instrument.is_drum]
    if len(melodic) <= len(free):
        own = iter(free)
        return [DRUM_CHANNEL if track.instrument.is_drum else next(own) for track in tracks]
    by_program = {program: free[i % len(free)] for i, program in enumerate(dict.fromkeys(melodic))}
    return [
        DRUM_CHANNEL if track.instrument.is_drum else by_program[track.instrument.program] for track in tracks
    ]


def _conductor(tempo: TempoMap, title: str) -> list[Event]:
    """Make the first track: title, tempos and metres."""
    events = [Event(0, smf.META, 0, smf.TRACK_NAME, 0, title.encode("utf-8"))] if title else []
    for tick, bpm in zip(tempo.ticks, tempo.bpm, strict=True):
        microseconds = round(_MICROSECONDS / bpm)
        if not 1 <= microseconds < 1 << 24:
            raise ValueError(f"tempo {bpm:g} bpm: MIDI files hold 3.6 to 60,000,000")
        events.append(Event(_unit(tick), smf.META, 0, smf.TEMPO, 0, microseconds.to_bytes(3, "big")))
    for tick, numerator, denominator in tempo.metres:
        data = bytes((numerator, denominator.bit_length() - 1, 24, 8))
        events.append(Event(_unit(tick), smf.META, 0, smf.METRE, 0, data))
    return sorted(events, key=lambda event: event.time)


def _track_events(track: Track, channel: int, program_each: bool) -> list[Event]:
    """Make one track: program, then note ends before note starts at each time."""
    program = track.instrument.program
    name = track.instrument.name.encode("utf-8")
    start = [Event(0, smf.META, 0, smf.TRACK_NAME, 0, name), Event(0, smf.PROGRAM, channel, program, 0)]
    notes = _in_units(track.notes)
    ends = [Event(int(note[OFF]), smf.NOTE_OFF, channel, int(note[PITCH]), 0) for note in notes]
    starts = [Event(int(note[ON]), smf.NOTE_ON, channel, int(note[PITCH]), int(note[LOUD])) for note in notes]
    if program_each:
        chosen = [Event(event.time, smf.PROGRAM, channel, program, 0) for event in starts]
        starts = list(itertools.chain.from_iterable(zip(chosen, starts, strict=True)))
    return [*start, *sorted([*ends, *starts], key=lambda event: event.time)]


def _in_units(notes: Notes) -> Notes:
    """Round times to file units, each note at least one long, and velocities to 1..127."""
    check_notes(notes)
    out = notes.copy()
    out[:, :2] = np.round(np.maximum(out[:, :2], 0.0) * UNITS_PER_TICK)
    out[:, OFF] = np.maximum(out[:, OFF], out[:, ON] + 1)
    out[:, LOUD] = np.clip(np.round(out[:, LOUD]), 1, 127)
    out[:, PITCH] = np.round(out[:, PITCH])
    return tidy(out)


def _unit(tick: float) -> int:
    return round(tick * UNITS_PER_TICK)
