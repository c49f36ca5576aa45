import json

import pytest

from mfm_jax.inference.manifest import Item, open_manifest


def test_lines_of_text(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("# prompts\na waltz\n\n  a waltz \nÉtude, very slow\n", encoding="utf-8")
    manifest = open_manifest(path, "prompt", seed=5)
    assert [manifest[n] for n in range(len(manifest))] == [
        Item("01-a-waltz", "a waltz", {}, 5),
        Item("02-a-waltz", "a waltz", {}, 6),
        Item("03-tude-very-slow", "Étude, very slow", {}, 5),
    ]
    assert manifest.label(2) == "prompts.txt line 5"
    before = manifest.digest
    path.write_text("a march\n")
    assert open_manifest(path, "prompt").digest != before


def test_json_lines_have_ids_seeds_and_controls(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": "a waltz", "id": "w", "seed": 9, "tempo": 90},
        {"prompt": "a waltz"},
        {"prompt": "a waltz", "seconds": 3.5},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    manifest = open_manifest(path, "prompt")
    assert manifest[0] == Item("w", "a waltz", {"tempo": 90}, 9)
    assert manifest[1] == Item("02-a-waltz", "a waltz", {}, 1)
    assert manifest[2] == Item("03-a-waltz", "a waltz", {"seconds": 3.5}, 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "no prompt in it"),
        ('{"prompt": 3}', "no prompt in it"),
        ('{"prompt": "a", "id": "../up"}', "must be a text that can name a file"),
        ('{"prompt": "a", "id": [1]}', "must be a text"),
        ('{"prompt": "a", "seed": 1.5}', "must be a whole number"),
    ],
)
def test_a_bad_line_is_a_fault_of_its_item_alone(tmp_path, line, reason):
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{line}\n{{"prompt": "a waltz"}}\n')
    manifest = open_manifest(path, "prompt")
    with pytest.raises(ValueError, match=reason):
        manifest[0]
    assert manifest[1].source == "a waltz"


def test_what_cannot_be_a_manifest(tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text('{"prompt": "a", "id": "x"}\n\n{"prompt": "b", "id": "x"}\n')
    with pytest.raises(ValueError, match="lines 1 and 3 have the same id, 'x'"):
        open_manifest(path, "prompt")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="no prompt in it"):
        open_manifest(tmp_path / "empty.txt", "prompt")
    with pytest.raises(ValueError, match="no such file"):
        open_manifest(tmp_path / "missing.txt", "prompt")


def test_files_of_a_tree_keep_their_subfolders(tmp_path):
    for name in ("a.wav", "a.mp3", "deep/b.WAV", "deep/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    manifest = open_manifest(tmp_path, "path", suffixes=(".wav", ".mp3"))
    names = [manifest[n].name for n in range(len(manifest))]
    assert names == ["a.mp3", "a.wav", "deep/b"]
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match=r"bare: no \.wav files"):
        open_manifest(tmp_path / "bare", "path", suffixes=(".wav",))
