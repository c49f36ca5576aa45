"""Sentences for distilling the text encoder: captions of random facts, free prompts, and bags of words."""

import numpy as np

from mfm_jax.music.captions import Facts, caption
from mfm_jax.music.facts import FORMS
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.words import MOOD_WORDS, TEMPO_WORDS, Key

STYLES = """
classical, baroque, romantic, renaissance, folk, hymn, jazz, march, rock, metal, electronic, ambient, art
song, chamber music, modern, pop, blues, film music, video game music, synthwave, techno, house, disco,
funk, soul, country, reggae, latin, bossa nova, hip hop, lo-fi, new age, impressionist, minimalist,
celtic, flamenco, gospel, swing, ragtime, punk, trance, drum and bass, orchestral, cinematic, lounge,
medieval, world music
"""
COMPOSERS = """
Johann Sebastian Bach, Ludwig van Beethoven, Wolfgang Amadeus Mozart, Franz Schubert, Robert Schumann,
Johannes Brahms, Clara Schumann, Fanny Mendelssohn, Felix Mendelssohn, Frederic Chopin, Claude Debussy,
Erik Satie, Gabriel Faure, Hugo Wolf, Joseph Haydn, George Frideric Handel, Scott Joplin, Franz Liszt,
Antonio Vivaldi, Pyotr Tchaikovsky, Edvard Grieg, Antonin Dvorak, Maurice Ravel, Lili Boulanger, Cecile
Chaminade, Domenico Scarlatti, Henry Purcell, Giuseppe Verdi, Georges Bizet, Max Reger, Mauro Giuliani,
Carl Czerny, Arthur Sullivan
"""
SCENES = """
a rainy night, a summer morning, a long train ride, a haunted house, a boss fight, a wedding, a funeral, a
birthday party, a chase scene, the end credits, a quiet library, falling asleep, studying, a walk in the
forest, the open sea, a winter evening by the fire, a busy city, an old cafe in paris, a medieval tavern,
outer space, a desert caravan, a royal court, a church service, a circus, a snowy mountain, a spring
garden, children playing, a lonely traveller, first love, heartbreak, victory, a storm, sunrise, the deep
ocean, a dungeon, a racing game, yoga, meditation, a cooking show, the news, a silent film, a western, a
detective story, a ballroom, a jazz club
"""
FEELINGS = """
nostalgic, lonely, romantic, warm, cold, mysterious, epic, heroic, funny, quirky, angry, anxious,
majestic, elegant, delicate, fierce, haunting, intimate, lush, noble, rustic, soothing, wistful, yearning,
whimsical, grand, bittersweet, eerie, graceful, groovy, hypnotic, intense, laid-back, light, moody,
mellow, optimistic, passionate, pastoral, reflective, rousing, sentimental, simple, smooth, spiritual,
swinging, thoughtful, urgent, wild, cosy, bouncy, catchy, complex, creepy, dancing, festive, floating,
flowing, folky, glorious, lyrical, melodic, monotonous, raw, repetitive, syncopated, staccato, legato,
arpeggiated, percussive, resonant, rich, soaring, sparkling, stately
"""
FREE = (
    "{feeling} {style} for {scene}",
    "music for {scene}",
    "something {feeling} and {mood}, like {scene}",
    "a {feeling} melody on the {player}",
    "I need a {mood} track for {scene}",
    "{scene}",
    "{scene}, {feeling}, {player}",
    "{style} with a {feeling} {player} and {player}",
    "{player} and {player} play a {feeling} {form} that builds slowly and ends quietly",
    "the {player} plays the melody while the {player} plays chords",
    "a {form} that sounds {feeling} but not {feeling}",
    "{feeling} {form} in the manner of {composer}",
    "start {mood} and become {feeling}",
    "soundtrack of {scene}: {feeling}, {pace}",
    "{pace} {style} groove, {feeling} {player} line",
    "{player} arpeggios over {feeling} {player} chords",
    "no {player}, only {player}",
    "{feeling} intro, {mood} chorus, {player} solo",
    "{composer} meets {style}",
    "please make a {feeling} {form} about {scene}",
    "{style} {form}, {player}, {feeling}, {mood}",
    "a {mood} song about {scene} with {player}",
    "{feeling}",
    "{player}",
    "{style}",
    "{a} {b}",
    "{a} {b} {style} {c}",
    "the {a} of the {b} and the {c}",
    "{a}",
    "{a} {b} {c} {d} {feeling} {player}",
    "a {feeling} {a} for a {b}",
    "{a}, {b}, {mood}, {c}",
)
# Written by hand in other words than any template: what people may type.
HAND_WRITTEN = (
    "melancholy waltz for solo piano in a minor key, unhurried",
    "an upbeat tune with fiddle and accordion to dance to",
    "slow strings that make you cry",
    "hard hitting metal riff, double kick drums, drop tuned guitars",
    "lullaby for my newborn daughter, harp if possible",
    "church organ, grand and solemn, B flat major",
    "quick harpsichord piece with lots of running notes",
    "two violins chasing each other over a walking cello",
    "chill evening piano, jazzy chords, 70 beats a minute",
    "sounds like an 8 bit adventure game, square waves, fast",
    "a simple folk song on acoustic guitar, in G",
    "marching band with trumpets and snare, 112 bpm",
    "dark ambient pads, very slow, no drums at all",
    "funny bassoon and clarinet piece like a cartoon",
    "string quartet in the classical style, elegant and bright, D major",
    "a tango for accordion and violin, passionate",
    "sad cello alone in a big room",
    "happy ukulele song with whistling",
    "minimalist marimba pattern, hypnotic, 6/8",
    "rock ballad, electric guitar solo, 76 bpm, E minor",
    "choir singing a hymn, four voices, slow",
    "playful flute over pizzicato strings",
    "ragtime piano from an old saloon",
    "epic orchestral battle theme with brass and drums in C minor",
    "calm guitar and flute at sunset",
    "busy baroque fugue for organ in D minor",
    "something warm for saxophone and electric piano, late night",
    "a christmas carol for brass quartet",
    "tense and quiet, low strings only, about 60 bpm",
    "cheerful polka, tuba and accordion, quick 2/4",
    "dreamy vibraphone and soft bass, three four time",
    "a march in E flat major for brass",
)


def random_facts(rng: np.random.Generator) -> Facts:
    """Make up the facts of a piece, over wider ranges than any corpus."""
    count = int(rng.choice([1, 2, 3, 4, 5], p=[0.4, 0.25, 0.15, 0.12, 0.08]))
    players = [instrument_of(int(p)) for p in rng.permutation(119)[:count]]
    if rng.random() < 0.35:
        players[0] = instrument_of(0)
    if rng.random() < 0.2:
        players.append(instrument_of(0, True))
    metres, chances = (
        [(4, 4), (3, 4), (2, 4), (6, 8), (2, 2), (12, 8), (5, 4)],
        [0.4, 0.22, 0.14, 0.12, 0.06, 0.03, 0.03],
    )
    form = str(rng.choice(list(FORMS))) if rng.random() < 0.4 else ""
    return Facts(
        tempo=float(np.round(np.exp(rng.normal(np.log(100), 0.35)).clip(30, 220))),
        metre=metres[int(rng.choice(len(metres), p=chances))],
        key=Key(int(rng.integers(12)), str(rng.choice(["major", "minor"]))) if rng.random() < 0.85 else Key(),
        density=float(rng.gamma(4.0, 1.4)),
        polyphony=float(rng.uniform(1, 6)),
        register=float(rng.normal(62, 6)),
        dynamics=float(rng.uniform(35, 115)),
        instruments=tuple(dict.fromkeys(p.name for p in players)),
        categories=tuple(dict.fromkeys(p.category for p in players)),
        drums=any(p.is_drum for p in players),
        seconds=float(rng.uniform(10, 300)),
        style=_pick(STYLES, rng) if rng.random() < 0.7 else "",
        form=form,
        composer=_pick(COMPOSERS, rng) if rng.random() < 0.5 else "",
    )


def sentences(count: int, rng: np.random.Generator, words: list[str]) -> list[str]:
    """Make training sentences: 70 % captions, the rest free prompts with random English words among them."""
    out = []
    for _ in range(count):
        if rng.random() < 0.7:
            out.append(caption(random_facts(rng), rng))
        else:
            out.append(_free(rng, words))
    return out


def pairs(count: int, rng: np.random.Generator) -> list[tuple[Facts, str, str]]:
    """Make (facts, caption by a training template, caption by a held-out template) of the same facts."""
    out = []
    for _ in range(count):
        facts = random_facts(rng)
        out.append((facts, caption(facts, rng), caption(facts, rng, held_out=True)))
    return out


def _free(rng: np.random.Generator, words: list[str]) -> str:
    text = str(rng.choice(FREE))
    while "{" in text:
        before, _, rest = text.partition("{")
        slot, _, after = rest.partition("}")
        text = before + _fill(slot, rng, words) + after
    return text


def _fill(slot: str, rng: np.random.Generator, words: list[str]) -> str:
    if slot == "player":
        return instrument_of(int(rng.integers(119))).name
    if slot == "mood":
        return str(rng.choice(list(MOOD_WORDS)))
    if slot == "pace":
        return str(rng.choice(list(TEMPO_WORDS)))
    if slot == "form":
        return str(rng.choice(list(FORMS)))
    lists = {"style": STYLES, "composer": COMPOSERS, "scene": SCENES, "feeling": FEELINGS}
    return _pick(lists[slot], rng) if slot in lists else str(rng.choice(words))


def _pick(listed: str, rng: np.random.Generator) -> str:
    return " ".join(str(rng.choice(listed.split(","))).split())
