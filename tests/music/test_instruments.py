import pytest

from mfm_jax.axes import N_CATEGORIES
from mfm_jax.music import instruments
from mfm_jax.music.instruments import (
    CATEGORIES,
    GM_NAMES,
    Instrument,
    category_instrument,
    category_of,
    default_program,
    find_instruments,
    instrument_of,
    is_percussion,
    parse_instruments,
)


def names(found: list[Instrument]) -> list[str]:
    return [instrument.name for instrument in found]


def test_the_paper_fixes_the_first_eight():
    paper = ("drums", "piano", "bass", "guitar", "strings", "brass", "woodwinds")
    assert CATEGORIES[:7] == paper
    assert CATEGORIES[7].startswith("synth")
    assert len(CATEGORIES) == len(set(CATEGORIES)) == N_CATEGORIES


def test_every_program_and_kit_has_a_category():
    assert len(GM_NAMES) == len(set(GM_NAMES)) == 128
    seen = {category_of(program) for program in range(128)}
    assert seen == set(range(1, N_CATEGORIES))
    assert {category_of(kit, True) for kit in range(128)} == {0}


@pytest.mark.parametrize(
    ("program", "category"),
    [
        (0, "piano"), (3, "piano"), (4, "electric piano"), (6, "harpsichord"), (11, "mallets"), (19, "organ"),
        (21, "folk"), (24, "guitar"), (30, "electric guitar"), (33, "bass"), (38, "bass"), (40, "strings"),
        (42, "strings"), (46, "plucked"), (47, "mallets"), (48, "strings"), (52, "voice"), (55, "effects"),
        (56, "brass"), (63, "brass"), (65, "saxophone"), (68, "woodwinds"), (73, "woodwinds"),
        (81, "synth lead"), (89, "synth pad"), (99, "synth pad"), (105, "plucked"), (110, "strings"),
        (114, "mallets"),        (127, "effects"),
    ],
)  # fmt: skip
def test_categories_of_well_known_programs(program, category):
    assert CATEGORIES[category_of(program)] == category


def test_default_programs_are_of_their_category():
    for category in range(N_CATEGORIES):
        instrument = category_instrument(category)
        assert instrument.program == default_program(category)
        assert instrument.category == category
        assert instrument.is_drum == (category == 0)


def test_percussion_is_drums_and_struck_sounds_without_pitch():
    assert {program for program in range(128) if is_percussion(program)} == {113, 115, 116, 117, 118, 119}
    assert all(is_percussion(kit, True) for kit in range(128))
    assert instrument_of(115).percussion
    assert not instrument_of(114).percussion  # steel drums are tuned


@pytest.mark.parametrize("program", [-1, 128, 1000])
def test_programs_outside_general_midi_are_refused(program):
    for ask in (category_of, is_percussion, instrument_of):
        with pytest.raises(ValueError, match=r"0\.\.127"):
            ask(program)
    with pytest.raises(ValueError, match="category"):
        default_program(program)


def test_every_name_reads_back():
    for program in range(128):
        for name in (GM_NAMES[program], instrument_of(program).name, GM_NAMES[program].title()):
            assert parse_instruments(name)[0].program == program, name
    for category, name in enumerate(CATEGORIES):
        assert parse_instruments(name)[0].category == category
        assert parse_instruments(name.upper())[0].category == category
    for program, name in instruments.DRUM_KITS.items():
        assert parse_instruments(name) == [Instrument(name, program, True)]


def test_lists_take_plurals_counts_articles_and_synonyms():
    found = parse_instruments("a piano, 2 Cellos and the violins; drum kit / rhodes + French-Horn")
    assert names(found) == ["piano", "cello", "violin", "drums", "electric piano", "french horn"]
    assert names(parse_instruments("piano, grand piano, pianos")) == ["piano"]
    assert names(parse_instruments("basses, flutes, harps, saxes")) == ["bass", "flute", "harp", "alto sax"]


@pytest.mark.parametrize(
    ("text", "hint"), [("celo", "cello"), ("piano, vilin", "violin"), ("qqqq", "categories")]
)
def test_unknown_names_list_close_ones(text, hint):
    with pytest.raises(ValueError, match="unknown instrument") as caught:
        parse_instruments(text)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "  ,  ", "and"])
def test_no_names_is_an_error(text):
    with pytest.raises(ValueError, match="no instrument"):
        parse_instruments(text)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a calm piano waltz in G major, 90 bpm", ["piano"]),
        ("Jazz trio: piano, double bass and drums", ["piano", "double bass", "drums"]),
        ("a rock song with distortion guitars, no drums or bass", ["distortion guitar"]),
        ("string quartet without piano", ["strings"]),
        ("bass drum and bass clarinet", ["drums", "clarinet"]),
        ("a windy day, tenor of the piece, 100 beats per minute, leading on", []),
        ("", []),
    ],
)
def test_prompts(prompt, expected):
    assert names(find_instruments(prompt)) == expected
