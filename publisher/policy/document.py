"""The policy file: TOML to `Policy`. Pure; `publisher.policy_file` reads the file, conf/policy.toml shows its form."""

from __future__ import annotations

import tomllib
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mirror.config.mistakes import key_path
from mirror.config.values import Count, Size
from mirror.errors import InvalidInput
from mirror.oci.reference import canonical_registry, canonical_repository
from publisher.policy.daily import DailyLimits
from publisher.policy.patterns import Pattern
from publisher.policy.policy import Policy
from publisher.policy.rules import Action, Rule, Rules
from publisher.policy.sizes import ImageLimits

MAX_DOCUMENT = 1 << 20
"""Bytes of a policy file."""
_MAX_PATTERN = 300
_MAX_RULES = 1000
_TIB = 1 << 40
_LIMITS, _DAILY = ImageLimits(), DailyLimits()


def _pattern(text: str) -> str:
    if not text or len(text) > _MAX_PATTERN or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"a pattern of 1 to {_MAX_PATTERN} characters as names have them, with * and ? for any others")
    return text


def _namespace(text: str) -> str:
    if "/" not in _pattern(text):
        raise ValueError("a pattern with registry and repository, such as quay.io/project/*")
    return text


_PatternText = Annotated[str, AfterValidator(_pattern)]
_Namespaces = Annotated[tuple[Annotated[str, AfterValidator(_namespace)], ...], Field(max_length=_MAX_RULES)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _RuleTable(_Table):
    action: Action
    registry: _PatternText = "*"
    repository: _PatternText = "*"
    tag: _PatternText = "*"
    reason: str = Field(default="", max_length=200)

    def rule(self) -> Rule:
        """The rule, with names in their canonical forms: `debian` on Docker Hub is `library/debian`."""
        registry, repository = Pattern(self.registry), Pattern(self.repository)
        if registry.is_plain:
            registry = Pattern(canonical_registry(self.registry))
            if repository.is_plain:
                repository = Pattern(canonical_repository(registry.text, self.repository))
        return Rule(self.action, registry, repository, Pattern(self.tag), self.reason)


class _LimitsTable(_Table):
    layers: Count = Field(default=_LIMITS.layers, ge=1, le=10_000)
    compressed_bytes: Size = Field(default=_LIMITS.compressed_bytes, ge=1, le=8 * _TIB)
    expanded_bytes: Size = Field(default=_LIMITS.expanded_bytes, ge=1, le=64 * _TIB)
    entries: Count = Field(default=_LIMITS.entries, ge=1, le=1_000_000_000)


class _DailyTable(_Table):
    images: Count = Field(default=_DAILY.images, ge=1, le=1_000_000)
    compressed_bytes: Size = Field(default=_DAILY.compressed_bytes, ge=1, le=1024 * _TIB)


class _Document(_Table):
    default: Action = Action.ALLOW
    public: _Namespaces = ()
    never_publish: _Namespaces = ()
    rules: tuple[_RuleTable, ...] = Field(default=(), max_length=_MAX_RULES)
    limits: _LimitsTable = _LimitsTable()
    daily: _DailyTable = _DailyTable()


def parse_policy(raw: bytes) -> Policy:
    """The policy of a file's content. Raises InvalidInput with every mistake and its place, one a line."""
    if len(raw) > MAX_DOCUMENT:
        raise InvalidInput(f"longer than {MAX_DOCUMENT} bytes, which no policy is")
    try:
        document = _Document.model_validate(tomllib.loads(raw.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(f"not TOML: {error}") from error
    except ValidationError as error:
        mistakes = [f"{key_path(detail['loc'])}: {_words(detail['msg'])}" for detail in error.errors(include_url=False)]
        raise InvalidInput("\n".join(mistakes)) from error
    return Policy(
        rules=Rules(tuple(table.rule() for table in document.rules), document.default),
        public=tuple(map(Pattern, document.public)),
        never_publish=tuple(map(Pattern, document.never_publish)),
        limits=ImageLimits(**document.limits.model_dump()),
        daily=DailyLimits(**document.daily.model_dump()),
    )


def _words(message: str) -> str:
    return message.replace("Value error, ", "expected is ").replace("Extra inputs are not permitted", "unknown key")
