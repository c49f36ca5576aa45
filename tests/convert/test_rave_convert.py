import pickle
import random
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file

from mfm_jax import cli
from mfm_jax.checkpoint import flatten, load_weights, save_weights
from mfm_jax.config import build
from mfm_jax.convert import rave
from mfm_jax.convert.rave_state import State, folded, read_state
from mfm_jax.models.rave_config import RaveConfig
from tests.convert.rave_cases import GOLDEN, check_parity, golden


@pytest.mark.parametrize("name", ["v1", "v2_causal", "discrete"])
def test_parity_with_acids_rave(name, tmp_path):
    found = check_parity(*golden(name, tmp_path))
    assert len(found) >= 2


def test_an_export_is_the_checkpoint(tmp_path):
    golden("v2_causal", tmp_path / "a")
    golden("v2_causal", tmp_path / "b", ".ts")
    one, two = (load_weights(tmp_path / name / "vae.safetensors") for name in "ab")
    assert one.config == two.config
    for (name, left), right in zip(flatten(one.params).items(), flatten(two.params).values(), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6, err_msg=name)


def test_the_moving_average_is_laid_over(tmp_path):
    plain = read_state(GOLDEN / "v2_causal.ckpt")
    averaged = read_state(GOLDEN / "v2_causal.ckpt", averaged=True)
    name = "encoder.encoder.net.0.weight"
    np.testing.assert_allclose(averaged.arrays[name], 1.5 * plain.arrays[name], rtol=1e-5)
    assert any("laid over" in line for line in averaged.report)
    with pytest.raises(ValueError, match="leave --ema out"):
        read_state(GOLDEN / "v1.ckpt", averaged=True)


@pytest.mark.parametrize("name", ["v1", "v2_causal", "discrete"])
def test_round_trip_to_the_names_of_rave(name, tmp_path):
    told = {"causal": "causal" in name, "sample_rate": 44_100}
    rave.convert(GOLDEN / f"{name}.ckpt", tmp_path / "ours", **told)
    made = load_file(rave.back(tmp_path / "ours", tmp_path / "back"))
    switches = [key for key in made if key.endswith(("warmed_up", "enabled", "inited"))]
    assert all(made.pop(key).all() for key in switches)
    assert bool(switches) == (name != "v2_causal")
    state = read_state(GOLDEN / f"{name}.ckpt")
    again = folded("back", made)
    missing = set(state.arrays) - set(again)
    assert missing <= {"pqmf.h"}
    assert set(again) <= set(state.arrays)
    for key, array in again.items():
        np.testing.assert_allclose(array, state.arrays[key], atol=1e-6, err_msg=key)


def test_it_says_what_it_inferred_and_asks_for_what_it_cannot(tmp_path):
    with pytest.raises(ValueError, match="give --sample-rate"):
        rave.convert(GOLDEN / "v1.ckpt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    lines = "\n".join(rave.convert(GOLDEN / "v1.ckpt", tmp_path / "out", sample_rate=48_000))
    for part in ("ratios [4, 2]", "channels 2", "centred", "48000 Hz", "assumed: dilations"):
        assert part in lines


def test_config_beside_the_file_is_read(tmp_path):
    run = tmp_path / "run" / "version_0" / "checkpoints"
    run.mkdir(parents=True)
    text = (
        "SR = 48000\nmodel.RAVE.sampling_rate = %SR\nconvs.get_padding.mode = 'causal'\n"
        "blocks.EncoderV2.dilations = [[1, 2], [4]]\nblocks.GeneratorV2.dilations = [[1, 2], [4]]\n"
    )
    (tmp_path / "run" / "config.gin").write_text(text)
    (run / "last.ckpt").write_bytes((GOLDEN / "v2_causal.ckpt").read_bytes())
    lines = rave.convert(run / "last.ckpt", tmp_path / "out")
    config = build(RaveConfig, load_weights(tmp_path / "out" / "vae.safetensors").config)
    assert (config.sample_rate, config.causal) == (48_000, True)
    assert config.encoder.dilations == config.decoder.dilations == ((1, 2), (4,))
    assert not any("assumed" in line for line in lines)
    (tmp_path / "run" / "config.gin").write_text(text.replace("[[1, 2], [4]]", "[[1, 2, 3], [4]]"))
    with pytest.raises(ValueError, match=r"config.gin of this run"):
        rave.convert(run / "last.ckpt", tmp_path / "other")


def state_of(name, **changes):
    state = read_state(GOLDEN / f"{name}.ckpt")
    return State(**(state._asdict() | changes))


def test_missing_and_extra_keys_are_listed():
    state = read_state(GOLDEN / "v2_causal.ckpt")
    inferred = rave.infer(state, rave.Told(None, True, 44_100))
    lost = dict(state.arrays)
    lost["decoder.net.77.weight"] = lost.pop("decoder.net.2.weight")
    with pytest.raises(
        ValueError, match=r"missing: decoder\.net\.2\.weight; extra: decoder\.net\.77\.weight"
    ):
        rave.arrange(state_of("v2_causal", arrays=lost), inferred)
    wrong = state.arrays | {"decoder.net.2.weight": np.zeros((8, 4, 6), np.float32)}
    with pytest.raises(ValueError, match="do not fit together"):
        rave.arrange(state_of("v2_causal", arrays=wrong), inferred)
    changed = state.arrays | {"pqmf.hk": 1.01 * state.arrays["pqmf.hk"]}
    with pytest.raises(ValueError, match=r"no copy of pqmf\.hk"):
        rave.arrange(state_of("v2_causal", arrays=changed), inferred)


def test_zero_fidelity_is_warned_about(tmp_path, monkeypatch):
    state = read_state(GOLDEN / "v1.ckpt")
    arrays = state.arrays | {"fidelity": np.zeros(4, np.float32)}
    monkeypatch.setattr(rave, "read_state", lambda *_: state_of("v1", arrays=arrays))
    lines = rave.convert(GOLDEN / "v1.ckpt", tmp_path, sample_rate=44_100)
    assert any("fidelity is all zeros" in line for line in lines)


def repacked(path, change):
    """Write the v1 checkpoint again with changed members."""
    with zipfile.ZipFile(GOLDEN / "v1.ckpt") as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            for new, data in change(name, source.read(name)):
                target.writestr(new, data)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, data: [] if name.endswith("/data/7") else [(name, data)], "damaged"),
        (lambda name, data: [(name, data[:-4] if "/data/" in name else data)], "bytes"),
        (lambda name, data: [(name, data.replace(b"FloatStorage", b"QuintStorage"))], "of type|names"),
        (lambda name, data: [(name, data.replace(b"FloatStorage", b"LongStorage\n")[:-1])], "pickle|opcode"),
        (lambda name, data: [(name, b"\xff" * len(data) if "/data/9" in name else data)], "NaN"),
        (lambda name, data: [(name, data), (f"x{name}", data)], "data.pkl"),
        (
            lambda name, data: [(name, data.replace(b"decoder.net.0", b"decoder.not.0"))],
            "missing|lacks|not a",
        ),
        (lambda name, data: [(name, data.replace(b"state_dict", b"state_dirt"))], "RAVE|lacks"),
    ],
)
def test_bad_files_are_refused_in_one_line_and_leave_nothing(tmp_path, change, message, capsys):
    path = repacked(tmp_path / "bad.ckpt", change)
    out = tmp_path / "out"
    code = cli.main(["convert", "rave", str(path), "--out", str(out), "--sample-rate", "44100"])
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.count("\n") == 1
    assert any(part in error for part in message.split("|")), error
    assert not out.exists()


def test_random_damage_is_refused_or_harmless(tmp_path):
    whole = (GOLDEN / "discrete.ckpt").read_bytes()
    rng = random.Random(1)
    out = tmp_path / "out"
    refused = 0
    for _ in range(40):
        data = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
        for _ in range(rng.randrange(1, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = tmp_path / "bad.ckpt"
        path.write_bytes(data)
        try:
            read_state(path)
        except ValueError:
            refused += 1
    assert refused > 30
    assert not out.exists()


def test_other_files_are_refused(tmp_path):
    for name, data in [("empty", b""), ("text", b"hello"), ("plain.pkl", pickle.dumps({"state_dict": {}}))]:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"empty|archive"):
            read_state(path)
    with pytest.raises(ValueError, match="no such file"):
        read_state(tmp_path / "missing.ckpt")


def test_command_line(tmp_path, capsys):
    told = ["convert", "rave", str(GOLDEN / "v1.ckpt"), "--sample-rate", "44100"]
    assert cli.main([*told, "--out", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("vae.safetensors")
    assert cli.main(["convert", "rave", str(tmp_path / "a"), "--back", "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "b" / "rave.safetensors").is_file()
    save_weights(tmp_path / "other" / "vae.safetensors", {"a": np.zeros(1, np.float32)}, {"kind": "other"})
    with pytest.raises(ValueError, match="not a converted RAVE"):
        rave.back(tmp_path / "other", tmp_path / "c")
