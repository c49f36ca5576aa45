"""Typed configuration: frozen dataclasses, checked, written as YAML, overridden by `name=value`."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import pydantic
import yaml

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[T]) -> type[T]:
    """Make a class a frozen, keyword-only, hashable dataclass that refuses unknown or mistyped fields."""
    checked = pydantic.dataclasses.dataclass(
        frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid", validate_default=True)
    )
    made: Any = checked(cls)
    return made


def build(schema: type[T], values: dict[str, Any]) -> T:
    """Check a plain dict against a config class.

    Raises:
        ValueError: lists every unknown, missing or mistyped field by its dotted path.
    """
    try:
        return pydantic.TypeAdapter(schema).validate_python(values)
    except pydantic.ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"bad {schema.__name__}: " + "; ".join(faults)) from None


def load(schema: type[T], *sources: str | Path) -> T:
    """Read a config from YAML files and `dotted.path=value` overrides, merged left to right."""
    values: dict[str, Any] = {}
    for source in sources:
        text = str(source)
        if "=" in text:
            path, _, value = text.partition("=")
            layer: Any = yaml.safe_load(value)
            for name in reversed(path.split(".")):
                layer = {name: layer}
        else:
            layer = yaml.safe_load(Path(text).read_text()) or {}
        if not isinstance(layer, dict):
            raise ValueError(f"{text}: a config must map names to values, got {type(layer).__name__}")
        values = _merge(values, layer)
    return build(schema, values)


def to_dict(value: Any) -> dict[str, Any]:
    """Give the plain, JSON-ready dict of a config."""
    return json.loads(json.dumps(dataclasses.asdict(value), default=str))


def save(value: Any, path: str | Path) -> None:
    """Write a config as YAML."""
    Path(path).write_text(yaml.safe_dump(to_dict(value), sort_keys=False))


def digest(value: Any) -> str:
    """Give 12 hex digits that change when any field of the config does."""
    return hashlib.sha256(json.dumps(to_dict(value), sort_keys=True).encode()).hexdigest()[:12]


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
