"""The settings of a server: one TOML file, and over it the environment.

Every setting has a variable, as RECKG_PORT or RECKG_LIMITS_MAX_ITEMS; lists and tables are given as JSON. Secrets
are no settings: settings name the file, or the variable, that holds them.
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
OTHER_VARIABLES = ("RECKG_REDIS_URL", "RECKG_TOKEN")  # read elsewhere; no settings


class LimitSettings(Section):
    """What one request, and all together, may ask for."""

    max_items: int = Field(500, ge=1, le=10_000, description="Items of one answer.")
    max_request_bytes: int = Field(64 * 1024, ge=1024, description="Size of a request but for those of the next.")
    max_write_bytes: int = Field(
        1024 * 1024, ge=1024, description="Size of a request with events, items or many users."
    )
    max_queue_ms: float = Field(
        50.0, gt=0, description="A request that would wait longer for its turn is rejected at once."
    )
    max_streams: int = Field(64, ge=1, description="Answers to BatchRecommend under way in a worker.")
    max_connection_age_s: float = Field(
        300.0, gt=0, description="A connection is closed after so long, so that clients find new workers."
    )
    requests_per_s: float = Field(
        0, ge=0, description="Of each caller over all workers, of which each allows its share; 0: no limit."
    )
    min_rerank_ms: float = Field(
        10.0, ge=0, description="With less time left than this before ranking, the retrieval order is the answer."
    )


class TlsSettings(Section):
    """Encryption; PEM files, read again when they change."""

    certificate: Path | None = Field(None, description="The server's certificate chain; none: no TLS.")
    key: Path | None = Field(None, description="Its private key.")
    client_ca: Path | None = Field(None, description="Clients must show a certificate of this authority.")

    @model_validator(mode="after")
    def _whole(self) -> TlsSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls: certificate and key belong together; give both or neither")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("tls.client_ca: needs a certificate and a key of the server")
        return self


class AuthSettings(Section):
    """Who may call what."""

    tokens: Path | None = Field(
        None, description="File of token hashes, as `reckg token` writes it; none: every caller may call everything."
    )


class StoreSettings(Section):
    """Where events and catalogue changes are kept."""

    kind: Literal["sqlite", "redis", "none"] = Field(
        "sqlite",
        description="sqlite: one machine, any number of workers; redis: several machines, its address in the variable "
        "RECKG_REDIS_URL or in redis_url_file; none: events and changes are refused.",
    )
    path: Path | None = Field(
        None, description="sqlite: the database file; default: state.db beside the bundle or in the bundle store."
    )
    redis_url_file: Path | None = Field(None, description="redis: a file that holds the URL, with its password.")
    namespace: str = Field("reckg", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="redis: the prefix of every key.")
    timeout_ms: float = Field(50.0, gt=0, description="A request waits so long for the store, and then does without.")
    write_timeout_ms: float = Field(
        2000.0, gt=0, description="A call that stores something waits so long before it is refused."
    )
    event_days: float = Field(30.0, gt=0, description="Events are kept so long after they were stored.")
    events_per_user: int = Field(200, ge=1, le=10_000, description="And of each user so many, the latest.")


class MetricsSettings(Section):
    """Prometheus."""

    host: str = Field("127.0.0.1", description="Address that is scraped.")
    port: int = Field(0, ge=0, le=65535, description="Its port, path /metrics; 0: no metrics.")
    recall_probe_s: float = Field(60.0, gt=0, description="How often a worker compares its index with exact search.")


class TracingSettings(Section):
    """OpenTelemetry; needs the extra `tracing`."""

    endpoint: str = Field("", description="OTLP/gRPC endpoint, as http://collector:4317; empty: no traces.")
    sample_share: float = Field(0.01, ge=0, le=1, description="Of the requests that no caller decided for.")


class LogSettings(Section):
    """The log, JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")


class ServedLogSettings(Section):
    """The log of what was shown, Parquet, for `reckg evaluate --log`."""

    folder: Path | None = Field(None, description="Where parts are written; none: nothing is logged.")
    rotate_s: float = Field(300.0, gt=0, description="A part is closed after so long.")
    rotate_rows: int = Field(200_000, ge=1, description="Or when it has so many rows.")
    max_mb: float = Field(10_000.0, gt=0, description="The oldest parts are removed above this.")
    log_user_ids: bool = Field(True, description="Whether rows name the user; estimates need it.")


class VariantSettings(Section):
    """One of the systems that are compared."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Its name in answers and logs.")
    share: float = Field(gt=0, description="Its share of the users, as a weight.")
    bundle_version: str = Field("", description="A version of the bundle store; empty: the one that is served.")
    rerank: bool = Field(True, description="Whether its candidates are ranked.")
    diversity: Literal["", "none", "mmr"] = Field("", description="In place of the bundle's setting; empty: that.")
    explore: int = Field(
        0,
        ge=0,
        le=100,
        description="The first so many items come in an order by chance, drawn by request_id: the log then holds "
        "propensities that another system can be judged by.",
    )


class ExperimentSettings(Section):
    """Comparing variants."""

    salt: str = Field("", description="Another salt deals users anew.")
    interleave: bool = Field(False, description="Two variants: every answer is a team draft of both.")
    variants: tuple[VariantSettings, ...] = Field((), description="The variants; none: the bundle answers everybody.")

    @property
    def bundle_versions(self) -> set[str]:
        """That variants name."""
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
    """The server."""

    bundle: Path = Field(description="A bundle folder, or a bundle store as `reckg publish` writes it.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(50051, ge=0, le=65535, description="Port; 0: a free one, printed.")
    insecure: bool = Field(False, description="Whether it may listen beyond this machine without TLS.")
    workers: int = Field(1, ge=1, le=256, description="Processes; one a core.")
    threads: int = Field(2, ge=1, le=64, description="Requests answered at once in a process.")
    grace_s: float = Field(10.0, ge=0, description="Seconds to finish what is in flight when the server stops.")
    reflection: bool = Field(False, description="Whether the server describes its methods to anybody.")
    embedder: bool = Field(
        True,
        description="Whether a process holds the bundle's text encoder, so that items can be added; not with "
        'store.kind "none".',
    )
    watch_s: float = Field(
        2.0, ge=0, description="How often a bundle store is asked for its latest version; 0: only LoadBundle swaps."
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
    def _closed(self) -> ServerSettings:
        if not (self.insecure or self.tls.certificate or is_loopback(self.host)):
            raise ValueError(
                f"host: {self.host!r} is reached from beyond this machine, where anybody reads and asks what they like "
                "without TLS: set tls.certificate and tls.key, or allow it with insecure (--insecure)"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_settings(
    path: Path | None = None, environment: Mapping[str, str] = os.environ, **given: Any
) -> ServerSettings:
    """The settings of a file, over them those of the environment, over them those that are given and not None.

    Raises:
        ConfigError: every problem at once: unknown keys and variables, values out of range, no bundle.
    """
    values = {} if path is None else read_toml(path)
    places = variables()
    unknown = sorted(
        name for name in environment if name.startswith(PREFIX) and name not in (*places, *OTHER_VARIABLES)
    )
    if unknown:
        raise ConfigError(f"unknown variable {', '.join(unknown)}; those of the server are: {', '.join(places)}")
    for name, place in places.items():
        if name in environment:
            _put(values, place, _value(name, environment[name], place))
    values |= {name: value for name, value in given.items() if value is not None}
    return parse_settings(values, ServerSettings, "the settings" if path is None else path.name)


def variables() -> dict[str, tuple[str, ...]]:
    """The environment variable of every setting, and the setting's place in the file."""
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
            return  # the model tells
        values = table
    values[place[-1]] = value


def _value(name: str, text: str, place: tuple[str, ...]) -> Any:
    """The text; of a list of tables what JSON says. Pydantic turns texts into numbers and booleans."""
    if place != ("experiment", "variants"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} must be JSON, a list of tables: {error}") from error
