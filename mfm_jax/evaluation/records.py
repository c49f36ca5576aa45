"""What an evaluation leaves: one JSON record, a table of its files, a Markdown table, and charts."""

import csv
import dataclasses
import json
import math
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL import Image

from mfm_jax.music.files import replacing

FORMAT = "mfm_jax.evaluation.1"
_PACKAGES = ("mfm-jax", "numpy", "scipy", "jax", "soundfile", "soxr", "onnxruntime", "mir_eval")
Row = dict[str, Any]


@dataclasses.dataclass
class Report:
    """The result of one evaluation.

    Attributes:
        kind: what was evaluated: 'notes', 'fad' ...
        facts: inputs with their hashes, n_files, seconds, settings: all that it takes to judge the scores.
        rows: the scores, a dict each; they have the same names where they mean the same.
        figures: further numbers of the whole set.
        files: a dict for each file.
        warnings: what a reader of the scores must know.
        charts: pictures by name.
    """

    kind: str
    facts: Row
    rows: list[Row]
    figures: Row = dataclasses.field(default_factory=dict)
    files: list[Row] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    charts: dict[str, Image.Image] = dataclasses.field(default_factory=dict)


def save(report: Report, out: Path, command: str) -> list[Path]:
    """Write `out` (JSON) and beside it `<stem>.csv`, `<stem>.md`, `<stem>.<chart>.png`; give their paths.

    Raises:
        ValueError: `out` is not named .json, or cannot be written.
    """
    check_out(out)
    record = {
        "format": FORMAT,
        "kind": report.kind,
        "command": command,
        "versions": versions(),
        **report.facts,
        "warnings": report.warnings,
        "rows": report.rows,
        "figures": report.figures,
        "files": report.files,
    }
    written = []
    for name, image in report.charts.items():
        written.append(out.with_name(f"{out.stem}.{name}.png"))
        with replacing(written[-1]) as temporary:
            image.save(temporary, format="PNG", optimize=True)
    if report.files:
        written.append(out.with_suffix(".csv"))
        with replacing(written[-1]) as temporary:
            _write_csv(temporary, report.files)
    written.append(out.with_suffix(".md"))
    with replacing(written[-1]) as temporary:
        temporary.write_text(markdown(report, command), encoding="utf-8")
    text = json.dumps(_plain(record), indent=1, ensure_ascii=False, allow_nan=False)
    with replacing(out) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return [out, *written]


def check_out(out: Path) -> None:
    """Check, before hours of work, that a record can be written.

    Raises:
        ValueError: `out` is not named .json, is a folder, or its folder cannot be made.
    """
    if out.suffix.lower() != ".json" or out.is_dir():
        raise ValueError(f"{out}: the record is JSON; give --out FILE.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None


def versions() -> dict[str, str]:
    """Give the versions of what the scores depend on; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def markdown(report: Report, command: str) -> str:
    """Lay a report out as Markdown: the command, warnings, the table of scores, the figures."""
    lines = [f"# {report.kind}", "", f"`{command}`", ""]
    lines += [f"- **{warning}**" for warning in report.warnings]
    lines += ["", *table(report.rows), ""]
    if report.figures:
        flat = [{"figure": name, "value": value} for name, value in _flat(report.figures)]
        lines += [*table(flat), ""]
    return "\n".join(lines)


def summary(report: Report, most: int = 14) -> list[str]:
    """Give the warnings and the first rows of the table, for a person at a terminal."""
    return [*(f"warning: {warning}" for warning in report.warnings), *table(report.rows[:most])]


def table(rows: Sequence[Row]) -> list[str]:
    """Give the lines of a Markdown table with the columns of all rows, in order of their first use."""
    if not rows:
        return []
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows]
    return lines


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_cell, value)) if isinstance(value, (list, tuple)) else str(value)


def _flat(values: Row, above: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        path = f"{above}{name}"
        pairs += _flat(value, f"{path}, ") if isinstance(value, dict) else [(path, value)]
    return pairs


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _plain(value: Any) -> Any:
    """Turn what NumPy left into plain Python; what is not finite becomes null, which JSON can say."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
