"""Instruments: the 19 categories, the percussion flag, General MIDI, and the words people use for them."""

import difflib
import re
from typing import NamedTuple

from mfm_jax.axes import N_CATEGORIES

DRUMS = 0  # category of drum kits

CATEGORIES = (
    "drums",
    "piano",
    "bass",
    "guitar",
    "strings",
    "brass",
    "woodwinds",
    "synth lead",
    "synth pad",
    "organ",
    "electric piano",
    "harpsichord",
    "mallets",
    "electric guitar",
    "plucked",
    "voice",
    "saxophone",
    "folk",
    "effects",
)

_GM = """
    acoustic grand piano, bright acoustic piano, electric grand piano, honky-tonk piano,
    electric piano 1, electric piano 2, harpsichord, clavinet,
    celesta, glockenspiel, music box, vibraphone, marimba, xylophone, tubular bells, dulcimer,
    drawbar organ, percussive organ, rock organ, church organ, reed organ,
    accordion, harmonica, tango accordion,
    nylon guitar, steel guitar, jazz guitar, clean electric guitar,
    muted electric guitar, overdriven guitar, distortion guitar, guitar harmonics,
    acoustic bass, fingered bass, picked bass, fretless bass, slap bass 1, slap bass 2,
    synth bass 1, synth bass 2,
    violin, viola, cello, contrabass, tremolo strings, pizzicato strings, harp, timpani,
    string ensemble 1, string ensemble 2, synth strings 1, synth strings 2,
    choir aahs, voice oohs, synth voice, orchestra hit,
    trumpet, trombone, tuba, muted trumpet, french horn, brass section, synth brass 1, synth brass 2,
    soprano sax, alto sax, tenor sax, baritone sax, oboe, english horn, bassoon, clarinet,
    piccolo, flute, recorder, pan flute, blown bottle, shakuhachi, whistle, ocarina,
    square lead, sawtooth lead, calliope lead, chiff lead, charang lead, voice lead, fifths lead,
    bass lead,
    new age pad, warm pad, polysynth pad, choir pad, bowed pad, metallic pad, halo pad, sweep pad,
    rain effect, soundtrack effect, crystal effect, atmosphere effect,
    brightness effect, goblins effect, echoes effect, sci-fi effect,
    sitar, banjo, shamisen, koto, kalimba, bagpipe, fiddle, shanai,
    tinkle bell, agogo, steel drums, woodblock, taiko drum, melodic tom, synth drum, reverse cymbal,
    guitar fret noise, breath noise, seashore, bird tweet, telephone ring, helicopter, applause, gunshot"""
GM_NAMES = tuple(" ".join(name.split()) for name in _GM.split(","))

DRUM_KITS = {
    0: "drums",
    8: "room drums",
    16: "power drums",
    24: "electronic drums",
    25: "808 drums",
    32: "jazz drums",
    40: "brush drums",
    48: "orchestral drums",
    56: "sound effect drums",
}

# First and last General MIDI program of every run that shares a category.
_RUNS = (
    (0, 3, "piano"),
    (4, 5, "electric piano"),
    (6, 7, "harpsichord"),
    (8, 15, "mallets"),
    (16, 20, "organ"),
    (21, 23, "folk"),  # free reeds: accordion, harmonica
    (24, 25, "guitar"),
    (26, 31, "electric guitar"),
    (32, 39, "bass"),
    (40, 44, "strings"),
    (45, 46, "plucked"),  # pizzicato, harp
    (47, 47, "mallets"),  # timpani: pitched, struck
    (48, 51, "strings"),
    (52, 54, "voice"),
    (55, 55, "effects"),  # orchestra hit
    (56, 63, "brass"),
    (64, 67, "saxophone"),
    (68, 79, "woodwinds"),
    (80, 87, "synth lead"),
    (88, 103, "synth pad"),  # pads and the atmospheric 'FX' programs
    (104, 107, "plucked"),  # sitar, banjo, shamisen, koto
    (108, 108, "mallets"),  # kalimba
    (109, 109, "folk"),
    (110, 110, "strings"),  # fiddle
    (111, 111, "folk"),
    (112, 112, "mallets"),  # tinkle bell
    (113, 113, "effects"),
    (114, 114, "mallets"),  # steel drums
    (115, 127, "effects"),
)
_CATEGORY_OF = tuple(CATEGORIES.index(name) for first, last, name in _RUNS for _ in range(first, last + 1))

# Struck sounds without a pitch outside the drum channel: agogo, woodblock ... reverse cymbal.
_UNPITCHED = frozenset({113, 115, 116, 117, 118, 119})

# The program that stands for a whole category.
_DEFAULT_PROGRAM = (0, 0, 33, 24, 48, 61, 73, 81, 89, 19, 4, 6, 11, 27, 46, 52, 65, 21, 119)


# Words that people type, besides General MIDI's names and the categories'; 'drums' words are in _DRUM_WORDS.
def _table(text: str) -> dict[str, int]:
    """Read lines of `program: word, word ...` -> program of each word."""
    lines = (line.partition(":") for line in text.strip().splitlines())
    return {word.strip(): int(program) for program, _, words in lines for word in words.split(",")}


_SYNONYMS = _table("""
0: piano, grand piano, pianoforte, fortepiano, keys, keyboard
1: upright piano
3: honky tonk
4: electric piano, rhodes, wurlitzer, epiano, e-piano
5: fm piano
6: cembalo, spinet
7: clavichord
8: celeste
11: vibes
12: mallet
14: bells
16: hammond, hammond organ
19: organ, pipe organ
20: harmonium
21: concertina
22: mouth organ
23: bandoneon
24: guitar, acoustic guitar, classical guitar, spanish guitar, lute, ukulele
25: folk guitar, mandolin
27: electric guitar
29: overdrive guitar, rock guitar
30: distorted guitar, heavy guitar
32: upright bass
33: bass, bass guitar, electric bass
36: slap bass
38: synth bass
42: violoncello, celli
43: double bass, string bass
45: pizzicato
47: timpano, tympani, kettledrum
48: strings, string section, string, string quartet, string trio, string quintet, string orchestra
48: string ensemble, orchestra
50: synth strings
52: voice, vocal, choir, chorus
53: singing, singer, soprano, alto, tenor, baritone
56: cornet, bugle, flugelhorn
57: bass trombone
58: euphonium
60: horn
61: brass, brass ensemble, horn section
62: synth brass
64: soprano saxophone
65: sax, saxophone, alto saxophone
66: tenor saxophone
67: baritone saxophone
69: cor anglais
71: bass clarinet
73: alto flute, bass flute, woodwind, wind, winds
74: alto recorder, tenor recorder
75: panpipe
78: tin whistle
81: lead, synth, synthesiser, synthesizer, synth lead
89: pad, ambient pad
110: fiddle
114: steel drum
115: wood block
116: taiko
""")
_DRUM_WORDS = _table("""
0: drums, drum, drum kit, drumkit, drumset, drum set, beats, percussion, bass drum, kick drum
0: kick, snare, snare drum, hi hat, hihat, cymbal, tambourine, bongo, conga, shaker
24: drum machine
25: 808, tr-808
40: brushes
""")


class Instrument(NamedTuple):
    """A sound by its General MIDI program (for drums, the kit) and the name shown to people."""

    name: str
    program: int
    is_drum: bool = False

    @property
    def category(self) -> int:
        """Index in `CATEGORIES`."""
        return category_of(self.program, self.is_drum)

    @property
    def percussion(self) -> bool:
        """Whether the sound is unpitched percussion."""
        return is_percussion(self.program, self.is_drum)


def category_of(program: int, is_drum: bool = False) -> int:
    """Give the category, 0..18, of a General MIDI program 0..127 or of a drum kit."""
    _check_program(program)
    return DRUMS if is_drum else _CATEGORY_OF[program]


def is_percussion(program: int, is_drum: bool = False) -> bool:
    """Tell whether a program is struck and has no pitch (drum kits, woodblock, taiko ...)."""
    _check_program(program)
    return is_drum or program in _UNPITCHED


def default_program(category: int) -> int:
    """Give the program that stands for a category; for drums, the standard kit."""
    if not 0 <= category < N_CATEGORIES:
        raise ValueError(
            f"category {category}: must be 0..{N_CATEGORIES - 1}, one of {', '.join(CATEGORIES)}"
        )
    return _DEFAULT_PROGRAM[category]


def instrument_of(program: int, is_drum: bool = False) -> Instrument:
    """Give the named instrument of a program; drum kits that General MIDI 2 does not name are 'drums'."""
    _check_program(program)
    return Instrument(DRUM_KITS.get(program, "drums") if is_drum else _SHORT_NAMES[program], program, is_drum)


def category_instrument(category: int) -> Instrument:
    """Give the instrument that stands for a category, under the category's name."""
    return Instrument(CATEGORIES[category], default_program(category), category == DRUMS)


def parse_instruments(text: str) -> list[Instrument]:
    """Read a list such as `"piano, 2 cellos and drums"` -> instruments, each once, in order.

    Raises:
        ValueError: names an unknown word and its closest matches.
    """
    found: list[Instrument] = []
    for part in re.split(r"[,;+&/]|\band\b", text.lower()):
        word = re.sub(r"^\s*(\d{1,2}\s+|an?\s+|the\s+|solo\s+)*", "", part).strip()
        if not word:
            continue
        instrument = _look_up(word)
        if instrument is None:
            close = difflib.get_close_matches(word, _WORDS, n=4, cutoff=0.6)
            known = (
                f"did you mean {', '.join(close)}?" if close else f"categories are {', '.join(CATEGORIES)}"
            )
            raise ValueError(f"unknown instrument {word[:60]!r}: {known}")
        if instrument not in found:
            found.append(instrument)
    if not found:
        raise ValueError(f"no instrument in {text[:60]!r}: give names such as 'piano, cello'")
    return found


def find_instruments(text: str) -> list[Instrument]:
    """Find the instruments that a free prompt names, longest names first, each once, in order of mention.

    Those after 'no' or 'without' are not taken; words that mean other things in prose ('alto', 'lead') count
    in lists only.
    """
    found: list[Instrument] = []
    text = text.lower()
    negated, end = False, 0
    for match in _PROMPT_PATTERN.finditer(text):
        # 'no drums or bass': what 'or' joins to a refused instrument is refused as well.
        joined = text[end : match.start()].strip() in ("or", "nor", "/")
        negated = match["no"] is not None or (negated and joined)
        end = match.end()
        instrument = _look_up(match["name"])
        if not negated and instrument is not None and instrument not in found:
            found.append(instrument)
    return found


def _look_up(word: str) -> Instrument | None:
    """Find a word, as it stands or in the singular, hyphens and brackets or not."""
    plain = " ".join(re.sub(r"[_()\-]", " ", word).split())
    for form in (word, plain):
        for singular in (form, form.removesuffix("s"), form.removesuffix("es")):
            if singular in _WORDS:
                return _WORDS[singular]
    return None


def _check_program(program: int) -> None:
    if not 0 <= program < 128:
        raise ValueError(f"program {program}: General MIDI programs are 0..127")


def _short_names() -> tuple[str, ...]:
    """Give the first synonym of a program where that is what people say, else General MIDI's name."""
    names = list(GM_NAMES)
    for program, name in (
        (0, "piano"),
        (4, "electric piano"),
        (19, "organ"),
        (24, "guitar"),
        (48, "strings"),
    ):
        names[program] = name
    for program, name in (
        (27, "electric guitar"),
        (33, "bass"),
        (52, "choir"),
        (61, "brass"),
        (43, "double bass"),
    ):
        names[program] = name
    return tuple(names)


def _words() -> dict[str, Instrument]:
    words = {name: Instrument(_SHORT_NAMES[program], program) for program, name in enumerate(GM_NAMES)}
    words |= {name: Instrument(name, program) for program, name in enumerate(_SHORT_NAMES)}
    words |= {kit: Instrument(kit, program, True) for program, kit in DRUM_KITS.items()}
    words |= {word: Instrument(_SHORT_NAMES[program], program) for word, program in _SYNONYMS.items()}
    words |= {word: Instrument(DRUM_KITS[program], program, True) for word, program in _DRUM_WORDS.items()}
    for category, name in enumerate(CATEGORIES):
        words.setdefault(name, category_instrument(category))
    return words


_SHORT_NAMES = _short_names()
_WORDS = _words()
# Words that mean something else in prose: 'a lead sheet', 'wind', 'tenor of the piece', 'beats per minute'.
_PROSE = {"lead", "wind", "winds", "alto", "tenor", "soprano", "baritone", "keys", "beats", "bells", "chorus"}
_PROSE |= {
    "effects",
    "folk",
    "plucked",
    "whistle",
    "seashore",
    "applause",
    "helicopter",
    "orchestra",
    "pad",
    "kick",
    "808",
}
_NAMES = "|".join(re.escape(word) for word in sorted(_WORDS, key=len, reverse=True) if word not in _PROSE)
_NO = r"(?P<no>\b(?:no|not|without|minus)\s+(?:(?:any|an?|the)\s+)?)?"
_PROMPT_PATTERN = re.compile(rf"{_NO}\b(?P<name>(?:{_NAMES})(?:e?s)?)\b")
