import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "compile_for_pod.py"
TINY = str(ROOT / "configs" / "generator" / "tiny.yaml")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("compile_for_pod", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refusal(tool, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["compile_for_pod.py", *arguments])
    assert tool.main() == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "v5e-8"), "write CHIP:SHAPE"),
        (("--target", "v5e:2x2", "--stage", "judge"), "none of that name"),
        (("--target", "v5e:2x2", "--mesh", "fsdp=3"), "product must be the 4 devices"),
        (("--target", "v5e:2x2", "--effort", "2"), "must be from -1"),
        (("--target", "v5e:2x2", "--stage", "prior", "--batch", "6"), "do not divide among 4 devices"),
    ],
)
def test_bad_requests_are_refused_in_a_line(tool, monkeypatch, capsys, arguments, message):
    assert message in refusal(tool, monkeypatch, capsys, TINY, *arguments)


def test_what_cannot_fit_is_refused_before_it_is_compiled(tool, monkeypatch, capsys):
    wide = str(ROOT / "configs" / "generator" / "wide.yaml")
    line = refusal(
        tool, monkeypatch, capsys, wide, "--target", "v5e:2x2", "--mesh", "fsdp=4", "--stage", "prior"
    )
    assert "prior: needs" in line
    assert "which has 16.0 GiB; raise --mesh" in line


def test_a_missing_compiler_is_named(tool, monkeypatch, capsys):
    real = importlib.util.find_spec
    missing = {"libtpu", "jax_cuda12_plugin"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in missing else real(n, *a))
    said = refusal(tool, monkeypatch, capsys, TINY, "--target", "v5e:2x2", "--stage", "coder")
    assert "pip install 'libtpu==0.0.42.*'" in said
    said = refusal(tool, monkeypatch, capsys, TINY, "--target", "h100:8", "--stage", "coder")
    assert "pip install --no-deps jax-cuda12-plugin==" in said


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu (the tpu extra)")
def test_the_beat_coder_compiles_for_four_tpus(tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, str(TOOL), TINY, "--target", "v5e:2x2", "--stage", "coder", "--json", str(out)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "XLA_FLAGS": ""}
    subprocess.run(command, check=True, env=environment, timeout=600)
    (row,) = json.loads(out.read_text())
    assert row["arguments_ratio"] <= 1.12
    assert row["memory"]["alias"] > 0.9 * row["memory"]["outputs"]
    assert row["scatters"] > 0
    assert not row["whole_reductions"]
    assert row["memory"]["peak"] < row["memory"]["hbm"]
