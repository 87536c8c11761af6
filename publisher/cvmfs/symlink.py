"""Targets of symbolic links, protected from the clients' expansion of `$(...)`. Repository format, section 6.6.

Clients replace `$(NAME)` and `$(NAME:-default)` by their environment, once. A target that holds `$(` is therefore stored with a
variable of empty name, which nobody can set, whose default is `$`.
"""

import re

_ESCAPED = b"$(:-$)("
_REFERENCE = re.compile(rb"\$\(([^)]*)\)", re.DOTALL)


def escape(target: bytes) -> bytes:
    """What to store so that clients show `target`."""
    return target.replace(b"$(", _ESCAPED)


def unescape(stored: bytes) -> bytes:
    """What a client with an empty environment shows for a stored target."""
    if b"$(" not in stored:
        return stored
    return _REFERENCE.sub(lambda match: match[1].partition(b":-")[2], stored)
