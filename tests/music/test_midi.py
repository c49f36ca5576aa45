import contextlib
import io
import struct

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_strategies import quick, quiet, scores

from mfm_jax.music import smf
from mfm_jax.music.files import MAX_MIDI_BYTES
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.midi import midi_bytes, read_midi, write_midi
from mfm_jax.music.notes import Score, Track, empty_notes, notes_in_seconds
from mfm_jax.music.smf import CONTROL, META, METRE, NOTE_OFF, NOTE_ON, PROGRAM, TEMPO, Event
from mfm_jax.music.tempo import TempoMap

pytestmark = quiet


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("midi") / "score.mid"


def read_bytes(path, content, **options):
    path.write_bytes(content)
    return read_midi(path, **options)


def events_file(path, *tracks, units=12, **options):
    return read_bytes(path, smf.build(units, [list(track) for track in tracks]), **options)


def assert_same(a: Score, b: Score, tolerance=0.0):
    assert [track.instrument for track in a.tracks] == [track.instrument for track in b.tracks]
    for x, y in zip(a.tracks, b.tracks, strict=True):
        np.testing.assert_allclose(x.notes, y.notes, rtol=0, atol=tolerance)


@quick
@given(scores())
def test_round_trip_is_exact_on_the_grid(path, score):
    write_midi(path, score)
    back = read_midi(path)
    assert_same(score, back)
    assert back.tempo == score.tempo
    assert back.title == score.title


@quick
@given(scores(grid=0.1))
def test_round_trip_off_the_grid_is_within_the_files_resolution(path, score):
    write_midi(path, score)
    assert_same(score, read_midi(path), tolerance=0.5 / 160 + 1e-9)


@quick
@given(scores())
def test_pretty_midi_reads_what_we_write(score):
    other = pretty_midi.PrettyMIDI(io.BytesIO(midi_bytes(score)))
    times, bpm = other.get_tempo_changes()
    np.testing.assert_allclose(times, score.tempo.tick_to_second(score.tempo.ticks), atol=1e-6)
    np.testing.assert_allclose(bpm, score.tempo.bpm, rtol=1e-6)
    metres = [(change.time, change.numerator, change.denominator) for change in other.time_signature_changes]
    ours = [(float(score.tempo.tick_to_second(tick)), n, d) for tick, n, d in score.tempo.metres]
    np.testing.assert_allclose(metres, ours, atol=1e-6)
    theirs = sorted(
        (round(note.start, 4), round(note.end, 4), note.pitch, note.velocity, each.program, each.is_drum)
        for each in other.instruments
        for note in each.notes
    )
    mine = sorted(
        (round(on, 4), round(off, 4), pitch, velocity, track.instrument.program, track.instrument.is_drum)
        for track in score.tracks
        for on, off, pitch, velocity in notes_in_seconds(track.notes, score.tempo).tolist()
    )
    np.testing.assert_allclose(np.array(theirs, float), np.array(mine, float), atol=1.1e-4)


def test_we_read_what_pretty_midi_writes(path):
    other = pretty_midi.PrettyMIDI(initial_tempo=90, resolution=220)
    rng = np.random.default_rng(0)
    for program in (0, 24, 73):
        instrument = pretty_midi.Instrument(program)
        for start in np.cumsum(rng.uniform(0.1, 1, 40)):
            instrument.notes.append(pretty_midi.Note(80, int(rng.integers(30, 90)), start, start + 0.1))
        other.instruments.append(instrument)
    other.write(str(path))
    score = read_midi(path)
    assert score.tempo.bpm == (pytest.approx(90, rel=1e-5),)
    assert [track.instrument.program for track in score.tracks] == [0, 24, 73]
    for track, instrument in zip(score.tracks, other.instruments, strict=True):
        ours = notes_in_seconds(track.notes, score.tempo)
        theirs = np.array([[note.start, note.end, note.pitch, note.velocity] for note in instrument.notes])
        np.testing.assert_allclose(ours, theirs, atol=0.5 * 60 / 90 / 220 + 1e-4)


def test_every_program_and_kit_survives(path):
    note = np.array([[0, 12, 60, 64]], np.float64)
    programs = [instrument_of(program) for program in range(128)] + [instrument_of(40, True)]
    for instrument in programs:
        write_midi(path, Score((Track(instrument, note),)))
        assert read_midi(path).tracks[0].instrument == instrument
    # All of them at once: more programs than channels.
    crowd = Score(
        tuple(Track(instrument, note + np.array([i, i, 0, 0])) for i, instrument in enumerate(programs))
    )
    write_midi(path, crowd)
    assert_same(crowd, read_midi(path))
    for message in mido.MidiFile(path).tracks[20]:
        assert getattr(message, "channel", 0) != 9


def test_twenty_tracks_of_two_programs_share_channels_by_program(path):
    table = np.array([[0, 12, 60, 64], [12, 24, 62, 64]], np.float64)
    score = Score(tuple(Track(instrument_of(40 + i % 2), table + np.array([i, i, i, 0])) for i in range(20)))
    write_midi(path, score)
    assert_same(score, read_midi(path))
    changes = [m for track in mido.MidiFile(path).tracks for m in track if m.type == "program_change"]
    assert len(changes) == 20
    assert len({message.channel for message in changes}) == 2


def test_empty_tracks_and_short_notes(path):
    score = Score((Track(instrument_of(0), np.array([[0, 1e-4, 60, 300], [5, 6, 61, 0]], np.float64)),))
    write_midi(path, Score((*score.tracks, Track(instrument_of(40), empty_notes()))))
    back = read_midi(path)
    assert len(back.tracks) == 1
    np.testing.assert_array_equal(back.tracks[0].notes, [[0, 1 / 160, 60, 127], [5, 6, 61, 1]])


def pedal_events():
    return [
        Event(0, NOTE_ON, 0, 60, 80),
        Event(0, CONTROL, 0, 64, 127),
        Event(6, NOTE_OFF, 0, 60, 0),
        Event(12, NOTE_ON, 0, 60, 70),
        Event(13, NOTE_OFF, 0, 60, 0),
        Event(18, NOTE_ON, 0, 64, 60),
        Event(20, NOTE_ON, 0, 64, 0),
        Event(24, CONTROL, 0, 64, 10),
        Event(30, NOTE_ON, 0, 60, 50),
        Event(36, NOTE_OFF, 0, 60, 64),
    ]


def test_pedal_extends_notes_and_is_cut_at_the_next_onset(path):
    held = events_file(path, pedal_events()).tracks[0].notes
    np.testing.assert_array_equal(
        held, [[0, 12, 60, 80], [12, 24, 60, 70], [18, 24, 64, 60], [30, 36, 60, 50]]
    )
    dry = events_file(path, pedal_events(), pedal=False).tracks[0].notes
    np.testing.assert_array_equal(dry, [[0, 6, 60, 80], [12, 13, 60, 70], [18, 20, 64, 60], [30, 36, 60, 50]])


def test_pedal_never_released_holds_to_the_end_and_leaves_drums_alone(path):
    melodic = [Event(0, CONTROL, 0, 64, 127), Event(0, NOTE_ON, 0, 60, 80), Event(6, NOTE_OFF, 0, 60, 0)]
    drums = [Event(0, CONTROL, 9, 64, 127), Event(0, NOTE_ON, 9, 36, 80), Event(6, NOTE_OFF, 9, 36, 0)]
    late = [Event(48, META, 0, METRE, 0, bytes((3, 2, 24, 8)))]
    score = events_file(path, melodic, drums, late)
    np.testing.assert_array_equal(score.tracks[0].notes, [[0, 48, 60, 80]])
    np.testing.assert_array_equal(score.tracks[1].notes, [[0, 6, 36, 80]])
    assert score.tracks[1].instrument.is_drum


def test_overlaps_unclosed_notes_and_all_notes_off(path):
    score = events_file(
        path,
        [
            Event(0, NOTE_ON, 0, 60, 80),
            Event(4, NOTE_ON, 0, 60, 70),  # again before its end
            Event(8, NOTE_OFF, 0, 60, 0),
            Event(12, NOTE_OFF, 0, 60, 0),
            Event(20, NOTE_ON, 0, 50, 90),
            Event(22, CONTROL, 0, 123, 0),
            Event(30, NOTE_ON, 0, 51, 90),  # never closed
            Event(40, NOTE_OFF, 0, 99, 0),  # never opened
        ],
    )
    expected = [[0, 4, 60, 80], [4, 12, 60, 70], [20, 22, 50, 90], [30, 40, 51, 90]]
    np.testing.assert_array_equal(score.tracks[0].notes, expected)


def test_a_key_pressed_twice_and_let_go_once_does_not_drone(path):
    twice = [Event(0, NOTE_ON, 0, 60, 80), Event(4, NOTE_ON, 0, 60, 70), Event(8, NOTE_OFF, 0, 60, 0)]
    score = events_file(path, [*twice, Event(90, NOTE_ON, 0, 50, 1), Event(99, NOTE_OFF, 0, 50, 0)])
    np.testing.assert_array_equal(score.tracks[0].notes[:2], [[0, 4, 60, 80], [4, 8, 60, 70]])


def test_a_key_let_go_in_another_track(path):
    score = events_file(path, [Event(0, NOTE_ON, 3, 60, 80)], [Event(7, NOTE_OFF, 3, 60, 0)])
    np.testing.assert_array_equal(score.tracks[0].notes, [[0, 7, 60, 80]])


def test_programs_by_time_by_track_and_by_channel(path):
    def note(time, channel, pitch=60):
        return [Event(time, NOTE_ON, channel, pitch, 80), Event(time + 1, NOTE_OFF, channel, pitch, 0)]

    conductor = [Event(0, PROGRAM, 0, 40, 0), Event(0, PROGRAM, 1, 41, 0)]
    first = [*note(0, 0), *note(2, 1), Event(10, PROGRAM, 0, 73, 0), *note(10, 0)]
    second = [Event(3, PROGRAM, 1, 42, 0), *note(4, 1)]
    score = events_file(path, conductor, first, second)
    assert [(track.instrument.program, track.notes[0, 0]) for track in score.tracks] == [
        (40, 0), (73, 10), (41, 2), (42, 4),
    ]  # fmt: skip


def test_tempo_and_metre_events(path):
    note = [Event(0, NOTE_ON, 0, 60, 80), Event(96, NOTE_OFF, 0, 60, 0)]
    meta = [
        Event(0, META, 0, TEMPO, 0, (1_000_000).to_bytes(3, "big")),
        Event(12, META, 0, TEMPO, 0, (1_000_000).to_bytes(3, "big")),  # changes nothing
        Event(24, META, 0, TEMPO, 0, bytes(3)),  # no such tempo
        Event(48, META, 0, METRE, 0, bytes((3, 2, 24, 8))),
        Event(84, META, 0, METRE, 0, bytes((3, 2, 24, 8))),  # the same, on a bar line
        Event(90, META, 0, METRE, 0, bytes((3, 2, 24, 8))),  # the same, but moves the bar line
        Event(91, META, 0, METRE, 0, bytes((0, 2, 24, 8))),  # no such metre
        Event(92, META, 0, TEMPO, 0, (500_000).to_bytes(3, "big")),
    ]
    tempo = events_file(path, meta, note).tempo
    assert tempo == TempoMap((0, 92), (60, 120), ((0, 4, 4), (48, 3, 4), (90, 3, 4)))


def test_type_0_running_status_and_sysex(path):
    body = bytes.fromhex("00 f0 03 7e 09 f7 00 c0 28 00 90 3c 40 0c 3c 00 00 3e 40 0c 3e 00 00 ff 2f 00")
    content = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 12) + b"MTrk" + struct.pack(">I", len(body)) + body
    score = read_bytes(path, content)
    np.testing.assert_array_equal(score.tracks[0].notes, [[0, 12, 60, 64], [12, 24, 62, 64]])
    assert score.tracks[0].instrument.name == "violin"
    # The same inside a RIFF wrapper, and with bytes after its end.
    riff = (
        b"RIFF"
        + struct.pack("<I", len(content) + 12)
        + b"RMIDdata"
        + struct.pack("<I", len(content))
        + content
    )
    assert_same(score, read_bytes(path, riff + b"junk"))


def test_smpte_time_is_read_as_seconds(path):
    content = smf.build(12, [[Event(0, NOTE_ON, 0, 60, 64), Event(1000, NOTE_OFF, 0, 60, 0)]])
    content = content[:12] + bytes((256 - 25, 40)) + content[14:]  # 25 frames of 40 units: milliseconds
    assert read_bytes(path, content).seconds == pytest.approx(1.0)


def whole_file():
    return midi_bytes(Score((Track(instrument_of(0), np.array([[0, 12, 60, 64]], np.float64)),)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, this is a text file renamed", "not a MIDI file"),
        (b"MThd", "not a MIDI file"),
        (b"RIFF\0\0\0\0WAVEfmt ", "not a MIDI file"),
        (whole_file()[:-5], "truncated"),
        (whole_file()[:30], "truncated"),
        (whole_file()[:14], "truncated"),
        (smf.build(480, [[]]), "without notes"),
        (whole_file()[:9] + b"\x02" + whole_file()[10:], "type 2"),
        (whole_file()[:12] + b"\0\0" + whole_file()[14:], "0 units"),
        (whole_file()[:-1] + b"\x7f", "ends inside"),
        (
            smf.build(1, [[Event(0, NOTE_ON, 0, 60, 64), Event(smf.MAX_DELTA, NOTE_OFF, 0, 60, 0)]]),
            "12 hours",
        ),
        (smf.build(12, [[Event(5, NOTE_ON, 0, 60, 64), Event(5, NOTE_OFF, 0, 60, 0)]]), "no length"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_files_end_in_one_line_that_names_them(path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_bytes(path, content)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_paths(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_midi(tmp_path / "absent.mid")
    with pytest.raises(ValueError, match="not a file"):
        read_midi(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_midi(tmp_path / ("x" * 5000))
    huge = tmp_path / "huge.mid"
    with huge.open("wb") as stream:
        stream.truncate(MAX_MIDI_BYTES + 1)
    with pytest.raises(ValueError, match="MiB"):
        read_midi(huge)


@quick
@given(
    scores(max_tracks=1),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
def test_damaged_bytes_give_a_score_or_a_value_error(path, score, changes, kept):
    content = bytearray(midi_bytes(score))
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    for data in (bytes(content), bytes(content[: int(kept * len(content))])):
        with contextlib.suppress(ValueError):
            read_bytes(path, data)


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    piano = instrument_of(0)

    def refuse(message, tempo=None, row=(0, 12, 60, 64), folder=tmp_path):
        score = Score((Track(piano, np.array([row], np.float64)),), tempo or TempoMap())
        with pytest.raises(ValueError, match=message):
            write_midi(folder / "x.mid", score)

    refuse("bpm", TempoMap.constant(2))
    refuse("pitch", row=(0, 12, 128, 64))
    refuse("NaN", row=(np.nan, 12, 60, 64))
    refuse("ticks", row=(0, 1e9, 60, 64))
    refuse("cannot be written", folder=tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path):
    target = tmp_path / "x.mid"
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="pitch"):
        write_midi(target, Score((Track(instrument_of(0), np.array([[0, 1, 200, 1]], np.float64)),)))
    assert target.read_bytes() == b"old"
