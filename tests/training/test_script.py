import argparse
from pathlib import Path

import pytest

from mfm_jax.config import config
from mfm_jax.training.codec_run import CodecRun, Stage
from mfm_jax.training.script import add_run_options, profiled, run_script


@config
class Run:
    width: int = 3


@pytest.mark.parametrize(
    ("settings", "ending", "code", "told"),
    [
        ("width=4", None, 0, "weights\n"),
        ("width=wide", None, 2, "bad Run: width: "),
        ("width=4", ValueError("x: begun with\nother configs"), 2, ": x: begun with other configs\n"),
        ("width=4", FloatingPointError("20 steps in a row"), 1, ": 20 steps in a row\n"),
    ],
)
def test_errors_are_one_line_and_a_code(settings, ending, code, told, capsys, monkeypatch):
    monkeypatch.delenv("MFM_DEBUG", raising=False)

    def train(run):
        assert run.width == 4
        if ending:
            raise ending
        return Path("weights")

    parser = argparse.ArgumentParser()
    add_run_options(parser, Run)
    assert run_script(Run, train, parser.parse_args([settings])) == code
    out, err = capsys.readouterr()
    assert told in (err if code else out)
    assert len((out + err).splitlines()) == 1


def test_where_it_was_is_shown_when_asked_for(monkeypatch):
    monkeypatch.setenv("MFM_DEBUG", "1")
    parser = argparse.ArgumentParser()
    add_run_options(parser, Run)
    with pytest.raises(ValueError, match="bad Run"):
        run_script(Run, lambda run: Path("x"), parser.parse_args(["width=wide"]))


def test_a_profile_is_asked_of_every_fit():
    run = CodecRun(latents="x", out="y", stages=(Stage(name="score"), Stage(name="joint")))
    asked = profiled(run, 7)
    assert [stage.train.profile for stage in asked.stages] == [7, 7]
    assert asked.stages[1].name == "joint"
    assert run.stages[0].train.profile == 0
    with pytest.raises(ValueError, match="must be 1 step or more"):
        profiled(run, 0)
