"""`debark-publisher mkfs`: a new repository, with new keys or with some that exist."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from mirror.errors import InvalidInput
from publisher.audit import Act
from publisher.commands.report import Report
from publisher.commands.verb import duration_value, verb
from publisher.commands.warnings import warn_of_absent_master
from publisher.commands.workplace import Workplace
from publisher.creation import create_repository
from publisher.keys import KeyFiles, RepositoryKeys, import_keys


@verb("mkfs")
@click.option(
    "--keys",
    "key_source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory with keys to use: FQRN.masterkey or .pub, and .key and .crt, which are made new if both are missing.",
)
@click.option(
    "--leave-master-key",
    is_flag=True,
    help="Sign with the master key of --keys, but do not copy it: renew whitelists from there.",
)
@click.option(
    "--whitelist",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Whitelist that was signed elsewhere (resign --output), where the master key is.",
)
@click.option("--ttl", callback=duration_value, metavar="DURATION", help="How often clients look for a new revision.")
@click.option("--compressor", help="How content is compressed, such as libdeflate-5 or zlib-6; never changed later.")
def mkfs(
    place: Workplace,
    report: Report,
    *,
    key_source: Path | None,
    leave_master_key: bool,
    whitelist: Path | None,
    ttl: float | None,
    compressor: str | None,
) -> None:
    """Make the empty repository FQRN in the data directory, with its keys."""
    signed = whitelist.read_bytes() if whitelist is not None else None
    if key_source is not None:
        keys = import_keys(key_source, place.fqrn, datetime.now(UTC))
        if leave_master_key:
            signed = signed or keys.sign_whitelist(datetime.now(UTC), place.lifetime)
            keys = replace(keys, master=None)
        _adopt(keys, place.data.keys)
    elif leave_master_key:
        raise InvalidInput("--leave-master-key needs --keys: the directory where the master key stays")
    settings = place.settings
    settings = replace(
        settings, compressor=compressor or settings.compressor, ttl=settings.ttl if ttl is None else int(ttl)
    )  # fmt: skip
    repository = create_repository(
        place.fqrn, place.storage().store, keys=place.data.keys, spool=place.spool, settings=settings, whitelist=signed
    )  # fmt: skip
    place.audit.record(Act.MADE, fqrn=place.fqrn, revision=1)
    public = KeyFiles(place.data.keys, place.fqrn).public
    report.result(
        f"made {place.fqrn}; clients need its public key {public}",
        fqrn=place.fqrn,
        revision=1,
        root=str(repository.manifest().root),
        public_key=str(public),
        storage=place.where,
    )
    warn_of_absent_master(repository, report)


def _adopt(keys: RepositoryKeys, directory: Path) -> None:
    """Put keys beside those of the other repositories, unless a first try has done so already."""
    if KeyFiles(directory, keys.fqrn).any_present:
        present = RepositoryKeys.load(directory, keys.fqrn)
        if present.certificate == keys.certificate and present.master_public == keys.master_public:
            return
    keys.save(directory)
