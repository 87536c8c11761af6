"""`debark-publisher resign`: whitelists, here or where the master key is, and new repository keys."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric import rsa

from mirror.errors import InvalidInput, NotFound
from publisher import exchange
from publisher.audit import Act
from publisher.commands.report import Report
from publisher.commands.verb import verb
from publisher.commands.warnings import warn_of_absent_master
from publisher.commands.workplace import Workplace
from publisher.cvmfs import trust
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.whitelist import WHITELIST_NAME, Whitelist, fingerprint_text
from publisher.errors import PublishError
from publisher.keys import KeyFiles, load_certificate, load_master, sign_whitelist
from publisher.objects.local import LocalObjectStore

_directory = click.Path(path_type=Path, exists=True, file_okay=False)
_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@verb("resign")
@click.option("-d", "--days", type=click.IntRange(1, 3650), help="How long the whitelist is good; the setting without it.")
@click.option("--new-certificate", is_flag=True, help="Make a new repository key with its certificate, and sign with it.")
@click.option("--whitelist", type=_file, help="Put this whitelist in place, which was signed where the master key is.")
@click.option("--keys", type=_directory, help="Elsewhere: directory with FQRN.masterkey, and FQRN.crt or --certificate.")
@click.option("--certificate", "certificates", type=_file, multiple=True, help="Certificate to list, with --keys; repeatable.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Whitelist to write, with --keys.")
@click.option("--storage", type=_directory, help="Storage of the repository to write the whitelist to, with --keys.")
def resign(
    place: Workplace,
    report: Report,
    *,
    days: int | None,
    new_certificate: bool,
    whitelist: Path | None,
    keys: Path | None,
    certificates: tuple[Path, ...],
    output: Path | None,
    storage: Path | None,
) -> None:
    """Sign the whitelist of the repository FQRN anew, so that clients trust it for another while.

    A running publisher does that by itself where it has the master key. Where it has not, sign on the machine that has:
    `resign --keys DIR --output FILE FQRN`, carry the file over, and put it in place with `resign --whitelist FILE FQRN`. With the
    storage at hand, `resign --keys DIR --storage DIR FQRN` is all.

    With --new-certificate the whitelist names the old and the new certificate; the old one leaves with the next whitelist, which
    should not be before the manifest has left all caches, an hour say. Without the master key here it makes a request: the
    certificate to carry to where the key is.
    """
    lifetime = place.lifetime if days is None else timedelta(days=days)
    elsewhere = keys is not None
    if elsewhere != bool(output or storage) or (elsewhere and (new_certificate or whitelist)) or (new_certificate and whitelist):
        raise InvalidInput("give --keys with --output or --storage, or --new-certificate, or --whitelist, or none of them")
    if certificates and output is None:
        raise InvalidInput("--certificate goes with --keys and --output")
    if keys is not None:
        _sign_elsewhere(place, report, keys, lifetime, certificates=certificates, output=output, storage=storage)
        return
    repository = place.repository()
    if whitelist is not None:
        exchanged = exchange.install_whitelist(repository, place.data.keys, whitelist.read_bytes())
        place.audit.record(Act.SIGNED, fqrn=place.fqrn, what="whitelist put in place" + (", key exchanged" if exchanged else ""))
        _tell(repository.whitelist(), report, "put in place" + (", new repository key in use" if exchanged else ""))
        return
    if repository.keys.master is None and new_certificate:
        request = exchange.request_exchange(repository, place.data.keys)
        current = KeyFiles(place.data.keys, place.fqrn).certificate
        report.result(
            f"a new repository key waits; where the master key is, sign a whitelist that names both certificates: "
            f"debark-publisher resign --keys DIR --certificate {current.name} --certificate {request.name} --output FILE "
            f"{place.fqrn} (carry {current} and {request} there); and then here: "
            f"debark-publisher resign --whitelist FILE {place.fqrn}",
            fqrn=place.fqrn,
            request=str(request),
        )
        return
    if repository.keys.master is None:
        warn_of_absent_master(repository, report)
        raise PublishError(f"the master key of {place.fqrn} is not on this machine")
    if new_certificate:
        exchange.exchange_key(repository, place.data.keys, lifetime)
    else:
        with repository.spool.lock(60.0):
            repository.renew_whitelist(lifetime)
    place.audit.record(Act.SIGNED, fqrn=place.fqrn, what="key exchanged" if new_certificate else "whitelist")
    _tell(repository.whitelist(), report, "signed")


def _sign_elsewhere(
    place: Workplace,
    report: Report,
    keys: Path,
    lifetime: timedelta,
    *,
    certificates: tuple[Path, ...],
    output: Path | None,
    storage: Path | None,
) -> None:
    public, master = load_master(keys, place.fqrn)
    if master is None:
        raise NotFound(f"{KeyFiles(keys, place.fqrn).master} is missing: whitelists are signed with it")
    now = datetime.now(UTC)
    if storage is not None:
        store = LocalObjectStore(storage)
        known = trust.verified_whitelist(store.read_file(WHITELIST_NAME), place.fqrn, public, None)
        data = sign_whitelist(master, place.fqrn, known.fingerprints, now, lifetime)
        store.write_file(WHITELIST_NAME, data)
    else:
        data = sign_whitelist(master, place.fqrn, _fingerprints(keys, place.fqrn, certificates), now, lifetime)
    if output is not None:
        output.write_bytes(data)
    _tell(_read(data, place.fqrn, public), report, f"written to {output or storage}")


def _fingerprints(keys: Path, fqrn: str, certificates: Iterable[Path]) -> list[ContentHash]:
    paths = tuple(certificates) or (KeyFiles(keys, fqrn).certificate,)
    return [trust.fingerprint(load_certificate(path)) for path in paths]


def _read(data: bytes, fqrn: str, public: rsa.RSAPublicKey) -> Whitelist:
    return trust.verified_whitelist(data, fqrn, public, None)


def _tell(whitelist: Whitelist, report: Report, what: str) -> None:
    names = [fingerprint_text(known) for known in whitelist.fingerprints]
    report.result(
        f"whitelist of {whitelist.fqrn} {what}; clients trust it until {whitelist.expires:%Y-%m-%d %H:00} UTC; it names "
        + " and ".join(names),
        fqrn=whitelist.fqrn,
        expires=f"{whitelist.expires:%Y-%m-%dT%H:%M:%SZ}",
        certificates=names,
    )
