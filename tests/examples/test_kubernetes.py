"""The manifests of `examples/kubernetes` are what Kubernetes and KEDA take, and say what the code does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamworker import addresses
from streamworker.loading import load_app
from streamworker.settings import PREFIX, Settings, parse_duration
from streamworker.streams.keys import keys_of
from streamworker.supervisor import verdicts
from streamworker.worker.watchdog import MARGIN
from tests.examples.dockerfile import instruction, parsed
from tests.examples.manifests import FILES, FOLDER, ROOT, container, pod, problems, read, triggers

PROBES = {"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
MISSPELT = [
    ("base/deployment.yaml", "spec.template.spec", "terminationGracePeriodSecond"),
    ("base/deployment.yaml", "spec.template.spec.containers.0.readinessProbe", "failureTreshold"),
    ("base/deployment.yaml", "spec.template.spec.containers.0.securityContext", "readonlyRootFilesystem"),
    ("base/deployment.yaml", "spec.strategy.rollingUpdate", "maxUnavailabel"),
    ("base/disruption-budget.yaml", "spec", "maxUnavailabel"),
    ("base/kustomization.yaml", "", "ressources"),
    ("keda/scaled-object.yaml", "spec", "minReplicasCount"),
    ("keda/scaled-object.yaml", "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown", "stabilizationWindow"),
    ("keda/scaled-object.yaml", "spec.triggers.0", "authentificationRef"),
    ("keda/scaled-object.yaml", "spec.triggers.0.metadata", "activationLag"),
    ("keda/trigger-authentication.yaml", "spec.secretTargetRef.0", "secret"),
]


def at(document: Any, path: str) -> Any:
    """The part of a document that a path of names and positions leads to."""
    for step in filter(None, path.split(".")):
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_manifest_is_valid_and_has_no_unknown_field(file):
    """By the schemas of the oldest and the newest Kubernetes, and by what KEDA documents."""
    assert [] == problems(read(file))


@pytest.mark.parametrize(("file", "path", "name"), MISSPELT)
def test_a_misspelt_field_is_refused(file, path, name):
    """The validators see it: an API server that is not asked to be strict would drop the field without a word."""
    document = read(file)
    at(document, path)[name] = "1"

    assert any(name in problem for problem in problems(document))


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("base/deployment.yaml", "spec.template.spec.terminationGracePeriodSeconds", "35s"),
        ("keda/scaled-object.yaml", "spec.cooldownPeriod", "300"),
        ("keda/trigger-authentication.yaml", "spec.secretTargetRef.0.parameter", "adress"),
    ],
)
def test_a_wrong_value_is_refused(file, path, value):
    """A text where a number belongs, and a parameter that no trigger reads."""
    document = read(file)
    parent, _, name = path.rpartition(".")
    at(document, parent)[name] = value

    assert [] != problems(document)


@pytest.mark.parametrize("folder", ["base", "keda"])
def test_a_kustomization_names_every_file_beside_it(folder):
    """Nothing is missing, and nothing lies about unused; patches find what they remove."""
    kustomization = read(f"{folder}/kustomization.yaml")
    folders = {name for name in kustomization["resources"] if (FOLDER / folder / name / "kustomization.yaml").is_file()}

    assert {path.name for path in (FOLDER / folder).iterdir()} == {"kustomization.yaml", *kustomization["resources"]} - folders
    assert ("keda" == folder) == ({"../base"} == folders)
    for patch in kustomization.get("patches", []):
        target, document = patch["target"], read("base/deployment.yaml")
        assert (f"{target['group']}/{target['version']}", target["kind"]) == (document["apiVersion"], document["kind"])
        assert target["name"] == document["metadata"]["name"]
        assert "- op: remove\n  path: /spec/replicas" == patch["patch"]
        assert "replicas" in document["spec"]


def test_all_select_the_same_pods():
    """The Deployment, its spread, the disruption budget and the ScaledObject mean the same workers."""
    deployment = read("base/deployment.yaml")
    labels = deployment["spec"]["selector"]["matchLabels"]
    [spread] = pod()["topologySpreadConstraints"]

    assert labels.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert labels == spread["labelSelector"]["matchLabels"]
    assert labels == read("base/disruption-budget.yaml")["spec"]["selector"]["matchLabels"]
    assert {"name": deployment["metadata"]["name"]} == read("keda/scaled-object.yaml")["spec"]["scaleTargetRef"]


def test_kubernetes_waits_longer_than_a_drain_takes():
    """KILL comes after the grace, after the seconds in which the process ends itself, and with some seconds to spare."""
    assert grace() + MARGIN + timedelta(seconds=5) <= timedelta(seconds=pod()["terminationGracePeriodSeconds"])


def test_handlers_end_within_the_grace():
    """A drain interrupts no handler that keeps its own timeout."""
    assert all(handler.timeout < grace() for handler in the_app().handlers)


def test_probes_ask_what_the_worker_serves():
    """Each probe has its path, all of them the health port."""
    worker = container()
    [port] = worker["ports"]

    assert {f"/{name}" for name in verdicts.PROBES} == set(PROBES.values())
    assert PROBES == {name: worker[name]["httpGet"]["path"] for name in PROBES}
    assert {port["name"]} == {worker[name]["httpGet"]["port"] for name in PROBES}
    assert addresses.IN_A_POD[1] == port["containerPort"]


def test_a_pod_may_do_nothing_but_its_work():
    """The restricted Pod Security Standard, a root file system that cannot be written, and no token of the API server."""
    assert pod()["automountServiceAccountToken"] is False
    assert {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532} == {
        name: value for name, value in pod()["securityContext"].items() if name != "seccompProfile"
    }
    assert {"type": "RuntimeDefault"} == pod()["securityContext"]["seccompProfile"]
    assert {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}} == (
        container()["securityContext"]
    )
    assert {"/tmp": "emptyDir", "/run/secrets/redis": "secret"} == {
        mount["mountPath"]: kind
        for mount in container()["volumeMounts"]
        for kind in ("emptyDir", "secret")
        if kind in volume(mount["name"])
    }


def test_a_rollout_and_a_node_drain_leave_readers():
    """No old worker goes before a new one is ready, and evictions take one at a time."""
    deployment = read("base/deployment.yaml")["spec"]

    assert 0 == deployment["strategy"]["rollingUpdate"]["maxUnavailable"] < deployment["strategy"]["rollingUpdate"]["maxSurge"]
    assert 1 == read("base/disruption-budget.yaml")["spec"]["maxUnavailable"] < deployment["replicas"]


def test_the_environment_is_known_to_the_settings():
    """A misspelt variable would be passed over without a word. No value is a secret: the URL comes from the mounted one."""
    names = {entry["name"] for entry in container()["env"]}
    secret = volume("redis")["secret"]

    assert names <= {f"{PREFIX}{field.upper()}{suffix}" for field in Settings.model_fields for suffix in ("", "_FILE")}
    assert f"/run/secrets/redis/{secret['items'][0]['path']}" == literals()["STREAMWORKER_REDIS_URL_FILE"]
    assert 0o440 == secret["defaultMode"]


def test_the_arguments_run_the_example():
    """The image's entry point with the Deployment's arguments is a command of ours, and what it runs is there."""
    [program] = instruction("ENTRYPOINT")
    name, options = parsed(program, container()["args"])

    assert ("streamworker", "run") == (program, name)
    assert {"charge"} == {handler.name for handler in load_app(options["target"], app_dir=str(ROOT / "examples")).handlers}


def test_triggers_watch_the_keys_of_the_example():
    """Each trigger names the key that the code uses, of the stream and the group that the workers handle."""
    [handler] = the_app().handlers
    [stream] = handler.streams
    keys = keys_of(stream, handler.group)
    watched = {name: trigger["metadata"] for name, trigger in triggers().items()}

    assert (keys.stream, handler.group) == (watched["undelivered"]["stream"], watched["undelivered"]["consumerGroup"])
    assert (keys.stream, handler.group) == (watched["pending"]["stream"], watched["pending"]["consumerGroup"])
    assert keys.due == watched["parked"]["listName"]
    assert keys.retry == watched["released"]["stream"]
    assert handler.concurrency == int(watched["pending"]["pendingEntriesCount"])


def test_scaling_to_zero_takes_many_empty_polls():
    """Places are looked at one after the other, so one poll may miss an entry on its way; and any entry at all wakes a worker."""
    scaled = read("keda/scaled-object.yaml")["spec"]

    assert 0 == scaled["minReplicaCount"]
    assert 10 <= scaled["cooldownPeriod"] / scaled["pollingInterval"]
    assert {"0"} == {value for trigger in scaled["triggers"] for name, value in trigger["metadata"].items() if "activation" in name}


def test_triggers_have_the_credentials_that_they_name():
    """Every trigger that asks the server refers to the TriggerAuthentication of this folder."""
    authentication = read("keda/trigger-authentication.yaml")

    assert {authentication["metadata"]["name"]} == {
        trigger["authenticationRef"]["name"] for trigger in triggers().values() if trigger["type"] != "cron"
    }
    assert {"address", "username", "password"} == {entry["parameter"] for entry in authentication["spec"]["secretTargetRef"]}


def grace() -> timedelta:
    """How long the pod's worker lets its handlers finish."""
    return parse_duration(literals()["STREAMWORKER_GRACE"])


def literals() -> dict[str, str]:
    """The environment that the Deployment writes out, but for what must be there to be read."""
    return {entry["name"]: entry["value"] for entry in container()["env"] if "value" in entry}


def volume(name: str) -> dict[str, Any]:
    """A volume of the pod."""
    [found] = [volume for volume in pod()["volumes"] if volume["name"] == name]
    return found


def the_app() -> Any:
    """The program that the workers run."""
    return load_app("orders:app", app_dir=str(ROOT / "examples"))
