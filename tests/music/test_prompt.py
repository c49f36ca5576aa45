import pytest

from mfm_jax.music.instruments import parse_instruments
from mfm_jax.music.prompt import MAX_PROMPT, parse_prompt
from mfm_jax.music.words import TEMPO_WORDS, Key


def understood(text):
    shown = parse_prompt(text).to_json()
    shown.pop("implied", None)
    return shown


@pytest.mark.parametrize(
    ("text", "tempo"),
    [
        ("90 bpm", 90),
        ("90BPM, piano", 90),
        ("at 90.5 beats per minute", 90.5),
        ("tempo of 72", 72),
        ("tempo: 120", 120),
        ("bpm 140", 140),
        ("120-130 bpm", 125),
        ("♩ = 60", 60),
        ("quarter note = 80", 80),
        ("♩.=60 in 6/8", 90),
        ("half note = 60", 120),
        ("a piece in 1890 style", None),
        ("90s rock", None),
    ],
)
def test_tempo(text, tempo):
    controls = parse_prompt(text)
    assert controls.tempo == tempo
    assert "tempo" not in controls.implied


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("in G minor", "G minor"),
        ("waltz in g major", "G major"),
        ("F# minor", "F# minor"),
        ("f sharp minor", "F# minor"),
        ("Bb major", "Bb major"),
        ("b flat major", "Bb major"),
        ("bb minor", "Bb minor"),
        ("b minor", "B minor"),
        ("E♭ major", "Eb major"),
        ("sad piano, Am, slow", "A minor"),
        ("F#m 120 bpm", "F# minor"),
        ("slow piano in a minor", "A minor"),
        ("in A minor with strings", "A minor"),
        ("a minor key", "minor"),
        ("a minor tune", "minor"),
        ("in the key of D", "D major"),
        ("key: Eb minor", "Eb minor"),
        ("a piece in C for piano", "C major"),
        ("g-moll", "G minor"),
        ("h-Moll", "B minor"),
        ("B-Dur", "Bb major"),
        ("fis-moll", "F# minor"),
        ("Es-Dur", "Eb major"),
        ("sol mineur", "G minor"),
        ("ré bémol majeur", "Db major"),
        ("la menor", "A minor"),
        ("D dorian", "D minor"),
        ("I am in a hurry", ""),
        ("A major work of art", ""),
        ("a day in May", ""),
        ("do it", ""),
    ],
)
def test_key(text, key):
    assert str(parse_prompt(text).key) == key


@pytest.mark.parametrize(
    ("text", "metre", "implied"),
    [
        ("3/4", (3, 4), False),
        ("in 6/8 time", (6, 8), False),
        ("three-four time", (3, 4), False),
        ("common time", (4, 4), False),
        ("alla breve", (2, 2), False),
        ("counted in five.", (5, 4), False),
        ("a waltz", (3, 4), True),
        ("two waltzes", None, False),
        ("marches", None, False),
        ("a tarantella", (6, 8), True),
        ("a waltz in 4/4", (4, 4), False),
        ("waltz or march", None, False),
        ("24/7 radio", None, False),
        ("in three parts", None, False),
    ],
)
def test_metre(text, metre, implied):
    controls = parse_prompt(text)
    assert controls.metre == metre
    assert ("metre" in controls.implied) == implied


@pytest.mark.parametrize(
    ("text", "seconds", "bars"),
    [
        ("30 seconds", 30, None),
        ("a 20s clip of piano", 20, None),
        ("two minutes of piano", 120, None),
        ("half a minute", 30, None),
        ("1 minute 30 seconds", 90, None),
        ("1:30 of organ", 90, None),
        ("16 bars", None, 16),
        ("eight measures", None, 8),
        ("16 bars, 30 seconds", None, 16),
        ("12-bar blues", None, None),
        ("80s synth pop", None, None),
        ("the early 90s", None, None),
    ],
)
def test_length(text, seconds, bars):
    controls = parse_prompt(text)
    assert (controls.seconds, controls.bars) == (seconds, bars)


@pytest.mark.parametrize(
    ("text", "instruments", "excluded"),
    [
        ("piano and cello", ["piano", "cello"], []),
        ("violin without drums or bass", ["violin"], ["drums", "bass"]),
        ("no drums, just guitar", ["guitar"], ["drums"]),
        ("string quartet", ["violin", "viola", "cello"], []),
        ("jazz trio", ["piano", "acoustic bass", "drums"], []),
        ("Klavier und Geige", ["piano", "violin"], []),
        ("something nice", [], []),
    ],
)
def test_instruments(text, instruments, excluded):
    shown = parse_prompt(text).to_json()
    assert shown.get("instruments", []) == instruments
    assert shown.get("excluded", []) == excluded


def test_words_of_character_are_marked_as_implied():
    controls = parse_prompt("a sad slow waltz")
    assert controls.tempo == TEMPO_WORDS["slow"].value
    assert controls.key == Key(None, "minor")
    assert set(controls.implied) == {"tempo", "metre", "key"}


def test_what_is_stated_wins_over_words_of_character():
    controls = parse_prompt("sad slow piano in D major, 150 bpm")
    assert controls.tempo == 150
    assert str(controls.key) == "D major"
    assert controls.implied == ()


@pytest.mark.parametrize(
    "text", ["starts slow, ends fast", "not too slow", "happy and sad", "", "   ", "♥ 日本語", "3/"]
)
def test_nothing_is_invented(text):
    controls = parse_prompt(text)
    assert controls.tempo is None or text == "happy and sad"
    assert controls.key.mode is None
    assert controls.metre is None


@pytest.mark.parametrize("text", ["-90 bpm", "5000 bpm", "0 bars", "99999 bars", "3 hours 9000 seconds"])
def test_values_out_of_range_are_refused(text):
    with pytest.raises(ValueError, match="must be"):
        parse_prompt(text)


def test_a_prompt_too_long_is_refused():
    with pytest.raises(ValueError, match="at most"):
        parse_prompt("piano " * MAX_PROMPT)


def test_arguments_win_and_are_not_implied():
    controls = parse_prompt("slow sad piano waltz, 16 bars").override(
        tempo=140, key="C major", metre="4/4", instruments="cello, drums", seconds=20
    )
    assert controls.to_json() == {
        "tempo": 140,
        "key": "C major",
        "metre": "4/4",
        "instruments": ["cello", "drums"],
        "seconds": 20,
    }
    assert controls.instruments == tuple(parse_instruments("cello, drums"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"tempo": -1},
        {"tempo": float("nan")},
        {"key": "H major"},
        {"key": "G minor and more"},
        {"key": ""},
        {"metre": "3"},
        {"metre": "0/4"},
        {"metre": "3/5"},
        {"instruments": "kazoophone"},
        {"seconds": 0},
        {"bars": 0},
        {"seconds": 10, "bars": 4},
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=r".+"):
        parse_prompt("piano").override(**arguments)


@pytest.mark.parametrize("key", ["G", "g minor", "F#m", "Bb", "c# minor"])
def test_short_keys_are_arguments_too(key):
    assert parse_prompt("").override(key=key).key.tonic is not None
