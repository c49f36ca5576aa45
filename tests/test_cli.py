"""The command line from outside: what it refuses and how, and what it leaves behind."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mfm_jax import cli
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.midi import midi_bytes, write_midi
from mfm_jax.music.notes import Score, Track

Make = Callable[[Path], list[object]]
RATE = 44_100


def a_score() -> Score:
    return Score((Track(instrument_of(0), np.array([[0, 12, 60, 80], [12, 24, 64, 80]], float)),))


def wav(path: Path, wave: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, wave, rate, subtype="FLOAT")
    return path


def good_wav(folder: Path) -> Path:
    return wav(folder / "good.wav", 0.1 * np.sin(np.arange(RATE) / 20))


def good_mid(folder: Path) -> Path:
    write_midi(folder / "good.mid", a_score())
    return folder / "good.mid"


def file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def with_nan(folder: Path) -> Path:
    wave = np.zeros(RATE, np.float32)
    wave[RATE // 2] = np.nan
    return wav(folder / "nan.wav", wave)


def huge_samples(folder: Path) -> Path:
    return wav(folder / "loud.wav", np.full(RATE, 30_000.0))


BAD: dict[str, Make] = {
    "no such recording": lambda d: ["transcribe", d / "none.wav"],
    "empty file": lambda d: ["transcribe", file(d / "a.wav", b"")],
    "text as audio": lambda d: ["transcribe", file(d / "a.wav", b"dear diary, " * 99)],
    "cut-off header": lambda d: ["reconstruct", file(d / "a.wav", good_wav(d).read_bytes()[:30])],
    "a folder as a recording": lambda d: ["transcribe", d],
    "NaN": lambda d: ["transcribe", with_nan(d)],
    "one good, one bad": lambda d: ["transcribe", good_wav(d), with_nan(d)],
    "0 seconds": lambda d: ["reconstruct", wav(d / "a.wav", np.zeros(0))],
    "8 channels": lambda d: ["transcribe", wav(d / "a.wav", np.zeros((RATE, 8)))],
    "1 Hz": lambda d: ["transcribe", wav(d / "a.wav", np.zeros(99), 1)],
    "integers as floats": lambda d: ["reconstruct", huge_samples(d)],
    "MIDI as audio": lambda d: ["transcribe", good_mid(d)],
    "audio as MIDI": lambda d: ["synthesise", good_wav(d)],
    "text as MIDI": lambda d: ["synthesise", file(d / "a.mid", b"dear diary, " * 99)],
    "cut-off MIDI": lambda d: ["synthesise", file(d / "a.mid", midi_bytes(a_score())[:40])],
    "MIDI without notes": lambda d: ["synthesise", file(d / "a.mid", midi_bytes(Score(())))],
    "unknown instrument": lambda d: ["transcribe", good_wav(d), "--instruments", "piano, kazzoo"],
    "instrument of a prompt": lambda d: ["generate", "a waltz", "--instruments", "kazzoo"],
    "endless prompt": lambda d: ["generate", "calm piano " * 5_000],
    "empty prompt": lambda d: ["generate", "a waltz", "  "],
    "negative bpm": lambda d: ["generate", "a waltz", "--tempo", "-90"],
    "bpm in the prompt": lambda d: ["generate", "a waltz at 9000 bpm"],
    "no number": lambda d: ["generate", "a waltz", "--tempo", "fast"],
    "NaN seconds": lambda d: ["generate", "a waltz", "--seconds", "nan"],
    "endless seconds": lambda d: ["generate", "a waltz", "--seconds", "inf"],
    "no bars": lambda d: ["generate", "a waltz", "--bars", "0"],
    "seconds and bars": lambda d: ["generate", "a waltz", "--bars", "4", "--seconds", "9"],
    "key": lambda d: ["generate", "a waltz", "--key", "H sharp"],
    "metre": lambda d: ["generate", "a waltz", "--metre", "3/5"],
    "seed": lambda d: ["generate", "a waltz", "--seed", "-1"],
    "temperature": lambda d: ["generate", "a waltz", "--temperature", "0"],
    "no folder of weights": lambda d: ["generate", "a waltz", "--model", d / "none"],
    "a folder without weights": lambda d: ["synthesise", good_mid(d), "--model", d],
    "damaged weights": lambda d: [
        "synthesise", good_mid(d), "--model", file(d / "codec.safetensors", b"x" * 99).parent
    ],
    "edited score": lambda d: ["resynthesise", good_wav(d), "--midi", file(d / "a.mid", b"MThd")],
    "transposed away": lambda d: ["resynthesise", good_wav(d), "--transpose", "99"],
    "blend of one": lambda d: ["explore", good_mid(d)],
    "vary two": lambda d: ["explore", good_mid(d), good_mid(d), "--vary", "beat"],
    "direction": lambda d: ["explore", good_mid(d), "--direction", "bluer"],
    "level": lambda d: ["explore", good_mid(d), "--vary", "bar"],
    "a folder that is no result": lambda d: ["explore", d, "--vary", "beat"],
    "unknown option": lambda d: ["synthesise", good_mid(d), "--louder"],
}  # fmt: skip


def run(arguments: list[object]) -> int:
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def check_refused(code: int, captured: pytest.CaptureFixture[str]) -> str:
    out, err = captured.readouterr()
    assert code == cli.BAD_INPUT
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(("mfm ", "mfm: "))
    assert len(err) < 500
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("kind", list(BAD))
def test_bad_input_ends_in_one_line(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    arguments = BAD[kind](inputs)
    before = sorted(inputs.iterdir())
    out = tmp_path / "new" / "out"
    check_refused(run([*arguments, "--out", out]), capfd)
    assert not (tmp_path / "new").exists()
    assert sorted(inputs.iterdir()) == before


@pytest.mark.parametrize("place", ["file", "below a file", "null"])
def test_an_output_folder_that_cannot_be(
    place: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    blocked = file(tmp_path / "taken", b"mine")
    out = {"file": blocked, "below a file": blocked / "deep" / "er", "null": Path("/dev/null/x")}[place]
    check_refused(run(["synthesise", good_mid(tmp_path), "--out", out]), capfd)
    assert blocked.read_bytes() == b"mine"


def test_inputs_are_not_overwritten(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = good_wav(tmp_path)
    content = source.read_bytes()
    line = check_refused(run(["reconstruct", source, "--out", tmp_path]), capfd)
    assert "overwrite" in line
    assert source.read_bytes() == content


def test_messages_name_the_thing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "none.wav" in check_refused(
        run(["transcribe", tmp_path / "none.wav", "--out", tmp_path / "o"]), capfd
    )
    asked = ["generate", "x", "--instruments", "chello", "--out", tmp_path / "o"]
    assert "cello" in check_refused(run(asked), capfd)


@pytest.mark.parametrize(
    "arguments", [[], ["compose"], ["generate", "a waltz"], ["transcribe", "--out", "x"]]
)
def test_bad_usage(arguments: list[object], capfd: pytest.CaptureFixture[str]) -> None:
    code = run(arguments)
    out, err = capfd.readouterr()
    assert (code, out, err.count("\n")) == (cli.BAD_INPUT, "", 1)


def test_other_errors_end_in_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mfm_jax.inference import commands

    def broken(**options: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(commands, "synthesise", broken)
    code = run(["synthesise", good_mid(tmp_path), "--out", tmp_path / "o"])
    assert (code, capfd.readouterr().err.count("\n")) == (cli.FAILED, 1)


def test_help_and_import_are_light() -> None:
    code = (
        "import sys, mfm_jax, mfm_jax.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'numpy', 'scipy', 'flax'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "transcribe" in done.stdout


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == cli.DONE
    assert capfd.readouterr().out.startswith("mfm-jax ")
