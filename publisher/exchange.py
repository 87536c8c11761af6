"""A new repository key and certificate in place of the old ones, without a moment in which clients refuse the repository.

First the whitelist names both certificates; then the keys are exchanged and the manifest is signed anew; the old certificate
leaves the whitelist when that is renewed the next time, long after the last cached manifest that it signed. Whatever step a
process dies at, manifest and whitelist fit together, and beginning again goes on with the same new key.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from mirror.errors import InvalidInput
from publisher.cvmfs import trust
from publisher.keys import KeyFiles, complete_exchange, load_certificate, prepare_exchange
from publisher.repository import Repository

log = structlog.get_logger()


def exchange_key(repository: Repository, keys: Path, lifetime: timedelta, wait: float = 60.0) -> None:
    """Make a new repository key, and sign with it from now on. Blocking. keys: the key directory; wait: seconds for the lock.

    Raises PublishError if the master key is not here, Conflict, InvalidInput, RepositoryDamaged, StorageFull, Unavailable.
    """
    with repository.spool.lock(wait):
        repository.recover()
        new = prepare_exchange(repository.keys, keys, _now(repository))
        repository.renew_whitelist(lifetime, also=(new.fingerprint,))
        _switch(repository, keys)
        repository.renew_whitelist(lifetime)
        _sign_anew(repository)


def request_exchange(repository: Repository, keys: Path, wait: float = 60.0) -> Path:
    """Make a new repository key, and return the file of its certificate, which a whitelist from elsewhere is to name."""
    with repository.spool.lock(wait):
        repository.refresh_keys()
        prepare_exchange(repository.keys, keys, _now(repository))
    return KeyFiles(keys, repository.fqrn).next_certificate


def install_whitelist(repository: Repository, keys: Path, data: bytes, wait: float = 60.0) -> bool:
    """Put a whitelist in place that was signed elsewhere; whether it brought an exchange of keys to its end.

    An exchange that was requested ends here, if the whitelist names both certificates. Raises as `Repository.install_whitelist`,
    and InvalidInput if a key is waiting that the whitelist does not name.
    """
    files = KeyFiles(keys, repository.fqrn)
    with repository.spool.lock(wait):
        whitelist = repository.install_whitelist(data)
        repository.recover()
        if not files.next_certificate.exists():
            return False
        if not trust.is_listed(load_certificate(files.next_certificate), whitelist):
            raise InvalidInput(
                f"the whitelist is in place, but does not name {files.next_certificate}: sign one that names it to finish the "
                f"exchange of keys, or delete {files.next_certificate} and {files.next_signing} to give it up"
            )
        _switch(repository, keys)
        _sign_anew(repository)
        return True


def _switch(repository: Repository, keys: Path) -> None:
    complete_exchange(keys, repository.fqrn)
    repository.refresh_keys()
    log.info("repository_key_exchanged", fqrn=repository.fqrn)


def _sign_anew(repository: Repository) -> None:
    base = repository.manifest()
    repository.publish_again(base, base.history)


def _now(repository: Repository) -> datetime:
    return datetime.fromtimestamp(repository.clock(), UTC)
