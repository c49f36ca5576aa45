import io
import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from mfm_jax.music.audio import write_audio
from mfm_jax.training.progress import Progress
from mfm_jax.training.writers import JsonLines, WandbConfig, make_writers


@pytest.fixture
def samples(tmp_path):
    Image.fromarray(np.full((4, 6), 128, np.uint8)).save(tmp_path / "roll.png")
    write_audio(tmp_path / "sound.wav", np.zeros(4_410, np.float32))
    (tmp_path / "notes.mid").write_bytes(b"")
    return {"sample/roll": tmp_path / "roll.png", "sample/sound": tmp_path / "sound.wav"} | {
        "sample/notes": tmp_path / "notes.mid"
    }


def test_no_step_appears_twice(tmp_path):
    log = JsonLines(tmp_path, 0)
    for step in range(1, 6):
        log.figures(step, {"loss": 1 / step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # cut off by a kill
    log = JsonLines(tmp_path, 3)
    log.figures(4, {"loss": 9.0})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] == 9.0


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_ends_in_one_line(tmp_path, monkeypatch, name, module):
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    wandb = WandbConfig(project="music") if name == "wandb" else None
    with pytest.raises(
        ValueError, match=rf"{name}: {module} is not installed; pip install 'mfm-jax\[{name}\]'"
    ):
        make_writers(tmp_path, 0, name == "tensorboard", wandb, {})
    assert not list(tmp_path.iterdir())


class FakeRun:
    def __init__(self, **settings):
        self.settings, self.logged, self.finished = settings, [], False

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def fake_wandb(monkeypatch):
    runs = []
    module = types.ModuleType("wandb")
    module.Image = module.Audio = lambda path: path
    module.init = lambda **settings: runs.append(FakeRun(**settings)) or runs[-1]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: module)
    return runs


def test_weights_and_biases_goes_on_in_the_same_run(tmp_path, fake_wandb, samples):
    for step in (1, 2):
        writers = make_writers(
            tmp_path, step - 1, False, WandbConfig(project="music", mode="offline"), {"a": 1}
        )
        for writer in writers:
            writer.figures(step, {"loss": 0.5})
            writer.samples(step, samples)
            writer.close()
    first, second = fake_wandb
    assert first.settings["id"] == second.settings["id"]
    assert first.settings["mode"] == "offline"
    assert first.settings["config"] == {"a": 1}
    assert second.logged[0] == (2, {"loss": 0.5})
    assert second.logged[1] == (
        2,
        {"sample/roll": str(samples["sample/roll"]), "sample/sound": str(samples["sample/sound"])},
    )
    assert second.finished


def test_weights_and_biases_offline(tmp_path, samples, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    lines, writer = make_writers(tmp_path, 0, False, WandbConfig(project="music", mode="offline"), {"a": 1})
    lines.close()
    writer.figures(1, {"loss": 0.5})
    writer.samples(1, samples)
    writer.close()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert {p.suffix for p in run.glob("files/media/*/sample/*")} == {".png", ".wav"}


def test_tensorboard_shows_figures_pictures_and_sounds(tmp_path, samples):
    pytest.importorskip("tensorboardX")
    lines, writer = make_writers(tmp_path, 0, True, None, {})
    lines.close()
    writer.figures(1, {"loss": 0.5})
    writer.samples(1, samples)
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    data = events.read_bytes()
    assert all(tag in data for tag in (b"loss", b"sample/roll", b"PNG", b"sample/sound", b"RIFF"))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_progress_is_one_line_on_a_terminal_and_lines_elsewhere(out):
    progress = Progress("vae", out=out)
    progress.say("resumed at step 5")
    progress.show(6, {"loss": 0.25, "rate": 1.0}, 0.5, 60.0)
    progress.show(7, {"loss": 0.125, "rate": 1.0}, 0.75, 60.0)
    progress.show(7, {"valid": 0.5}, 0.75, 60.0, note="sample")
    progress.close()
    text = out.getvalue()
    assert "vae 6 [50%, 1.0 min left] loss 0.25" in text
    assert "rate" not in text
    kept = [line.rpartition("\r\x1b[K")[2] for line in text.removesuffix("\n").split("\n")]
    assert kept[0] == "resumed at step 5"
    assert kept[-1] == "vae sample 7 [75%, 0.3 min left] valid 0.5"
    assert len(kept) == (2 if out.isatty() else 4)


def test_only_one_process_prints():
    out = io.StringIO()
    Progress("vae", prints=False, out=out).say("hello")
    assert out.getvalue() == ""
