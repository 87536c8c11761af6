"""conf/debark.toml: every setting is in it, and what it says of the defaults is true."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mirror.config import Config, load
from mirror.config.mistakes import allowed_text
from mirror.config.models import UpstreamSettings

FILE = Path(__file__).parents[3] / "conf" / "debark.toml"
EXAMPLE = "registry.example.org:5000"


def uncommented() -> str:
    text = re.sub(r"^#   (\[upstreams\..*\])$", r"\1", FILE.read_text(), flags=re.MULTILINE)
    return re.sub(r"^#([a-z_]+ = .*)$", r"\1", text, flags=re.MULTILINE)


def settings_of(model: type[BaseModel]) -> dict[str, Any]:
    """Setting names by section, nested as the file has them."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        found[name] = settings_of(inner) if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    return found


def shape(document: dict[str, Any]) -> dict[str, Any]:
    return {key: shape(value) if isinstance(value, dict) and value else None for key, value in document.items()}


def test_as_it_stands_it_changes_nothing() -> None:
    assert load(FILE) == Config()


def test_every_setting_is_there_and_none_that_is_not() -> None:
    document = shape(tomllib.loads(uncommented()))
    upstreams = document.pop("upstreams")
    wanted = settings_of(Config)
    del wanted["upstreams"]
    assert document == wanted
    assert set(upstreams["docker.io"]) | set(upstreams[EXAMPLE]) == set(UpstreamSettings.model_fields)


def test_commented_defaults_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    file = tmp_path / "debark.toml"
    file.write_text(uncommented())
    config = load(file)
    example = config.upstreams.pop(EXAMPLE)
    assert config == Config()
    assert example == UpstreamSettings(url=f"https://{EXAMPLE}")


def test_bounds_that_it_names_are_the_bounds() -> None:
    checked = 0
    for section, name, comment in described_settings():
        field = model_of(section).model_fields[name]
        bounds = re.search(r"from (.+?) to (.+?)(?: in whole seconds)?$", allowed_text(field))
        if field.annotation in (int, float) and bounds:
            low, high = bounds[1], bounds[2]
            spellings = {f"{low} to {high}", f"{low.removesuffix(' s').removesuffix(' B')} to {high.removesuffix(' B')}"}
            assert any(spelling in comment for spelling in spellings), f"{section}.{name}: {spellings} is not in: {comment}"
            checked += 1
    assert checked > 35


def described_settings() -> list[tuple[str, str, str]]:
    """Section, name and comment of every setting; settings of one paragraph share its comment."""
    section, found = "", []
    for paragraph in FILE.read_text().split("\n\n"):
        lines = paragraph.splitlines()
        for line in lines:
            if header := re.fullmatch(r"\[(.+)\]", line):
                section = header[1]
        comment = " ".join(line.removeprefix("# ") for line in lines if line.startswith("# "))
        found += [(section, setting[1], comment) for line in lines if (setting := re.match(r"#([a-z_]+) = ", line))]
    return found


def model_of(section: str) -> type[BaseModel]:
    if section.startswith("upstreams."):
        return UpstreamSettings
    model: type[BaseModel] = Config
    for name in filter(None, section.split(".")):
        inner = model.model_fields[name].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return model
