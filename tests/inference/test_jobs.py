import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_job

from mfm_jax.records import read, score_of, shards

TOY = Path(__file__).with_name("toy_job.py")
KEEP = ("--keep", "audio,score,latents", "--per-shard", "3")


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "bad" if n == 4 else f"piece {n}", "seed": n} for n in range(11)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def job(*words):
    return toy_job.main([str(word) for word in words])


def content(folder):
    """Give every result by name; the notes that a run keeps of its shards are hidden files."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_records_hold_what_was_asked_for(prompts, tmp_path):
    out = tmp_path / "out"
    assert job(prompts, "--out", out, *KEEP) == 2
    found = list(read(shards(out)))
    assert [facts["seed"] for _, facts in found] == [n for n in range(11) if n != 4]
    arrays, facts = found[1]
    assert facts["id"] == "02-piece-1"
    assert arrays["audio"].dtype == np.int16
    assert arrays["z"].shape == (12, 64)
    assert score_of(arrays, facts).tracks[0].notes[0, 2] == 61
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["skipped"] == [["prompts.jsonl line 5", "nothing can be played"]]
    assert manifest["records"] == 10
    assert job(prompts, "--out", tmp_path / "less", "--keep", "latents") == 2
    assert set(next(read(shards(tmp_path / "less")))[0]) == {"z"}


@pytest.mark.parametrize("kind", [KEEP, ()], ids=["shards", "files"])
def test_processes_and_batches_give_the_same(prompts, tmp_path, kind):
    assert job(prompts, "--out", tmp_path / "one", *kind) == 2
    for process in (1, 0):
        job(prompts, "--out", tmp_path / "two", *kind, "--processes", 2, "--process", process)
    assert job(prompts, "--out", tmp_path / "batched", *kind, "--batch", 2) == 2
    one, two, batched = (content(tmp_path / name) for name in ("one", "two", "batched"))
    assert batched == one
    if not kind:
        faults = one.pop("faults.jsonl"), two.pop("faults-0.jsonl")
        assert faults[0] == faults[1]
        assert json.loads(faults[0]) == {"item": "prompts.jsonl line 5", "fault": "nothing can be played"}
    assert two == one


@pytest.mark.parametrize(
    "kind",
    [pytest.param(KEEP, id="shards"), pytest.param((), id="files", marks=pytest.mark.slow)],
)
def test_killed_jobs_go_on_without_a_duplicate_or_a_gap(prompts, tmp_path, kind):
    job(prompts, "--out", tmp_path / "whole", *kind)
    out = tmp_path / "killed"
    command = [sys.executable, str(TOY), str(prompts), "--out", str(out), *kind, "--pause", "0.1"]
    rng = random.Random(len(kind))
    for processes in (1, 2):
        parts = [
            subprocess.Popen(
                [*command, "--processes", str(processes), "--process", str(p)],
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            for p in range(processes)
        ]
        for _ in range(2000):
            if out.exists() and any(out.iterdir()):
                break
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        for part in parts:
            part.kill()
            part.wait()
    assert len(content(out)) < len(content(tmp_path / "whole"))
    job(prompts, "--out", out, *kind)
    assert content(out) == content(tmp_path / "whole")
    assert not [path for path in out.rglob(".mfm-*")]


def test_a_job_that_was_begun_otherwise_is_refused(prompts, tmp_path):
    job(prompts, "--out", tmp_path / "out", *KEEP)
    prompts.write_text('{"prompt": "another"}\n')
    with pytest.raises(ValueError, match="begun with other settings"):
        job(prompts, "--out", tmp_path / "out", *KEEP)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--keep", "audio,smell"), "not smell"),
        (("--per-shard", 0), "must be 1 or more"),
        (("--processes", 2), "give all three, or none"),
        (("--processes", 2, "--process", 2), "must be 0 to one less"),
    ],
)
def test_bad_options(prompts, tmp_path, words, reason):
    with pytest.raises(ValueError, match=reason):
        job(prompts, "--out", tmp_path / "out", *words)
