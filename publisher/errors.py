"""What can go wrong while a repository is read or written, beside the failures of `mirror.errors`."""

from mirror.errors import IntegrityError, MirrorError


class PublishError(MirrorError):
    """Root of all expected failures of publishing. The message is shown to users and becomes a job's reason."""


class Conflict(PublishError):
    """Somebody else writes the repository, or the thing to be made is there already; later, or elsewhere, it may succeed."""


class LeaseLost(Conflict):
    """The right to write the repository went to somebody else while the work was under way; nothing was published."""


class UnsafeLayer(PublishError):
    """An image's content breaks a rule of safety or a limit of the format; it is refused for good, with the reason."""


class BrokenLayer(PublishError):
    """A layer is not what it must be: no tar, cut, of another digest than promised, or incomplete in itself; refused for good."""


class RepositoryDamaged(PublishError, IntegrityError):
    """Objects, catalogs or named files of a repository are missing, or are not what their hash, size or form promises."""

    def __init__(self, message: str = "", item: str = "") -> None:
        """item: the object or file concerned, as a path below the storage's root; empty if it is not a single one."""
        super().__init__(message)
        self.item = item


class WrittenWrong(PublishError):
    """What is in the new catalogs is not what was to be written; nothing of it was published."""


class Untrusted(RepositoryDamaged):
    """Whitelist, certificate and manifest do not form a valid chain from the master key to the repository's content."""


class AgainstPolicy(PublishError):
    """The operator's policy rules the image out, or it was taken down; refused, with the rule and what to do about it."""
