"""Every failure that debark tells a person about, as one small family.

Fields, not parsed strings, carry what a handler needs. Adapters (HTTP client, file system, SQL) turn their libraries' exceptions
into these near the place where they are raised; the proxy's entrance turns them into OCI error JSON, the command line into an
exit code and advice.
"""

_LONGEST = 10_000


class MirrorError(Exception):
    """Root of all expected failures. The message is shown to users: it names the thing and, where there is one, the mend.

    Messages quote what strangers sent, and go into databases, logs and answers: what is no text (lone surrogates, of JSON or of
    file names) is shown as `?`, and a message of more than 10,000 characters is cut.
    """

    def __init__(self, message: str = "") -> None:
        cut = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
        super().__init__(cut.encode("utf-8", "replace").decode("utf-8"))


class InvalidInput(MirrorError):
    """The caller sent something that breaks a grammar or a rule; trying again unchanged cannot help."""


class NotAnImage(InvalidInput):
    """It is mirrored like everything else, but there is no root file system in it that could be published."""


class NotFound(MirrorError):
    """The thing does not exist: the upstream itself said so, or the name leads to no configured upstream."""


class Denied(MirrorError):
    """The caller, or the mirror's own credential, may not read the thing."""


class Unavailable(MirrorError):
    """It cannot be had now, but may be later.

    retry_after: seconds after which trying again makes sense, if known.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unauthenticated(Denied):
    """Nobody knows who asks, and only who is known may.

    challenge: how to say who one is, as the value of `WWW-Authenticate`; None: by name and password.
    """

    def __init__(self, message: str, challenge: str | None = None) -> None:
        super().__init__(message)
        self.challenge = challenge


class TooManyRequests(Unavailable):
    """The caller asks faster than it may."""


class StorageFull(Unavailable):
    """The local disk cannot take more; content can still be streamed from the upstream without being kept."""


class IntegrityError(MirrorError):
    """Bytes do not have the digest, size or form that their name promises."""
