"""`mfm convert tensors`: the tensors of a torch file under their own names."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mfm_jax import cli


@pytest.mark.parity
def test_tensors_keep_names_and_values(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = {"a.weight": torch.arange(6.0).reshape(2, 3).T, "a.count": torch.tensor(3)}
    torch.save({"epoch": 15, "state_dict": state}, tmp_path / "trained.pt")
    torch.save(state, tmp_path / "plain.pt")
    for name in ("trained", "plain"):
        assert cli.main(["convert", "tensors", str(tmp_path / f"{name}.pt"), "--out", str(tmp_path)]) == 0
        found = load_file(tmp_path / f"{name}.safetensors")
        np.testing.assert_array_equal(found["a.weight"], np.arange(6, dtype=np.float32).reshape(2, 3).T)
        assert found["a.count"] == 3


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pt").write_bytes(b"dear diary")
    assert cli.main(["convert", "tensors", str(tmp_path / "x.pt"), "--out", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "o").exists()
