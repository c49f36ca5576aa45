"""Captions: many ways to say the facts of a piece, as people type prompts.

A caption is a template whose slots are filled with phrases chosen at random among those that the facts
support, then roughened (lower case, lost punctuation, a typo now and then). Every caption says only what is
true of its facts. `HELD_OUT` templates never appear in training: they measure whether a text encoder
understands prompts and not only our templates.
"""

import re

import numpy as np

from mfm_jax.music.facts import Facts, measure
from mfm_jax.music.players import LANGUAGES, player_names
from mfm_jax.music.words import (
    DENSITY_WORDS,
    DYNAMICS_WORDS,
    MOOD_WORDS,
    REGISTER_WORDS,
    TEMPO_WORDS,
    fits,
)

__all__ = ["Facts", "HELD_OUT", "TEMPLATES", "caption", "measure", "phrases"]

TEMPLATES = (
    "a {mood} {piece} for {players}, {bpm}",
    "a {mood} {piece} for {players} in {key}, {bpm}",
    "a {mood} {style} {piece} for {players}",
    "a {pace} {mood} {piece} in {key} for {players}",
    "a {pace} {style} {piece} in {metre} for {players}",
    "a {pace} {piece} for {players}",
    "a {mood} {players} {piece}",
    "a {mood} {players} {piece} in {key}",
    "a {mood} {players} {piece} in {key}, {bpm}",
    "a {players} {piece} in {key} at {bpm}",
    "a {style} {piece} in {key}",
    "a {style} {piece} by {composer} for {players}",
    "a {density} {piece} for {players}, {bpm}",
    "a {density} {texture} {piece} in {metre}",
    "a {density}, {register} {piece} for {players}",
    "{density} {players}, {register}",
    "{pace} and {density} {players}",
    "{pace} {players}, {bpm}",
    "{pace} {piece} with {players}",
    "{pace} {style} music, {players}, {key}",
    "{mood} {players}",
    "{mood} {players} in {key}",
    "{mood} {players} in {key}, {bpm}",
    "{mood} {pace} {players} in {key}, {bpm}",
    "{mood} {pace} {players} {key} {bpm}",
    "{mood} music",
    "{mood} {style} music",
    "{mood}, {pace}, {density}",
    "{mood} and {pace}, {players}",
    "{players}",
    "{players} in {key}",
    "{players}, {bpm}, {metre}, {key}",
    "{players} at {bpm}",
    "{players} playing a {mood} {piece}",
    "{players} playing in {key}, {dynamics}",
    "{style} {piece}",
    "{style} {piece}, {players}",
    "{style} {piece} for {players} at {bpm} in {metre}",
    "{style}",
    "{piece} in {key}",
    "{piece} in {metre} at {bpm}",
    "{piece} for {players}",
    "{piece} in the style of {composer}",
    "{composer} style {piece} in {key}",
    "{composer}-like {piece} for {players}",
    "music for {players} in {key} with a {mood} feel",
    "music in {key}, {metre}, {bpm}",
    "something {mood} for {players}",
    "something {pace} and {mood} in {key}",
    "a {register} {piece} for {players}",
    "{register} {players}, {dynamics}",
    "{dynamics} {players}, {pace}",
    "{length} of {mood} {players}",
    "{length} of {style} music at {bpm}",
    "this {style} {piece} in {key} is played by {players} at {bpm}",
    "the {piece} is {mood} and {pace}, in {key}, {metre}, with {players}",
    "the song features {players} and is in {key} with a tempo of {bpm}",
    "a {piece} in the key of {key}",
    "{key}",
    "{bpm}",
    "{metre}, {bpm}",
    "{key}, {bpm}",
    "{players}, {drums}",
    "{style} with {players}, {drums}, {bpm}",
    "{mood} {style} at {bpm}, {drums}",
)
HELD_OUT = (
    "write me a {mood} {piece} in {key}, please, with {players}",
    "I would like to hear {players}, {pace} and {mood}, around {bpm}",
    "could you compose a {style} {piece} featuring {players} in the key of {key}?",
    "{bpm} {key} {players}",
    "{key} / {metre} / {bpm} / {players}",
    "background track: {mood}, {players}, {length}",
    "imagine {players} performing a {pace} {piece}, {dynamics}",
    "tempo: {bpm}. key: {key}. instruments: {players}. mood: {mood}",
    "my idea is a {piece} that feels {mood}, scored for {players} and counted in {metre}",
    "{players} duet or ensemble, {density}, tonality {key}",
    "generate {length} of {pace} {style} with {players}",
    "an instrumental where {players} carry a {mood} tune in {key} at roughly {bpm}",
    "reminds me of {composer}: {mood}, {key}, {players}",
    "{texture} writing for {players}, {register}, {bpm}",
    "make it {mood}! {players} only, {metre}",
)
_TAGS = (
    "mood",
    "pace",
    "players",
    "key",
    "bpm",
    "metre",
    "style",
    "piece",
    "density",
    "dynamics",
    "register",
    "drums",
)
_SLOT = re.compile(r"{(\w+)}")
_TWICE = re.compile(r"\b(\w+) \1\b")  # 'art song song'
_VOWEL = re.compile(r"\b([Aa]) (?=[aeiouéAEIOU])")


def caption(facts: Facts, rng: np.random.Generator, held_out: bool = False, rough: bool = True) -> str:
    """Say some of the facts in one of many ways.

    Args:
        facts: the facts of a piece or excerpt.
        rng: makes every choice; the same state gives the same caption.
        held_out: draw from the templates that training never sees.
        rough: lower case, missing punctuation, rare typos, now and then words of another language.

    Returns:
        A caption of at least one character; 'music' where nothing is known.
    """
    known = phrases(facts)
    if not held_out and rng.random() < 0.2:
        text = _tag_list(known, rng)
    else:
        templates = [
            t for t in (HELD_OUT if held_out else TEMPLATES) if all(s in known for s in _SLOT.findall(t))
        ]
        # Without a weight, a bare '{bpm}' would come as often as the templates that say much.
        weights = np.array([1.0 + len(_SLOT.findall(t)) for t in templates])
        template = str(rng.choice(templates, p=weights / weights.sum())) if templates else "music"
        text = _SLOT.sub(lambda slot: _choose(known[slot.group(1)], rng), template)
    text = _VOWEL.sub(r"\1n ", _TWICE.sub(r"\1", text))
    return _roughen(text, rng) if rough else text


def phrases(facts: Facts) -> dict[str, list[str]]:
    """List, for each slot that the facts can fill, the phrases that are true of them."""
    slots: dict[str, list[str]] = {
        "piece": _pieces(facts),
        "players": player_names(facts.instruments, facts.categories, facts.drums),
    }
    if facts.tempo:
        bpm = f"{facts.tempo:.0f}"
        slots["bpm"] = [f"{bpm} bpm", f"{bpm} BPM", f"{bpm}bpm", f"{bpm} beats per minute"]
        slots["pace"] = fits(TEMPO_WORDS, facts.tempo)
    if facts.key.mode and facts.key.tonic is not None:
        name = str(facts.key)
        short = name.replace(" minor", "m").replace(" major", " maj")
        slots["key"] = [name, name, name, _spelt(name), short]
    if facts.metre:
        num, den = facts.metre
        slots["metre"] = [
            f"{num}/{den}",
            f"{num}/{den} time",
            f"{num}/{den} metre",
            *_METRE_WORDS.get(facts.metre, ()),
        ]
    slots["mood"] = [
        word
        for word, mood in MOOD_WORDS.items()
        if mood.mode in (None, facts.key.mode)
        and (
            mood.tempo is None
            or (facts.tempo is not None and mood.tempo.low <= facts.tempo <= mood.tempo.high)
        )
        and (mood.mode or mood.tempo)
    ]
    for slot, table, value in (
        ("density", DENSITY_WORDS, facts.density),
        ("register", REGISTER_WORDS, facts.register),
        ("dynamics", DYNAMICS_WORDS, facts.dynamics),
    ):
        if value is not None:
            slots[slot] = fits(table, value)
    if facts.polyphony is not None:
        slots["texture"] = _textures(facts.polyphony)
    if facts.instruments:
        slots["drums"] = (
            ["with drums", "drums", "drum beat"] if facts.drums else ["no drums", "without drums"]
        )
    if facts.style:
        slots["style"] = [facts.style, facts.style]
    if facts.composer:
        slots["composer"] = [facts.composer, facts.composer.split()[-1]]
    if facts.seconds:
        slots["length"] = _lengths(facts.seconds)
    return {slot: values for slot, values in slots.items() if values}


_METRE_WORDS = {
    (3, 4): ("three-four time", "waltz time", "triple metre"),
    (4, 4): ("four-four time", "common time"),
    (2, 4): ("two-four time", "duple metre"),
    (6, 8): ("six-eight time", "compound metre"),
    (2, 2): ("cut time", "alla breve"),
}


def _pieces(facts: Facts) -> list[str]:
    if facts.form:
        return [facts.form, facts.form, facts.form, "piece"]
    if "song" in facts.style:
        return ["piece", "song", "song", "piece of music"]
    if facts.metre == (3, 4):
        return ["piece", "tune", "piece of music", "composition", "waltz"]
    return ["piece", "tune", "piece of music", "composition", "instrumental"]


def _textures(polyphony: float) -> list[str]:
    if polyphony < 1.15:
        return ["monophonic", "single-line"]
    return (
        ["chordal", "polyphonic", "rich"]
        if polyphony > 3
        else ["two-voiced", "thin"]
        if polyphony < 2.2
        else []
    )


def _lengths(seconds: float) -> list[str]:
    if seconds < 90:
        return [f"{seconds:.0f} seconds", f"{seconds:.0f}s"]
    return [f"{seconds / 60:.0f} minutes", f"{seconds // 60:.0f}:{seconds % 60:02.0f} minutes"]


def _spelt(key: str) -> str:
    return key.replace("#", " sharp").replace("b ", " flat ")


def _choose(options: list[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _tag_list(known: dict[str, list[str]], rng: np.random.Generator) -> str:
    tags = [slot for slot in _TAGS if slot in known]
    count = int(rng.integers(1, min(len(tags), 6) + 1))
    chosen = [tags[i] for i in rng.permutation(len(tags))[:count]]
    separator = _choose([", ", ", ", " ", "; ", " - "], rng)
    return separator.join(_choose(known[slot], rng) for slot in chosen)


def _roughen(text: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.08:
        text = translated(text, _choose(sorted(LANGUAGES), rng), rng)
    if rng.random() < 0.5:
        text = text.lower()
    elif rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.1:
        text = text.replace(",", "")
    if rng.random() < 0.15:
        text += _choose([".", "!", " please", "..."], rng)
    words = text.split(" ")
    if rng.random() < 0.08:
        where = int(rng.integers(len(words)))
        words[where] = _mistype(words[where], rng)
    return " ".join(words)


def translated(text: str, language: str, rng: np.random.Generator) -> str:
    """Put the words of a text that `LANGUAGES` knows into another language; the others stay."""
    options: dict[str, list[str]] = {}
    for foreign, ours in LANGUAGES[language].items():
        options.setdefault(ours, []).append(foreign)
    return re.sub(r"[a-z]+", lambda word: _choose(options.get(word[0], [word[0]]), rng), text)


def _mistype(word: str, rng: np.random.Generator) -> str:
    """Swap, drop or double one inner letter of a long plain word; a short one could change its meaning."""
    if len(word) < 6 or not word.isalpha():
        return word
    at = int(rng.integers(1, len(word) - 2))
    kind = int(rng.integers(3))
    middle = (word[at + 1] + word[at], word[at + 1], word[at] * 2 + word[at + 1])[kind]
    return word[:at] + middle + word[at + 2 :]
