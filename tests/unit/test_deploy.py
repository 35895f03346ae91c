"""The deployment files, by the linters of their kinds, and against the server that they are for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from prometheus_client import REGISTRY

from serving.monitoring import metrics  # noqa: F401
from serving.settings import read_settings, variables
from serving.supervisor.metrics_page import supervisor_metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "serving" / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "reckg.json"


def lint(tool: str, *words: str | Path) -> None:
    path = Path(sys.executable).with_name(tool)
    done = subprocess.run([path, *words], capture_output=True, text=True, cwd=DEPLOY, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "reckg.yaml").read_text()))


def test_the_dockerfile() -> None:
    lint("hadolint", "Dockerfile")


def test_the_compose_file() -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")


def test_the_kubernetes_manifests() -> None:
    kinds = []
    for document in documents():
        kubernetes_validate.validate(document, "1.31", strict=True)
        kinds.append(document["kind"])
    assert {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"} <= set(kinds)


def test_a_wrong_manifest_is_found() -> None:
    wrong = documents()[1]
    wrong["spec"]["replicaz"] = 2
    with pytest.raises(kubernetes_validate.utils.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


def test_the_settings_in_the_files_are_the_servers(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(documents()[0]["data"]["server.toml"])
    settings = read_settings(file, {})
    ports = documents()[1]["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert [port["containerPort"] for port in ports] == [settings.port, settings.metrics.port]
    named = re.findall(r"RECKG_[A-Z_]+", (DEPLOY / "Dockerfile").read_text() + (DEPLOY / "compose.yaml").read_text())
    assert set(named) - {"RECKG_TLS_", "RECKG_REDIS_URL"} <= set(variables())


def test_rules_and_dashboard_ask_for_metrics_that_exist() -> None:
    told = {"worker_count", "ready_worker_count", "respawn_count", "swap_count", "refused_swap_count", "swap_seconds"}
    supervisor = supervisor_metrics(dict.fromkeys(told, 1.0) | {"bundle_version": "v1", "bundle_time": 1.0})
    families = [*REGISTRY.collect(), *supervisor]
    ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    known = {family.name + end for family in families for end in ends.get(family.type, [""])}
    recorded = {
        rule["record"]
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    asked = set(re.findall(r"\breckg_[a-z_]+", RULES.read_text().partition("groups:")[2] + DASHBOARD.read_text()))
    assert len(asked) > 15
    assert asked - known - {"reckg_objectives", "reckg_burn_rates", "reckg_causes"} == set()
    assert set(re.findall(r"reckg:[a-z_]+:[a-z0-9]+", RULES.read_text() + DASHBOARD.read_text())) == recorded


def test_every_alert_has_a_runbook() -> None:
    alerts = [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule
    ]
    assert len(alerts) > 15
    for alert in alerts:
        page, _, anchor = alert["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, f"{alert['alert']}: {page} has no heading for #{anchor}"


def test_the_dashboards_panels_are_distinct_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    cells = [
        (x, y)
        for p in (panel["gridPos"] for panel in panels)
        for x in range(p["x"], p["x"] + p["w"])
        for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(set(cells)) == len(cells)


def test_promtool_takes_rules_and_configuration() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: it comes with Debian's package prometheus")
    for words in (["check", "rules", RULES], ["check", "config", DEPLOY / "prometheus" / "prometheus.yml"]):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
