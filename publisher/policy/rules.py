"""Ordered rules that allow and deny names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mirror.oci.reference import ImageReference
from publisher.policy.patterns import Pattern

ANYTHING = Pattern("*")

_MEND = "ask this mirror's operator for a rule that allows it"


class Action(StrEnum):
    """What a rule says of the names that it is about."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. A name by digest has no tag: only rules for every tag are about it."""

    action: Action
    registry: Pattern = ANYTHING
    repository: Pattern = ANYTHING
    tag: Pattern = ANYTHING
    reason: str = ""
    """For the user."""

    def is_about(self, image: ImageReference) -> bool:
        """Whether the rule decides about this name, unless one before it does."""
        tag = image.reference.tag
        return (
            self.registry.matches(image.name.registry)
            and self.repository.matches(image.name.repository)
            and (self.tag.is_anything if tag is None else self.tag.matches(tag))
        )

    def __str__(self) -> str:
        return f"{self.action} {self.registry}/{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Rules:
    """The first rule that is about a name decides; `default` where none is."""

    rules: Sequence[Rule] = ()
    default: Action = Action.ALLOW

    def denial(self, image: ImageReference) -> str | None:
        """Why the name is not to be published, with what to do about it; None if it is."""
        for position, rule in enumerate(self.rules, start=1):
            if rule.is_about(image):
                if rule.action is Action.ALLOW:
                    return None
                return f"rule {position} of the policy denies it ({rule}){_because(rule)}; {_MEND}"
        if self.default is Action.ALLOW:
            return None
        return f"no rule of the policy allows it; {_MEND}"


def _because(rule: Rule) -> str:
    return f": {rule.reason}" if rule.reason else ""
