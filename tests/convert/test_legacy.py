"""Files of torch before 1.6; `golden/legacy.pth` was written by torch.save with the old serialisation."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mfm_jax import cli
from mfm_jax.convert.legacy import LegacyArchive, is_legacy

GOLDEN = Path(__file__).parents[1] / "golden" / "legacy.pth"


def test_tensors_of_an_old_file_keep_names_and_values(tmp_path: Path) -> None:
    assert cli.main(["convert", "tensors", str(GOLDEN), "--out", str(tmp_path)]) == 0
    found = load_file(tmp_path / "legacy.safetensors")
    np.testing.assert_array_equal(found["a.weight"], np.arange(6, dtype=np.float32).reshape(2, 3).T)
    np.testing.assert_array_equal(found["b.bias"], np.array([1.5, -2], np.float16))
    assert found["a.count"] == 3


def test_every_cut_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = GOLDEN.read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "x.pth").write_bytes(whole[:end])
        assert cli.main(["convert", "tensors", str(tmp_path / "x.pth"), "--out", str(tmp_path / "o")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = GOLDEN.read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "x.pth"
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            if is_legacy(path):
                LegacyArchive(path)
        except ValueError:
            refused += 1
    assert refused > 50


@pytest.mark.parity
def test_equals_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(4, 2))
    torch.save(net.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    assert cli.main(["convert", "tensors", str(tmp_path / "net.pth"), "--out", str(tmp_path)]) == 0
    found = load_file(tmp_path / "net.safetensors")
    assert found.keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(found[name], value.numpy())
