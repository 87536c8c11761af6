"""Settings as TOML text. There are no secrets among them: those are in files of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mirror.config.models import NO_FILE, Config
from mirror.config.values import Unit

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def as_toml(config: Config) -> str:
    """Every setting with the value in effect, derived ones included; as a file it gives these settings again."""
    return "\n".join(_section((), _effective(config))).strip() + "\n"


def _effective(config: Config) -> Config:
    sections = {
        "server": config.server.model_copy(update={"public_url": config.public_url}),
        "state": config.state.model_copy(update={"url": config.state_url}),
        "log": config.log.model_copy(
            update={"file": str(config.log_file or NO_FILE), "access_file": str(config.access_log or NO_FILE)}
        ),
    }
    return config.model_copy(update=sections)


def _section(path: tuple[str, ...], section: BaseModel) -> Iterator[str]:
    """Values first, tables behind them, as TOML wants it."""
    fields = type(section).model_fields
    values = {name: getattr(section, name) for name in fields}
    tables = {name: value for name, value in values.items() if isinstance(value, BaseModel | dict)}
    if path:
        yield f"\n[{'.'.join(map(_key, path))}]"
    for name in (name for name in values if name not in tables):
        yield f"{name} = {_value(values[name], fields[name])}"
    for name, table in tables.items():
        inner = table.items() if isinstance(table, dict) else [("", table)]
        for key, value in inner:
            yield from _section((*path, name, key) if key else (*path, name), value)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _value(value: Any, field: FieldInfo) -> str:
    unit = next((item for item in field.metadata if isinstance(item, Unit)), None)
    if unit is not None:
        return _string(unit.show(value))
    if isinstance(value, tuple):
        return f"[{', '.join(map(_item, value))}]"
    return _string(str(value)) if isinstance(value, str | Path) else json.dumps(value)


def _item(item: str | BaseModel) -> str:
    """Of a list: a text, or a table, which is then on one line."""
    if isinstance(item, str):
        return _string(item)
    fields = type(item).model_fields
    return f"{{ {', '.join(f'{name} = {_value(getattr(item, name), field)}' for name, field in fields.items())} }}"


def _string(text: str) -> str:
    """JSON's strings are TOML's, but for DEL and for surrogates, which JSON writes as pairs."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
