"""An image's environment and command as POSIX shell text that means exactly what the config says. Pure."""

from __future__ import annotations

import re
import shlex

from mirror.errors import InvalidInput
from mirror.oci.manifest import ImageConfig

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_READ_ONLY = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
"""Variables that bash does not let anybody set; a script that tries ends there."""

_ENVIRONMENT_HEAD = """\
# Environment of the image. What the caller has set, and not to nothing, stays as it is; but PATH is the image's.
"""


def environment_script(config: ImageConfig) -> bytes:
    """Sets the image's variables in their order; of several of one name the last counts. To be read by `.`.

    Names that a shell cannot have are left out. Raises InvalidInput for a value with a zero byte.
    """
    values: dict[str, str | None] = {}
    for line in config.environment:
        name, equals, value = line.partition("=")
        if _VARIABLE.fullmatch(name) and name not in _READ_ONLY:
            values[name] = value if equals else None
    return _text(_ENVIRONMENT_HEAD + "".join(_assignment(name, value) for name, value in values.items()))


def run_script(config: ImageConfig) -> bytes:
    """Runs entrypoint and command. Arguments take the place of the command; they are passed on as they are.

    An image without both runs its arguments, or else a shell. Raises InvalidInput for a zero byte.
    """
    lines = ["#!/bin/sh", "# Entrypoint and command of the image; arguments take the command's place.", ""]
    command = config.command or (() if config.entrypoint else ("/bin/sh",))
    if command:
        lines += ['if [ "$#" -eq 0 ]; then', f"    set -- {_quoted(command)}", "fi"]
    lines.append(f'exec {_quoted(config.entrypoint)} "$@"' if config.entrypoint else 'exec "$@"')
    return _text("\n".join(lines) + "\n")


def _assignment(name: str, value: str | None) -> str:
    if name == "PATH" and value is not None:
        return f"PATH={_quote(value)}\nexport PATH\n"
    if not value:
        return f'{name}="${{{name}:-}}"\nexport {name}\n'
    return f'if [ -z "${{{name}:-}}" ]; then\n    {name}={_quote(value)}\nfi\nexport {name}\n'


def _quoted(words: tuple[str, ...]) -> str:
    return " ".join(_quote(word) for word in words)


def _quote(word: str) -> str:
    if "\0" in word:
        raise InvalidInput("the image config has a zero byte in its environment, entrypoint or command")
    return shlex.quote(word)


def _text(script: str) -> bytes:
    return script.encode("utf-8", "replace")  # lone surrogates, which JSON can hold, are no text
