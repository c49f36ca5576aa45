import json

import numpy as np
import pytest

from mfm_jax.music.captions import HELD_OUT, TEMPLATES, Facts, caption, measure, phrases, translated
from mfm_jax.music.facts import composer_name, find_key
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.notes import Score, Track
from mfm_jax.music.players import LANGUAGES
from mfm_jax.music.prompt import parse_prompt
from mfm_jax.music.tempo import TempoMap
from mfm_jax.music.words import Key

SCALES = {"major": [0, 2, 4, 5, 7, 9, 11, 12], "minor": [0, 2, 3, 5, 7, 8, 11, 12]}
FACTS = Facts(
    tempo=90.0,
    metre=(3, 4),
    key=Key(7, "major"),
    density=2.0,
    polyphony=1.1,
    register=70.0,
    dynamics=50.0,
    instruments=("piano", "cello"),
    categories=(1, 4),
    seconds=30.0,
    style="classical",
    composer="Clara Schumann",
)


def scale(tonic, mode, velocity=60):
    """A scale up to the octave and a tonic triad, one note a beat."""
    steps = [*SCALES[mode], *SCALES[mode][::-1], 0, 4 if mode == "major" else 3, 7, 0]
    return np.array([[12.0 * i, 12.0 * i + 12, 60 + tonic + s, velocity] for i, s in enumerate(steps)])


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", range(12))
def test_the_key_of_a_scale_is_found(tonic, mode):
    assert find_key(scale(tonic, mode)) == Key(tonic, mode)


def test_no_key_without_a_scale():
    chromatic = np.array([[12.0 * i, 12.0 * i + 12, 48 + i, 60] for i in range(24)])
    assert find_key(chromatic) == Key()
    assert find_key(chromatic[:4]) == Key()


def test_facts_are_measured():
    tempo = TempoMap((0.0,), (60.0,), ((0.0, 3, 4),))
    drums = np.array([[12.0 * i, 12.0 * i + 6, 38, 100] for i in range(20)])
    score = Score(
        (Track(instrument_of(0), scale(2, "minor")), Track(instrument_of(0, True), drums)),
        tempo,
        "Walzer Nr. 2",
    )
    facts = measure(score, {"composer": "BachJS", "style": "Romantic"})
    assert facts.tempo == 60
    assert facts.metre == (3, 4)
    assert facts.key == Key(2, "minor")
    assert facts.density == 2.0
    assert facts.polyphony == 1.0
    assert facts.seconds == 20.0
    assert facts.instruments == ("piano", "drums")
    assert facts.drums
    assert (facts.form, facts.style, facts.composer) == ("waltz", "romantic", "J. S. Bach")
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_an_empty_score_has_no_facts():
    facts = measure(Score((), TempoMap.constant()))
    assert facts.tempo is None
    assert facts.instruments == ()
    assert caption(facts, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("raw", "name"),
    [("BachJS", "J. S. Bach"), ("BeethovenLv", "L. Beethoven"), ("Hugo Wolf", "Hugo Wolf"), ("", "")],
)
def test_composer_names(raw, name):
    assert composer_name(raw) == name


def test_captions_are_many_reproducible_and_never_half_filled():
    drawn = [caption(FACTS, np.random.default_rng(seed)) for seed in range(1000)]
    assert len(set(drawn)) > 800
    assert drawn[:20] == [caption(FACTS, np.random.default_rng(seed)) for seed in range(20)]
    assert all(text.strip() and "{" not in text and "None" not in text for text in drawn)


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_the_parser_reads_a_translated_caption_as_its_english(language):
    rng = np.random.default_rng(3)
    for text in ("a sad piece for cello and flute, slow", "organ and violin", "cheerful guitar, fast"):
        foreign = translated(text, language, rng)
        assert foreign != text
        read, wanted = parse_prompt(foreign), parse_prompt(text)
        assert {i.name for i in read.instruments} == {i.name for i in wanted.instruments}, foreign
        assert read.key.mode == wanted.key.mode, foreign


def test_thousands_of_surface_forms():
    drawn = {caption(FACTS, np.random.default_rng([7, seed])) for seed in range(4000)}
    assert len(drawn) > 2500


def test_held_out_templates_are_not_in_training():
    assert not set(TEMPLATES) & set(HELD_OUT)
    rng = np.random.default_rng(0)
    trained = {caption(FACTS, rng, rough=False) for _ in range(2000)}
    assert not trained & {caption(FACTS, rng, held_out=True, rough=False) for _ in range(500)}


@pytest.mark.parametrize("held_out", [False, True])
def test_the_parser_reads_from_a_caption_nothing_that_its_facts_deny(held_out):
    """Captions and prompts share words: what one says the other must read."""
    rng = np.random.default_rng(1)
    for _ in range(400):
        text = caption(FACTS, rng, held_out=held_out, rough=False)
        controls = parse_prompt(text)
        assert controls.tempo is None or abs(controls.tempo - 90) < 22, text
        assert controls.key.tonic in (None, 7), text
        assert controls.key.mode in (None, "major"), text
        assert controls.metre in (None, (3, 4)), text
        assert {i.category for i in controls.instruments} <= {1, 4}, text


def test_phrases_are_true():
    slots = phrases(FACTS)
    assert "dense" not in slots["density"]
    assert "sparse" in slots["density"]
    assert "sad" not in slots["mood"]
    assert "calm" in slots["mood"]
    assert "allegro" not in slots["pace"]
    assert "andante" in slots["pace"]
    assert "no drums" in slots["drums"]
