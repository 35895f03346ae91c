"""A server's settings: a file, the environment over it, and every problem told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from reckg.errors import ConfigError
from serving.settings import ServerSettings, read_settings, variables


def test_the_environment_goes_over_the_file_and_what_is_given_over_both(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('bundle = "store"\nport = 1000\nworkers = 2\n[limits]\nmax_items = 50\n[store]\nkind = "redis"\n')
    environment = {"RECKG_PORT": "2000", "RECKG_LIMITS_MAX_QUEUE_MS": "7.5", "RECKG_REFLECTION": "true", "HOME": "/"}
    settings = read_settings(file, environment, workers=3, host=None)
    assert (settings.port, settings.workers, settings.host) == (2000, 3, "127.0.0.1")
    assert (settings.limits.max_items, settings.limits.max_queue_ms) == (50, 7.5)
    assert settings.reflection is True and settings.store.kind == "redis" and settings.bundle == Path("store")


def test_every_setting_has_a_variable() -> None:
    assert variables()["RECKG_BUNDLE"] == ("bundle",)
    assert variables()["RECKG_SERVED_LOG_ROTATE_S"] == ("served_log", "rotate_s")
    for name in variables():
        if name in ("RECKG_BUNDLE", "RECKG_EXPERIMENT_VARIANTS"):
            continue
        with pytest.raises(ConfigError) as raised:  # a list fits none of them
            read_settings(None, {"RECKG_BUNDLE": "b"}, **_nested(variables()[name], [1, 2]))
        assert ".".join(variables()[name]) in str(raised.value)


def _nested(place: tuple[str, ...], value: object) -> dict[str, object]:
    return {place[0]: value if len(place) == 1 else _nested(place[1:], value)}


def test_variants_come_as_json() -> None:
    variants = '[{"name": "a", "share": 1}, {"name": "b", "share": 1, "rerank": false}]'
    settings = read_settings(None, {"RECKG_BUNDLE": "b", "RECKG_EXPERIMENT_VARIANTS": variants})
    assert [variant.rerank for variant in settings.experiment.variants] == [True, False]
    with pytest.raises(ConfigError, match="RECKG_EXPERIMENT_VARIANTS must be JSON, a list of tables: "):
        read_settings(None, {"RECKG_BUNDLE": "b", "RECKG_EXPERIMENT_VARIANTS": "a, b"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "1 problem in the settings: bundle: Field required"),
        ({"bundle": "b", "prot": 1}, r"unknown key 'prot' \(did you mean 'port'\?\)"),
        ({"bundle": "b", "limits": {"max_item": 1}}, r"unknown key 'limits.max_item' \(did you mean 'max_items'\?\)"),
        ({"bundle": "b", "port": 70000, "threads": 0}, "2 problems in the settings: port: .*70000; threads: .*got 0"),
        ({"bundle": "b", "host": "0.0.0.0"}, "host: '0.0.0.0' is reached from beyond this machine"),
        ({"bundle": "b", "host": "recommender.example"}, "host: 'recommender.example' is reached from beyond"),
        ({"bundle": "b", "tls": {"key": "k"}}, "tls: certificate and key belong together"),
        ({"bundle": "b", "tls": {"client_ca": "c"}}, "tls.client_ca: needs a certificate and a key"),
        ({"bundle": "b", "experiment": {"interleave": True}}, "experiment.interleave: needs two variants, got 0"),
        (
            {"bundle": "b", "experiment": {"variants": [{"name": "a", "share": 1}, {"name": "a", "share": 1}]}},
            "names must not repeat, got a, a",
        ),
    ],
)
def test_problems_are_told(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(None, {}, **given)


def test_an_unknown_variable_is_told() -> None:
    with pytest.raises(ConfigError, match="unknown variable RECKG_PRT; the server knows: RECKG_BUNDLE, "):
        read_settings(None, {"RECKG_BUNDLE": "b", "RECKG_PRT": "1"})


def test_secrets_are_no_settings() -> None:
    names = " ".join(variables()).lower()
    assert not any(word in names for word in ("password", "secret", "redis_url ", "token "))
    read_settings(None, {"RECKG_BUNDLE": "b", "RECKG_REDIS_URL": "redis://:secret@host", "RECKG_TOKEN": "t"})
    assert "secret" not in repr(ServerSettings(bundle=Path("b")))


@pytest.mark.parametrize(
    "given",
    [
        {"host": "localhost"},
        {"host": "::1"},
        {"host": "127.9.0.1"},
        {"host": "0.0.0.0", "insecure": True},
        {"host": "0.0.0.0", "tls": {"certificate": "c", "key": "k"}},
    ],
)
def test_a_server_may_listen_to_this_machine_or_with_tls_or_where_it_is_allowed(given: dict[str, object]) -> None:
    assert read_settings(None, {"RECKG_BUNDLE": "b"}, **given).host == given["host"]
