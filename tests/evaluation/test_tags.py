"""Tags named by prompts against tags heard, with a listener that is told what to hear."""

from pathlib import Path

import numpy as np
import pytest

from mfm_jax.evaluation import musicnn, tags

PIANO, DRUMS = (musicnn.TAGS["MTT"].index(tag) for tag in ("piano", "drums"))


@pytest.mark.parametrize(
    ("prompt", "tag", "named"),
    [
        ("calm piano waltz", "piano", True),
        ("two pianos", "piano", True),
        ("pianissimo strings", "piano", False),
        ("a song with singing", "vocals", True),
        ("no vocals", "no vocals", False),
    ],
)
def test_what_a_prompt_names(prompt: str, tag: str, named: bool) -> None:
    assert tags._names(prompt, tag) is named


def heard(sure: int) -> np.ndarray:
    found = np.full(50, 0.1)
    found[sure] = 0.9
    return found


def test_agreement_is_the_chance_to_tell_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(musicnn, "load", lambda path, trained_on: ({}, "0123"))
    works = [("piano", Path("a")), ("drums", Path("b")), ("piano", Path("c"))]
    for sounds, percent in (((PIANO, DRUMS, PIANO), 100.0), ((DRUMS, PIANO, DRUMS), 0.0), ((0, 0, 0), 50.0)):
        heard_as = dict(zip("abc", sounds))
        monkeypatch.setattr(tags, "_heard", lambda network, audio, told=heard_as: heard(told[audio.name]))
        facts, rows = tags.agreement(works, Path("musicnn.whl"))
        assert facts["weights"] == "0123"
        assert rows[0]["percent"] == percent
        assert rows[0]["n"] == 3
