"""The operator's policy as a whole. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mirror.oci.reference import ImageReference, RepositoryName
from publisher.policy.daily import DailyLimits
from publisher.policy.patterns import Pattern
from publisher.policy.rules import Rules
from publisher.policy.sizes import ImageLimits


@dataclass(frozen=True, slots=True)
class Policy:
    """What is published, and how much of it. Namespaces are patterns of `registry/repository`."""

    rules: Rules = field(default_factory=Rules)
    public: Sequence[Pattern] = ()
    """The operator vouches for these: no proof is asked for, and the mirror's own credential may be used."""
    never_publish: Sequence[Pattern] = ()
    """Mirrored, but never published, whatever the rules say."""
    limits: ImageLimits = field(default_factory=ImageLimits)
    daily: DailyLimits = field(default_factory=DailyLimits)

    def denial(self, image: ImageReference) -> str | None:
        """Why this name is not to be published, with what to do about it; None if it is."""
        never = _first(self.never_publish, image.name)
        if never is not None:
            return f"this mirror's operator keeps {never} from being published; ask there, or run the image itself"
        return self.rules.denial(image)

    def is_vouched_for(self, name: RepositoryName) -> bool:
        """Whether the operator says that everything in this repository is public."""
        return _first(self.public, name) is not None


def _first(patterns: Sequence[Pattern], name: RepositoryName) -> Pattern | None:
    return next((pattern for pattern in patterns if pattern.matches(str(name))), None)
