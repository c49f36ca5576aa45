import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.notes import Score, Track
from mfm_jax.music.tempo import TempoMap
from mfm_jax.music.words import Key

PATH = Path(__file__).parents[2] / "tools" / "measure_controls.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("measure_controls", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_related_keys(tool):
    asked = Key(9, "minor")
    assert [tool.near(asked, k) for k in (asked, Key(0, "major"), Key(4, "minor"))] == [True] * 3
    assert not any(tool.near(asked, k) for k in (Key(9, "major"), Key(2, "minor"), Key(7, "major"), Key()))


def test_prompts_say_what_is_counted(tool):
    asked = tool.held_out_prompts(30, 1)
    assert [a.prompt for a in asked] == [a.prompt for a in tool.held_out_prompts(30, 1)]
    assert len({a.prompt for a in asked}) > 25
    for one in asked:
        if "bpm" in one.stated:
            assert f"{one.facts.tempo:.0f}" in one.prompt
    assert sum("key" in a.stated for a in asked) > 10


def test_a_score_is_judged_by_what_is_stated_only(tool):
    pytest.importorskip("music21")
    notes = np.array([[12.0 * n, 12.0 * n + 12, 60 + p, 80] for n, p in enumerate((0, 4, 7, 12))])
    score = Score((Track(instrument_of(0), notes),), TempoMap.constant(90, (3, 4)))
    one = next(a for a in tool.held_out_prompts(60, 1) if a.stated >= {"metre", "players"})
    row = tool.judge(one, score)
    assert row["metre"] == (one.facts.metre == (3, 4))
    assert row["instruments, no others"] == (one.facts.categories == (1,))
    assert "key exact" not in row or "key" in one.stated


def test_properties_of_opposed_prompts(tool):
    notes = np.array([[6.0 * n, 6.0 * n + 6, 60 + p, 80] for n, p in enumerate((0, 4, 7, 12) * 4)])
    found = tool.properties(Score((Track(instrument_of(0), notes),), TempoMap.constant(90)))
    assert found["tempo"] == 90
    assert found["density"] == 2
    assert found["mode"] > 0
    assert found["register"] == pytest.approx(65.75)
