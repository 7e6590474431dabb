"""The manifests in `deploy/kubernetes/`: held to the schemas of Kubernetes, and to Brain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from brain.settings import Settings, unknown_variables
from tests.end_to_end.brain import brain, get, running_brain
from tests.metrics.exposed import PORT

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
# The oldest and the newest version with a schema that a cluster may have.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
# Of the custom resources there are none in the schemas.
CUSTOM = {"Kustomization", "PodMonitor"}

# What selects by the name of a job of Prometheus.
DASHBOARDS = [
    ROOT / "deploy" / "prometheus" / "alerts.yml",
    ROOT / "deploy" / "grafana" / "brain.json",
]
JOB = re.compile(r'job=\\?"([^"\\]*)')

Manifest = dict[str, Any]


def manifests() -> Iterator[Manifest]:
    for file in FILES:
        yield from yaml.safe_load_all(file.read_text())


def of_kind(kind: str) -> Manifest:
    (found,) = [manifest for manifest in manifests() if manifest["kind"] == kind]
    return found


@pytest.fixture
def pod() -> Manifest:
    spec: Manifest = of_kind("Deployment")["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    (found,) = pod["containers"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a pod."""
    for name, value in {**of_kind("ConfigMap")["data"], **of_kind("Secret")["stringData"]}.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "manifest",
    [manifest for manifest in manifests() if manifest["kind"] not in CUSTOM],
    ids=lambda manifest: manifest["kind"],
)
def test_a_manifest_is_one_of_its_kind(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("field", ["readinessProb", "resources"])
def test_a_mistake_in_a_manifest_is_found(field: str) -> None:
    wrong = deepcopy(of_kind("Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0][field] = "5 MB"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_every_manifest_is_applied_or_says_that_it_is_not() -> None:
    listed = set(of_kind("Kustomization")["resources"])
    optional = {file.name for file in FILES if "# Not in kustomization.yaml" in file.read_text()}
    assert listed | optional | {"kustomization.yaml"} == {file.name for file in FILES}
    assert not listed & optional


def test_every_setting_in_a_manifest_is_one_of_brains(pod: Manifest) -> None:
    settings = {**of_kind("ConfigMap")["data"], **of_kind("Secret")["stringData"]}
    assert len(settings) > 3
    assert list(unknown_variables(settings)) == []
    assert all(isinstance(value, str) for value in settings.values())
    sources = [
        {"configMapRef": {"name": of_kind("ConfigMap")["metadata"]["name"]}},
        {"secretRef": {"name": of_kind("Secret")["metadata"]["name"]}},
    ]
    for each in (*pod["initContainers"], *pod["containers"]):
        assert each["envFrom"] == sources


def test_no_service_sets_a_setting_of_brains(pod: Manifest) -> None:
    # A cluster sets BRAIN_PORT=tcp://... for a Service `brain`, unless the pod refuses.
    assert of_kind("Service")["metadata"]["name"] == "brain"
    assert pod["enableServiceLinks"] is False


def test_the_settings_of_the_manifests_are_read(settings: Settings) -> None:
    assert settings.jwt_secret is not None
    assert settings.allowed_hosts == (of_kind("Ingress")["spec"]["rules"][0]["host"],)


def test_names_of_one_manifest_are_those_of_another(
    container: Manifest, settings: Settings
) -> None:
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("Service")["spec"]["selector"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert of_kind("PodMonitor")["spec"]["selector"]["matchLabels"] == labels
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": Settings().port, "metrics": settings.metrics_port}
    (endpoint,) = of_kind("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in ports
    job = labels[of_kind("PodMonitor")["spec"]["jobLabel"]]
    jobs = {name for file in DASHBOARDS for name in JOB.findall(file.read_text())}
    assert jobs == {job}
    (service_port,) = of_kind("Service")["spec"]["ports"]
    assert service_port["targetPort"] in ports
    rule = of_kind("Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert rule == {"name": of_kind("Service")["metadata"]["name"], "port": {"name": "http"}}
    for ingress in of_kind("NetworkPolicy")["spec"]["ingress"]:
        assert {port["port"] for port in ingress["ports"]} <= ports.keys()


def test_a_pod_has_the_time_to_drain(
    pod: Manifest, container: Manifest, settings: Settings
) -> None:
    probe = container["readinessProbe"]
    assert settings.drain_delay_seconds > probe["periodSeconds"] * probe["failureThreshold"]
    steps = (settings.drain_delay_seconds, settings.drain_seconds, settings.shutdown_seconds)
    assert pod["terminationGracePeriodSeconds"] > sum(steps) + 10


def test_a_pod_has_no_right_that_it_does_not_need(pod: Manifest) -> None:
    user = re.search(r"^USER (\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == int(user[1])
    assert pod["automountServiceAccountToken"] is False
    for each in (*pod["initContainers"], *pod["containers"]):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in each["resources"]["limits"]
        assert each["resources"]["requests"].keys() == {"cpu", "memory"}


async def test_brain_runs_with_the_arguments_and_the_settings_of_the_manifests(
    pod: Manifest, container: Manifest, database: str, tmp_path: Path
) -> None:
    environment = {
        **of_kind("ConfigMap")["data"],
        **of_kind("Secret")["stringData"],
        "BRAIN_DATABASE_URL": database,
        "BRAIN_SYSTEMS": "",
        "BRAIN_METRICS_PORT": "0",
        "BRAIN_DRAIN_DELAY_SECONDS": "0",
        # That of the image.
        "BRAIN_HOST": "0.0.0.0",
    }
    program, *migrate = pod["initContainers"][0]["args"]
    # What that refuses: tests/end_to_end/test_versions.py.
    assert migrate == ["migrate", "--spare-nodes"]
    migrated = await brain(*migrate, **environment)
    assert migrated.status == 0, migrated.stderr
    _, serve, *options = container["args"]
    assert (program, serve) == ("brain", "serve")
    # Logs in JSON leave standard output, and what to type next, to people.
    environment["BRAIN_LOG_FORMAT"] = "text"
    async with running_brain(tmp_path, *options, **environment) as running:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            request = container[probe]["httpGet"]
            # The kubelet asks by the address of the pod.
            status, body = await get(f"http://127.0.0.1:{running.port}{request['path']}")
            assert status == 200, body
        metrics = PORT.search(running.output.read_text())
        assert metrics is not None
        status, body = await get(f"http://127.0.0.1:{metrics[1]}/metrics")
        assert (status, "brain_build_info{" in body) == (200, True)
