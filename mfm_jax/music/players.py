"""Who plays: the names of instruments and groups that captions use and prompts are searched for."""

import re

from mfm_jax.music.instruments import CATEGORIES, Instrument, find_instruments, instrument_of

_STRINGS = CATEGORIES.index("strings")
_GROUPS = tuple(CATEGORIES.index(name) for name in ("drums", "voice", "synth pad", "effects"))  # never 'solo'
_ALIASES = {
    "piano": ("grand piano", "pianoforte"),
    "cello": ("violoncello",),
    "nylon guitar": ("classical guitar", "acoustic guitar"),
    "guitar": ("classical guitar", "acoustic guitar"),
    "steel guitar": ("acoustic guitar", "steel-string guitar"),
    "clean electric guitar": ("electric guitar",),
    "overdriven guitar": ("electric guitar", "rock guitar"),
    "distortion guitar": ("distorted guitar", "heavy guitar"),
    "acoustic bass": ("double bass", "upright bass"),
    "fingered bass": ("bass guitar", "electric bass"),
    "picked bass": ("bass guitar", "electric bass"),
    "church organ": ("pipe organ", "organ"),
    "drums": ("drum kit", "percussion"),
    "power drums": ("drums", "drum kit"),
    "choir": ("vocals", "voices"),
    "strings": ("string section", "string orchestra"),
    "square lead": ("synth lead", "synthesizer"),
    "sawtooth lead": ("synth lead", "synthesizer"),
    "warm pad": ("synth pad", "pads"),
    "alto sax": ("saxophone", "sax"),
    "tenor sax": ("saxophone", "sax"),
    "french horn": ("horn",),
    "brass": ("brass section", "brass ensemble"),
}
# Words of other languages that prompts and titles use, as those of ours that captions and the parser know.
LANGUAGES = {
    "German": {
        "klavier": "piano", "flügel": "piano", "geige": "violin", "violine": "violin",
        "bratsche": "viola", "flöte": "flute", "gitarre": "guitar", "schlagzeug": "drums",
        "orgel": "organ", "trompete": "trumpet", "harfe": "harp", "klarinette": "clarinet",
        "posaune": "trombone", "langsam": "slow", "langsamer": "slow", "schnell": "fast",
        "traurig": "sad", "fröhlich": "cheerful", "ruhig": "calm", "dicht": "dense",
    },
    "French": {
        "guitare": "guitar", "flûte": "flute", "violon": "violin", "violoncelle": "cello",
        "orgue": "organ", "batterie": "drums", "trompette": "trumpet", "harpe": "harp",
        "clarinette": "clarinet", "lent": "slow", "lente": "slow", "rapide": "fast", "triste": "sad",
        "joyeux": "joyful",
    },
    "Italian": {
        "chitarra": "guitar", "flauto": "flute", "violino": "violin", "violoncello": "cello",
        "organo": "organ", "tromba": "trumpet", "arpa": "harp", "clarinetto": "clarinet",
        "veloce": "fast", "triste": "sad", "tranquillo": "calm", "denso": "dense",
    },
    "Spanish": {
        "guitarra": "guitar", "flauta": "flute", "violín": "violin", "violonchelo": "cello",
        "órgano": "organ", "batería": "drums", "trompeta": "trumpet", "clarinete": "clarinet",
        "rápido": "fast", "triste": "sad", "alegre": "cheerful", "tranquilo": "calm", "denso": "dense",
    },
}  # fmt: skip
TRANSLATIONS = {word: ours for words in LANGUAGES.values() for word, ours in words.items()}
# The name of a family in a list; in prose the word tells how strings are played.
_PLUCKED = re.compile(r"\bplucked(?= (?:and|with|solo)\b|\s*(?:[,;&+/.!]|$))")
# General MIDI programs; -1 is a drum kit.
_ENSEMBLES = {
    "string quartet": (40, 41, 42),
    "string quintet": (40, 41, 42, 43),
    "string trio": (40, 41, 42),
    "piano trio": (0, 40, 42),
    "piano quartet": (0, 40, 41, 42),
    "piano quintet": (0, 40, 41, 42),
    "brass quintet": (56, 60, 57, 58),
    "brass band": (56, 60, 57, 58),
    "wind quintet": (73, 68, 71, 60, 70),
    "woodwind quintet": (73, 68, 71, 60, 70),
    "string orchestra": (48,),
    "orchestra": (48, 73, 71, 60, 56),
    "rock band": (29, 33, -1),
    "metal band": (30, 33, -1),
    "jazz trio": (0, 32, -1),
    "jazz band": (0, 32, 65, -1),
    "big band": (65, 56, 57, 0, 32, -1),
}


def player_names(names: tuple[str, ...], categories: tuple[int, ...], drums: bool) -> list[str]:
    """List the ways to say who plays: all instruments in some order and by some name, or the group they make.

    Args:
        names: of the instruments, those with most notes first.
        categories: theirs, each once, in the same order.
        drums: whether a drum kit is among them.
    """
    if not names:
        return []
    if len(names) == 1:
        if categories[0] in _GROUPS:
            return [names[0], CATEGORIES[categories[0]]]
        return [f"{prefix}{name}" for name in _aliases(names[0]) for prefix in ("", "", "solo ")] + [
            f"{names[0]} solo"
        ]
    few = list(names[:4])
    listed = ", ".join(few[:-1])
    options = [
        f"{listed} and {few[-1]}",
        ", ".join(few),
        " ".join(few),
        f"{few[0]} with {' and '.join(few[1:])}",
    ]
    options += [" + ".join(few), f"{few[-1]} and {', '.join(few[:-1])}", f"{listed} & {few[-1]}"]
    options.append(" and ".join(_aliases(name)[-1] for name in few))
    kinds = [CATEGORIES[category] for category in categories[:4]]
    options += [", ".join(kinds), " and ".join(kinds)]
    if set(categories) == {_STRINGS} and len(names) > 2:
        options += ["string quartet", "string ensemble"]
    if len(names) > 4:
        options += ["a full band" if drums else "an orchestra", "a large ensemble"]
    return options


def _aliases(name: str) -> tuple[str, ...]:
    return (name, *_ALIASES.get(name, ()))


def find_players(text: str) -> list[Instrument]:
    """Find instruments and the players of named ensembles; 'orchestral' counts where nobody is named."""
    players: list[Instrument] = []
    text = _PLUCKED.sub("harp", text)
    for name in sorted(_ENSEMBLES, key=len, reverse=True):
        pattern = rf"\b{name}\b(?! hit)"
        if re.search(pattern, text):
            players += _ensemble(name)
            text = re.sub(pattern, " ", text)
    found = list(dict.fromkeys([*find_instruments(text), *players]))
    return found or (_ensemble("orchestra") if "orchestral" in text else [])


def _ensemble(name: str) -> list[Instrument]:
    return [instrument_of(max(program, 0), program < 0) for program in _ENSEMBLES[name]]
