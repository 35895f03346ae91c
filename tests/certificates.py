"""Certificates for tests of TLS."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


def write_pair(folder: Path, issued: trustme.LeafCert, name: str = "server") -> tuple[Path, Path]:
    """The certificate chain and the key, as files."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


def expired(authority: trustme.CA, *names: str, common_name: str | None = None) -> trustme.LeafCert:
    """A certificate that ended an hour ago."""
    then = datetime.now(UTC) - timedelta(hours=1)
    return authority.issue_cert(*names, common_name=common_name, not_before=then - timedelta(days=1), not_after=then)


def write_authority(folder: Path, authority: trustme.CA, name: str = "ca") -> Path:
    path = folder / f"{name}.pem"
    path.write_bytes(authority.cert_pem.bytes())
    return path
