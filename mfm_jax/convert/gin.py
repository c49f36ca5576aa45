"""RAVE's config.gin read as text: bindings, macros and included files; nothing is imported or called."""

import ast
import re
from pathlib import Path
from typing import Any

from mfm_jax.music.files import existing

MAX_BYTES = 2**20
MAX_DEPTH = 16
_BINDING = re.compile(r"^([\w./]+)\s*=\s*(.*)$", re.S)
_REFERENCE = re.compile(r"""("[^"]*"|'[^']*')|@([\w./]+(?:\(\))?)|%([\w./]+)""")


class Gin:
    """The bindings of a config."""

    def __init__(self, path: str | Path):
        """Read a file and those that it includes.

        Raises:
            ValueError: it cannot be read as gin.
        """
        self.path = existing(path)
        self._bindings: dict[str, str] = {}
        self._read(self.path, 0)

    def _read(self, path: Path, depth: int) -> None:
        if depth > MAX_DEPTH or path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path}: too long, or its includes have no end")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not a text file; give RAVE's config.gin") from None
        block = ""
        for line in _logical_lines(text):
            stripped = line.strip()
            if stripped.startswith("include "):
                self._include(path, stripped.removeprefix("include ").strip().strip("'\""), depth)
            elif stripped.startswith(("import ", "from ")):
                continue
            elif re.fullmatch(r"[\w./]+:", stripped):
                block = stripped[:-1]
            elif found := _BINDING.match(stripped):
                inside = block and line[0].isspace()
                block = block if inside else ""
                self._bindings[f"{block}.{found[1]}" if inside else found[1]] = found[2].strip()
            else:
                raise ValueError(f"{path}: cannot read '{stripped[:60]}' as gin; give RAVE's config.gin")

    def _include(self, path: Path, name: str, depth: int) -> None:
        for folder in (path.parent, path.parent.parent):
            if (folder / name).is_file():
                return self._read(folder / name, depth + 1)
        raise ValueError(f"{path}: includes {name}, which is not there; give the config.gin of the run")

    def get(self, name: str, default: Any = None) -> Any:
        """Give the value bound to 'Class.parameter' or to a macro, whatever its module; unscoped ones win.

        A reference '@module.Class' comes as that text. None and an absent binding are both `default`.
        """
        fits = [full for full in self._bindings if full.rsplit("/", 1)[-1].endswith(name)]
        fits = [full for full in fits if full.rsplit("/", 1)[-1].removesuffix(name)[-1:] in ("", ".")]
        if not fits:
            return default
        value = self._value(self._bindings[min(fits, key=lambda full: ("/" in full, len(full)))], 0)
        return default if value is None else value

    def _value(self, text: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"{self.path}: a macro that means itself")

        def replaced(match: re.Match[str]) -> str:
            if match[1]:
                return match[1]
            if match[2]:
                return repr(f"@{match[2]}")
            if match[3] not in self._bindings:
                raise ValueError(f"{self.path}: the macro %{match[3]} is not defined")
            return repr(self._value(self._bindings[match[3]], depth + 1))

        plain = _REFERENCE.sub(replaced, text)
        try:
            return ast.literal_eval(plain)
        except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError):
            raise ValueError(f"{self.path}: cannot read the value '{text[:60]}'") from None


def _logical_lines(text: str) -> list[str]:
    """Join lines that go on after a backslash or within brackets; drop comments."""
    lines: list[str] = []
    held = ""
    for raw in text.splitlines():
        line = _without_comment(raw).rstrip()
        joined = f"{held} {line.strip()}" if held else line
        if joined.endswith("\\"):
            held = joined[:-1]
        elif joined.count("(") + joined.count("[") + joined.count("{") > sum(map(joined.count, ")]}")):
            held = joined
        else:
            held = ""
            if joined.strip():
                lines.append(joined)
    return [*lines, held] if held.strip() else lines


def _without_comment(line: str) -> str:
    quote = ""
    for position, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#":
            return line[:position]
    return line
