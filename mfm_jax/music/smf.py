"""Standard MIDI Files: bytes to events and back.

Written out because the whole corpus passes here: several times as fast as mido, and hostile bytes end in one
kind of error. Source: the MIDI Association's Standard MIDI Files 1.0 (RP-001).
"""

import struct
from typing import NamedTuple

NOTE_OFF, NOTE_ON, CONTROL, PROGRAM, META = 0x80, 0x90, 0xB0, 0xC0, 0xFF
TRACK_NAME, PORT, END_OF_TRACK, TEMPO, METRE = 0x03, 0x21, 0x2F, 0x51, 0x58  # kinds of META
MAX_DELTA = 0x0FFF_FFFF  # largest time step that a file can hold

# Data bytes of channel messages 0x80 .. 0xE0.
_LENGTHS = {0x80: 2, 0x90: 2, 0xA0: 2, 0xB0: 2, 0xC0: 1, 0xD0: 1, 0xE0: 2}
_KEPT = frozenset({NOTE_OFF, NOTE_ON, CONTROL, PROGRAM})


class Event(NamedTuple):
    """A channel message, or a META event whose text or numbers are in `data`."""

    time: int  # file units from the track's start
    kind: int  # NOTE_OFF ... META
    channel: int
    a: int  # pitch, controller, program; the kind of META
    b: int  # velocity, value
    data: bytes = b""


def parse(content: bytes) -> tuple[float, bool, list[list[Event]]]:
    """Read a file -> (units a quarter note, whether tempo events count, tracks of events).

    Pressure, pitch bend and system messages are skipped. Files timed in SMPTE frames have no quarter notes:
    half a second is taken for one and their tempo events do not count.

    Raises:
        ValueError: says what is wrong with the bytes.
    """
    if content[:4] == b"RIFF":  # the same inside a RIFF wrapper (.rmi)
        content = content[max(content.find(b"MThd"), 0) :]
    if content[:4] != b"MThd" or len(content) < 14:
        raise ValueError("not a MIDI file: it must start with 'MThd'")
    length, form, n_tracks, division = struct.unpack(">IHHH", content[4:14])
    if form > 2 or length < 6:
        raise ValueError(f"MIDI header of type {form}, {length} bytes: types 0 and 1 are read")
    if form == 2:
        raise ValueError("MIDI type 2 (independent patterns): save it as type 0 or 1")
    if division == 0:
        raise ValueError("MIDI header with 0 units a quarter note: the file is damaged")
    tracks: list[list[Event]] = []
    position = 8 + length
    while len(tracks) < n_tracks:
        head = content[position : position + 8]
        if len(head) < 8:
            raise ValueError(f"truncated: {len(tracks)} of {n_tracks} MIDI tracks are there")
        size = int.from_bytes(head[4:], "big")
        if position + 8 + size > len(content):
            raise ValueError(f"truncated inside MIDI track {len(tracks) + 1} of {n_tracks}")
        if head[:4] == b"MTrk":
            try:
                tracks.append(_parse_track(content[position + 8 : position + 8 + size]))
            except IndexError:
                raise ValueError(f"damaged: MIDI track {len(tracks) + 1} ends inside an event") from None
        position += 8 + size
    if division & 0x8000:
        frames_per_second = 256 - (division >> 8)
        return max(frames_per_second * (division & 0xFF), 1) / 2, False, tracks
    return float(division), True, tracks


def _parse_track(data: bytes) -> list[Event]:
    """Read one track's events; IndexError where the bytes end too early."""
    events: list[Event] = []
    i, time, status = 0, 0, 0
    end = len(data)
    while i < end:
        step, i = _number(data, i)
        time += step
        if data[i] >= 0x80:
            status = data[i]
            i += 1
        elif status < 0x80:
            raise ValueError("damaged: MIDI data without a status byte")
        if status < 0xF0:
            kind = status & 0xF0
            a = data[i]
            b = data[i + 1] if _LENGTHS[kind] == 2 else 0
            if a > 127 or b > 127:
                raise ValueError("damaged: MIDI data byte above 127")
            i += _LENGTHS[kind]
            if kind in _KEPT:
                events.append(Event(time, kind, status & 0x0F, a, b))
        else:
            what = data[i] if status == META else 0
            i += status == META
            if status not in (META, 0xF0, 0xF7):
                raise ValueError(f"damaged: status byte {status:#x} has no place in a MIDI file")
            size, i = _number(data, i)
            if i + size > end:
                raise IndexError
            if status == META:
                events.append(Event(time, META, 0, what, 0, data[i : i + size]))
                if what == END_OF_TRACK:
                    break
            i += size
            status = 0  # running status ends here
    return events


def _number(data: bytes, i: int) -> tuple[int, int]:
    """Read a variable-length number -> (value, next position)."""
    value = data[i]
    i += 1
    if value < 0x80:
        return value, i
    value &= 0x7F
    for _ in range(3):
        byte = data[i]
        i += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, i
    raise ValueError("damaged: MIDI number longer than 4 bytes")


def build(units_per_quarter: int, tracks: list[list[Event]]) -> bytes:
    """Write a type 1 file; each track's events must be in order of time.

    Raises:
        ValueError: a time step is larger than `MAX_DELTA`.
    """
    chunks = [struct.pack(">4sIHHH", b"MThd", 6, 1, len(tracks), units_per_quarter)]
    for events in tracks:
        out = bytearray()
        now = 0
        for event in [*events, Event(events[-1].time if events else 0, META, 0, END_OF_TRACK, 0)]:
            out += _bytes_of(event.time - now)
            now = event.time
            if event.kind == META:
                out += bytes((META, event.a)) + _bytes_of(len(event.data)) + event.data
            elif event.kind == PROGRAM:
                out += bytes((event.kind | event.channel, event.a))
            else:
                out += bytes((event.kind | event.channel, event.a, event.b))
        chunks.append(struct.pack(">4sI", b"MTrk", len(out)) + bytes(out))
    return b"".join(chunks)


def _bytes_of(value: int) -> bytes:
    """Write a variable-length number."""
    if not 0 <= value <= MAX_DELTA:
        raise ValueError(f"time step of {value} MIDI units: must be 0..{MAX_DELTA}")
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))
