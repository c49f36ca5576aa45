import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_jax.music.prompt_syntax import Emphasis, Passage, read_passages


def test_plain_words_are_one_passage():
    assert read_passages("calm piano, 90 bpm") == (Passage(0, "calm piano, 90 bpm"),)
    assert read_passages("") == (Passage(0, ""),)


@pytest.mark.parametrize(
    "text",
    [
        "tempo: 90. key: G minor",
        "tempo:90",
        "bpm:120 bars:16",
        "1:30 minutes of harp",
        "3:4 time",
        "in 4/4: slow",
    ],
)
def test_colons_that_are_no_marks_stay(text):
    assert read_passages(text) == (Passage(0, text),)


def test_weights_are_taken_out_and_kept_with_their_words():
    (passage,) = read_passages("warm:1.5 strings, (solo cello):0.5, waltz:0")
    assert passage.text == "warm strings, solo cello, waltz"
    said = [(passage.text[e.start : e.end], e.weight) for e in passage.emphasis]
    assert said == [("warm", 1.5), ("solo cello", 0.5), ("waltz", 0.0)]


def test_passages_by_bar():
    passages = read_passages("0:calm:2 piano | 16: full strings|32:1:30 of rain")
    assert [(p.bar, p.text) for p in passages] == [
        (0, "calm piano"),
        (16, "full strings"),
        (32, "1:30 of rain"),
    ]
    assert passages[0].emphasis == (Emphasis(0, 4, 2.0),)
    assert read_passages("0:calm") == (Passage(0, "calm"),)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("warm:9 piano", "weight 9 of 'warm': must be 0 to 4"),
        ("warm:-1", "weight -1"),
        ("calm | 16:full", "begin each with its bar"),
        ("4:calm | 16:full", "must begin at 0"),
        ("0:calm | 16:full | 16:more", "bars must rise"),
        ("0:calm | 1.5:full", "whole number"),
        ("0:calm | 99999:full", "from 0 to 4096"),
        ("0:calm | 8:", "is empty"),
        ("0:a |" + "|".join(f"{i}:b" for i in range(1, 80)), "at most 64"),
    ],
)
def test_bad_marks_are_refused_in_one_line(prompt, message):
    with pytest.raises(ValueError, match=message) as refused:
        read_passages(prompt)
    assert "\n" not in str(refused.value)


@given(st.text(max_size=60))
def test_anything_is_read_or_refused_and_emphasis_lies_within(prompt):
    try:
        passages = read_passages(prompt)
    except ValueError:
        return
    for passage in passages:
        assert all(0 <= e.start <= e.end <= len(passage.text) for e in passage.emphasis)
