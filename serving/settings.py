"""Settings of a server: one TOML file, overridden by environment variables.

Every setting has a variable, as RECKG_PORT or RECKG_LIMITS_MAX_ITEMS. Lists and tables are JSON. Secrets are
no settings: a setting names the file, or the variable, that holds the secret.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from reckg.config.toml_settings import Section, parse_settings, read_toml
from reckg.errors import ConfigError

PREFIX = "RECKG_"
OTHER_VARIABLES = ("RECKG_REDIS_URL", "RECKG_TOKEN")  # read by the store and by the client


class LimitSettings(Section):
    """Limits of a single request and of all requests together."""

    max_items: int = Field(500, ge=1, le=10_000, description="Largest number of items in one answer.")
    max_request_bytes: int = Field(
        64 * 1024, ge=1024, description="Largest size of a request that max_write_bytes does not cover."
    )
    max_write_bytes: int = Field(
        1024 * 1024, ge=1024, description="Largest size of a request with events, items or many users."
    )
    max_queue_ms: float = Field(
        50.0, gt=0, description="A request with a longer expected wait for its turn is rejected at once."
    )
    max_streams: int = Field(64, ge=1, description="Largest number of BatchRecommend streams under way in a worker.")
    max_connection_age_s: float = Field(
        300.0, gt=0, description="Age at which a connection is closed, so that clients find new workers."
    )
    requests_per_s: float = Field(
        0, ge=0, description="Largest rate of each caller; each worker allows an equal share. 0: no limit."
    )
    min_rerank_ms: float = Field(
        10.0, ge=0, description="With less time left than this before ranking, the answer keeps the retrieval order."
    )


class TlsSettings(Section):
    """Encryption. The PEM files are read again when they change."""

    certificate: Path | None = Field(None, description="Certificate chain of the server; none: no TLS.")
    key: Path | None = Field(None, description="Private key of the certificate.")
    client_ca: Path | None = Field(
        None, description="Authority whose certificate every client must show; none: clients need no certificate."
    )

    @model_validator(mode="after")
    def _check_files(self) -> TlsSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls: certificate and key belong together; give both or neither")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("tls.client_ca: needs a certificate and a key of the server")
        return self


class AuthSettings(Section):
    """Access to the methods."""

    tokens: Path | None = Field(
        None, description="File of token hashes, as `reckg token` writes it; none: every caller may call every method."
    )


class StoreSettings(Section):
    """The store of events and catalogue changes."""

    kind: Literal["sqlite", "redis", "none"] = Field(
        "sqlite",
        description="sqlite: one machine, any number of workers; redis: several machines, the address in the variable "
        "RECKG_REDIS_URL or in redis_url_file; none: events and changes are refused.",
    )
    path: Path | None = Field(
        None, description="sqlite: database file; default: state.db beside the bundle or in the bundle store."
    )
    redis_url_file: Path | None = Field(None, description="redis: file that holds the URL, with its password.")
    namespace: str = Field("reckg", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="redis: prefix of every key.")
    timeout_ms: float = Field(
        50.0, gt=0, description="A request waits so long for the store, and then answers without its events."
    )
    write_timeout_ms: float = Field(
        2000.0, gt=0, description="A call that writes to the store waits so long before it is refused."
    )
    event_days: float = Field(30.0, gt=0, description="Days that an event is kept after it was stored.")
    events_per_user: int = Field(
        200, ge=1, le=10_000, description="Number of latest events that are kept for each user."
    )


class MetricsSettings(Section):
    """Metrics for Prometheus."""

    host: str = Field("127.0.0.1", description="Address that Prometheus scrapes.")
    port: int = Field(0, ge=0, le=65535, description="Port of the page /metrics; 0: no metrics.")
    recall_probe_s: float = Field(
        60.0, gt=0, description="Seconds between two comparisons of a worker's index with exact search."
    )


class TracingSettings(Section):
    """OpenTelemetry traces. They need the extra `tracing`."""

    endpoint: str = Field("", description="OTLP/gRPC endpoint, as http://collector:4317; empty: no traces.")
    sample_share: float = Field(
        0.01, ge=0, le=1, description="Share of the requests that are traced if the caller did not decide."
    )


class LogSettings(Section):
    """The log: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")


class ServedLogSettings(Section):
    """The served log: Parquet files of all answers, for `reckg evaluate --log`."""

    folder: Path | None = Field(None, description="Folder of the parts; none: no served log.")
    rotate_s: float = Field(300.0, gt=0, description="Age at which a part is closed.")
    rotate_rows: int = Field(200_000, ge=1, description="Number of rows at which a part is closed.")
    max_mb: float = Field(10_000.0, gt=0, description="Total size above which the oldest parts are removed.")
    log_user_ids: bool = Field(True, description="Whether rows name the user; estimates need the user.")


class VariantSettings(Section):
    """One of the compared systems."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Name of the variant in answers and logs.")
    share: float = Field(gt=0, description="Weight of its share of the users.")
    bundle_version: str = Field("", description="Version in the bundle store; empty: the served version.")
    rerank: bool = Field(True, description="Whether the ranker orders its candidates.")
    diversity: Literal["", "none", "mmr"] = Field(
        "", description="Diversity of its answers; empty: the bundle's setting."
    )
    explore: int = Field(
        0,
        ge=0,
        le=100,
        description="Number of first items that come in a random order, drawn by request_id. The served log then holds "
        "propensities for estimates of other systems.",
    )


class ExperimentSettings(Section):
    """The comparison of variants."""

    salt: str = Field("", description="Another salt assigns users to variants anew.")
    interleave: bool = Field(False, description="Whether every answer is a team draft of both variants; needs two.")
    variants: tuple[VariantSettings, ...] = Field(
        (), description="The variants; none: the served bundle answers everybody."
    )

    @property
    def bundle_versions(self) -> set[str]:
        """Bundle versions that variants name."""
        return {variant.bundle_version for variant in self.variants} - {""}

    @model_validator(mode="after")
    def _distinct(self) -> ExperimentSettings:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"experiment.variants: names must not repeat, got {', '.join(names)}")
        if self.interleave and len(names) != 2:
            raise ValueError(f"experiment.interleave: needs two variants, got {len(names)}")
        return self


class ServerSettings(Section):
    """All settings of a server."""

    bundle: Path = Field(description="Bundle folder, or a bundle store as `reckg publish` writes it.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(50051, ge=0, le=65535, description="Port; 0: a free port, which is printed.")
    insecure: bool = Field(False, description="Whether the server may listen beyond this machine without TLS.")
    workers: int = Field(1, ge=1, le=256, description="Number of processes; one per core.")
    threads: int = Field(2, ge=1, le=64, description="Requests that a process answers at once.")
    grace_s: float = Field(10.0, ge=0, description="Seconds in which calls in flight may finish when the server stops.")
    reflection: bool = Field(False, description="Whether the server describes its methods to every caller.")
    embedder: bool = Field(
        True,
        description="Whether a process holds the bundle's text encoder, so that items can be added. Without effect if "
        'store.kind is "none".',
    )
    watch_s: float = Field(
        2.0,
        ge=0,
        description="Seconds between two looks for a new latest version in a bundle store; 0: only LoadBundle swaps.",
    )
    swap_timeout_s: float = Field(300.0, gt=0, description="A bundle that takes longer to verify or load is refused.")
    limits: LimitSettings = LimitSettings()
    tls: TlsSettings = TlsSettings()
    auth: AuthSettings = AuthSettings()
    store: StoreSettings = StoreSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()
    served_log: ServedLogSettings = ServedLogSettings()
    experiment: ExperimentSettings = ExperimentSettings()

    @model_validator(mode="after")
    def _check_exposure(self) -> ServerSettings:
        if not (self.insecure or self.tls.certificate or is_loopback(self.host)):
            raise ValueError(
                f"host: {self.host!r} is reached from beyond this machine, and without TLS anybody may read and send "
                "requests: set tls.certificate and tls.key, or allow it with insecure (--insecure)"
            )
        return self


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches an address.

    Args:
        host: IP address or name.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_settings(
    path: Path | None = None, environment: Mapping[str, str] = os.environ, **overrides: Any
) -> ServerSettings:
    """Reads the settings. The environment overrides the file, and ``overrides`` override both.

    Args:
        path: TOML file; None: no file.
        environment: variables with the prefix RECKG_ are settings.
        overrides: settings of the top level; None leaves a setting alone.

    Raises:
        ConfigError: lists all problems: unknown keys and variables, values out of range, no bundle.
    """
    values = {} if path is None else read_toml(path)
    places = variables()
    unknown = sorted(
        name for name in environment if name.startswith(PREFIX) and name not in (*places, *OTHER_VARIABLES)
    )
    if unknown:
        raise ConfigError(f"unknown variable {', '.join(unknown)}; the server knows: {', '.join(places)}")
    for name, place in places.items():
        if name in environment:
            _put(values, place, _value(name, environment[name], place))
    values |= {name: value for name, value in overrides.items() if value is not None}
    return parse_settings(values, ServerSettings, "the settings" if path is None else path.name)


def variables() -> dict[str, tuple[str, ...]]:
    """Maps the environment variable of every setting to the setting's place in the file."""
    places: list[tuple[str, ...]] = []
    for name, field in ServerSettings.model_fields.items():
        section: Any = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            places += [(name, key) for key in section.model_fields]
        else:
            places.append((name,))
    return {PREFIX + "_".join(place).upper(): place for place in places}


def _put(values: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for name in place[:-1]:
        table = values.setdefault(name, {})
        if not isinstance(table, dict):
            return  # the model reports the wrong type
        values = table
    values[place[-1]] = value


def _value(name: str, text: str, place: tuple[str, ...]) -> Any:
    """Returns the text, or the parsed JSON of a list of tables. Pydantic turns texts into numbers and booleans."""
    if place != ("experiment", "variants"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} must be JSON, a list of tables: {error}") from error
