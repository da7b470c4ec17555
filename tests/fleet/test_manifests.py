"""Dockerfile and k8s/ checked offline: against Kubernetes' own schemas, and for what we promise of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from brandproxy.config import Settings
from brandproxy.roles import ROLES

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml"))
VERSIONS = ("1.34", "1.37.0")
CRDS = {"ServiceMonitor"}  # the Prometheus operator's; no schema of Kubernetes

METRICS = "\n".join(path.read_text() for path in (ROOT / "brandproxy").rglob("*.py"))

SECRETS = ("BRANDPROXY_STORE", "BRANDPROXY_MASTER_KEY", "BRANDPROXY_ANALYTICS_ENGINE")

Object = dict[str, Any]


def objects(path: Path) -> list[Object]:
    return [found for found in yaml.safe_load_all(path.read_text()) if found]


def resources(folder: Path) -> list[Object]:
    """All objects of a kustomization, without its patches."""
    found = []
    for name in objects(folder / "kustomization.yaml")[0]["resources"]:
        path = folder / name
        found += resources(path.resolve()) if path.is_dir() else objects(path)
    return found


def built(overlay: Path) -> list[Object]:
    """What is applied: by kubectl when it is there, otherwise the patches merged as far as they are maps."""
    if shutil.which("kubectl"):
        run = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        return [found for found in yaml.safe_load_all(run.stdout) if found]
    found = {key(item): item for item in resources(overlay)}
    for patch in objects(overlay / "kustomization.yaml")[0]["patches"]:
        for change in objects(overlay / patch["path"]):
            found[key(change)] = merged(found[key(change)], change)
    return list(found.values())


def key(item: Object) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def merged(base: Any, change: Any) -> Any:
    if isinstance(base, dict) and isinstance(change, dict):
        return base | {name: merged(base.get(name), value) for name, value in change.items()}
    return change


def pods(overlay: Path) -> list[Object]:
    return [item["spec"]["template"]["spec"] for item in built(overlay) if "template" in item.get("spec", {})]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(overlay: Path, version: str) -> None:
    assert len(built(overlay)) > 15
    for item in built(overlay):
        if item["kind"] not in CRDS:
            kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_patches_change_what_exists(overlay: Path) -> None:
    there = {key(item) for item in resources(overlay)}
    for patch in objects(overlay / "kustomization.yaml")[0]["patches"]:
        for change in objects(overlay / patch["path"]):
            assert key(change) in there


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_pods_are_locked_down_and_probed(overlay: Path) -> None:
    for pod in pods(overlay):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert pod["automountServiceAccountToken"] is False
        [container] = pod["containers"]
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"startupProbe", "livenessProbe"} <= container.keys()
        assert container["resources"]["limits"]["memory"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp"}


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_names_agree_with_each_other_and_with_the_program(overlay: Path) -> None:
    everything = built(overlay)
    labels = {}
    for item in everything:
        if item["kind"] in ("Deployment", "StatefulSet"):
            template = item["spec"]["template"]
            labels[item["metadata"]["name"]] = template["metadata"]["labels"]
            [container] = template["spec"]["containers"]
            assert container["args"][:2] == ["serve", "--role"]
            assert container["args"][2] in ROLES
            known = {f"BRANDPROXY_{name}".upper() for name in settings()}
            for variable in container.get("env", []):
                assert variable["name"] in known, variable["name"]
                assert ("valueFrom" in variable) == (variable["name"] in SECRETS), (
                    "secrets come by reference, and nothing else does"
                )
        if item["kind"] == "ConfigMap":
            assert item["data"].keys() <= {f"BRANDPROXY_{name}".upper() for name in settings()}
    for item in everything:
        if item["kind"] == "HorizontalPodAutoscaler":
            assert item["spec"]["scaleTargetRef"]["name"] in labels
            for metric in item["spec"]["metrics"]:
                name = metric["pods"]["metric"]["name"] if metric["type"] == "Pods" else ""
                assert f'"{name}"' in METRICS, f"no process measures {name}"
        if item["kind"] in ("Service", "PodDisruptionBudget"):
            selector = item["spec"]["selector"]
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= found.items() for found in labels.values()), item["metadata"]["name"]


def settings() -> list[str]:
    names = []
    for name, field in Settings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        names += [f"{name}_{sub}" for sub in inner] if inner else [name]
    return names


def test_the_edge_keeps_addresses_spools_and_connections() -> None:
    base = {key(item): item["spec"] for item in resources(K8S / "base") if "spec" in item}
    service, edge = base["Service", "edge"], base["StatefulSet", "edge"]
    assert service["externalTrafficPolicy"] == "Local"
    pod = edge["template"]["spec"]
    wait = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= wait + 15 + 5, "the edge drains for 15 s"
    assert edge["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    assert base["PodDisruptionBudget", "edge"]["maxUnavailable"] == 1


def test_the_image_names_no_registry_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text()
    commands = re.sub(r"(?m)^#.*\n", "", text)
    assert not re.search(r"https?://(?!127\.0\.0\.1)", commands)
    assert "--require-hashes" in commands
    assert "pip.conf" not in re.sub(r"--mount=type=secret,\S+", "", commands), (
        "settings of pip come as a secret only"
    )
    assert "--only-binary :all:" in commands, "nothing is built from source: builds would fetch their own tools"
    assert re.search(r"(?m)^USER 10001:10001$", commands)
    assert re.search(r"(?m)^HEALTHCHECK ", commands)
    stages = re.findall(r"(?m)^FROM (.*)$", commands)
    assert stages == ["${BASE} AS build", "${BASE}"]
    for name in re.findall(r"BRANDPROXY_([A-Z_]+)=", commands):
        assert name.lower() in settings()


def test_what_the_image_copies_is_let_through() -> None:
    text = (ROOT / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", text):
        for source in line.split()[:-1]:
            optional = "[" in source  # a pattern may match nothing
            assert optional or (ROOT / source).exists()
            assert f"!{re.sub('[][]', '', source)}" in ignored
