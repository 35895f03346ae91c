"""TLS files: what is wrong is said at the start, and what changes is taken without a restart."""

from __future__ import annotations

import logging
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme

from reckg.errors import ConfigError
from serving.access.certificate import check_certificate
from serving.access.tls import Credentials
from serving.settings import TlsSettings
from tests.certificates import expired, write_authority, write_pair


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def settings(tmp_path: Path, authority: trustme.CA) -> TlsSettings:
    certificate, key = write_pair(tmp_path, authority.issue_cert("localhost"))
    return TlsSettings(certificate=certificate, key=key, client_ca=write_authority(tmp_path, authority))


def test_files_that_fit_are_taken_and_say_when_they_end(tmp_path: Path, authority: trustme.CA) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    certificate, key = write_pair(tmp_path, authority.issue_cert("localhost", not_after=ends))
    assert check_certificate(TlsSettings(certificate=certificate, key=key)) == ends


def test_a_chain_with_an_intermediate_is_taken(tmp_path: Path, authority: trustme.CA) -> None:
    certificate, key = write_pair(tmp_path, authority.create_child_ca().issue_cert("localhost"))
    assert certificate.read_bytes().count(b"BEGIN CERTIFICATE") == 2
    check_certificate(TlsSettings(certificate=certificate, key=key))


def test_a_missing_file_is_named(settings: TlsSettings) -> None:
    for path in (settings.certificate, settings.key, settings.client_ca):
        assert path is not None
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(ConfigError, match=rf"TLS file .*{path.name} cannot be read: No such file"):
            check_certificate(settings)
        path.write_bytes(kept)


def test_wrong_files_are_refused(settings: TlsSettings, tmp_path: Path, authority: trustme.CA) -> None:
    assert settings.certificate is not None and settings.key is not None and settings.client_ca is not None
    _, other_key = write_pair(tmp_path, authority.issue_cert("localhost"), "other")
    fit = r"server.pem and tls.key .* are no PEM certificate and key that match"
    with pytest.raises(ConfigError, match=f"{fit}: KEY_VALUES_MISMATCH"):
        check_certificate(TlsSettings(certificate=settings.certificate, key=other_key))
    settings.client_ca.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"tls.client_ca .*ca.pem is no PEM certificate"):
        check_certificate(settings)
    settings.certificate.write_text("nonsense")
    with pytest.raises(ConfigError, match=fit):
        check_certificate(TlsSettings(certificate=settings.certificate, key=settings.key))


def test_certificates_out_of_their_dates_are_refused(tmp_path: Path, authority: trustme.CA) -> None:
    certificate, key = write_pair(tmp_path, expired(authority, "localhost"))
    with pytest.raises(ConfigError, match=r"tls.certificate .*server.pem: certificate has expired"):
        check_certificate(TlsSettings(certificate=certificate, key=key))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    certificate, key = write_pair(
        tmp_path, authority.issue_cert("localhost", not_before=tomorrow, not_after=tomorrow + timedelta(days=1))
    )
    with pytest.raises(ConfigError, match=r"certificate is not yet valid"):
        check_certificate(TlsSettings(certificate=certificate, key=key))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")
def test_a_key_with_a_password_is_refused(settings: TlsSettings) -> None:
    assert settings.key is not None
    locked = settings.key.with_name("locked.key")
    command = ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", str(settings.key), "-out", str(locked)]
    if subprocess.run(command, capture_output=True).returncode:
        command[1] = "ec"
        subprocess.run(command, capture_output=True, check=True)
    with pytest.raises(ConfigError, match=r"tls\.key is protected by a password"):
        check_certificate(TlsSettings(certificate=settings.certificate, key=locked))


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_changed_files_are_taken_once(settings: TlsSettings, authority: trustme.CA, tmp_path: Path) -> None:
    clock = Clock()
    credentials = Credentials(settings, clock)
    assert isinstance(credentials.for_grpc(), grpc.ServerCredentials)
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    write_pair(tmp_path, authority.issue_cert("localhost", not_after=ends))
    assert credentials.changed() is None  # looked at a moment ago
    clock.now += 1.0
    assert credentials.changed() is not None
    assert credentials.expires == ends
    clock.now += 1.0
    assert credentials.changed() is None


def test_changed_files_that_are_wrong_are_reported_and_not_taken(
    settings: TlsSettings, authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    credentials = Credentials(settings, clock)
    before = credentials.expires
    write_pair(tmp_path, expired(authority, "localhost"))
    for _ in range(3):
        clock.now += 1.0
        assert credentials.changed() is None
    assert credentials.expires == before
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1 and "has expired; the certificate before it stays in force" in errors[0]
