"""Patterns of names, as shells have them: * for any characters, slashes too, ? for one, [abc] for one of these. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import translate

_SPECIAL = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern; matches whole texts, upper and lower case being different."""

    text: str
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # What `translate` makes takes no more than text times pattern, however many stars there are.
        object.__setattr__(self, "_compiled", re.compile(translate(self.text)))

    def __str__(self) -> str:
        return self.text

    @property
    def is_plain(self) -> bool:
        """Whether it stands for one text only."""
        return not _SPECIAL.search(self.text)

    @property
    def is_anything(self) -> bool:
        """Whether it stands for every text."""
        return self.text == "*"

    def matches(self, text: str) -> bool:
        """Whether the whole text is of this form."""
        return self._compiled.match(text) is not None
