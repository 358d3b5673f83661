"""The manifests of `examples/kubernetes` as data, and what refuses a field that their schemas do not know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "kubernetes"
FILES = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*.yaml"))

# The oldest and the newest Kubernetes that KEDA 2.20 and the bundled schemas have in common.
VERSIONS = ("1.30", "1.37")

_TEXT = {"type": "string"}
_NUMBER = {"type": "integer", "minimum": 0}


def _fields(required: str = "", **fields: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object that may have these fields and no others."""
    return {"type": "object", "properties": fields, "required": required.split(), "additionalProperties": False}


def _texts(names: str, required: str = "") -> dict[str, Any]:
    return _fields(required, **dict.fromkeys(names.split(), _TEXT))


_REDIS = (
    "address host port addressFromEnv hostFromEnv portFromEnv usernameFromEnv passwordFromEnv databaseIndex enableTLS unsafeSsl"
)
_STREAMS = f"{_REDIS} stream consumerGroup pendingEntriesCount streamLength lagCount activationLagCount"
_TRIGGERS = {
    "redis-streams": _texts(_STREAMS, "stream"),
    "redis": _texts(f"{_REDIS} listName listLength activationListLength", "listName"),
    "cron": _texts("timezone start end desiredReplicas", "timezone start end desiredReplicas"),
}
_TRIGGER = _fields(
    "type metadata",
    type={"enum": [*_TRIGGERS]},
    name=_TEXT,
    metricType={"enum": ["AverageValue", "Value", "Utilization"]},
    useCachedMetrics={"type": "boolean"},
    metadata={"type": "object"},
    authenticationRef=_fields("name", name=_TEXT, kind={"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]}),
) | {
    "allOf": [
        {"if": {"properties": {"type": {"const": kind}}}, "then": {"properties": {"metadata": metadata}}}
        for kind, metadata in _TRIGGERS.items()
    ]
}
_METADATA = _fields("name", name=_TEXT, namespace=_TEXT, labels={"type": "object", "additionalProperties": _TEXT})
KEDA = {
    "ScaledObject": _fields(
        "scaleTargetRef triggers",
        scaleTargetRef=_texts("name apiVersion kind envSourceContainerName", "name"),
        pollingInterval=_NUMBER,
        cooldownPeriod=_NUMBER,
        initialCooldownPeriod=_NUMBER,
        idleReplicaCount=_NUMBER,
        minReplicaCount=_NUMBER,
        maxReplicaCount=_NUMBER,
        advanced=_fields(
            restoreToOriginalReplicaCount={"type": "boolean"},
            horizontalPodAutoscalerConfig=_fields(name=_TEXT, behavior={"type": "object"}),
        ),
        triggers={"type": "array", "minItems": 1, "items": _TRIGGER},
    ),
    "TriggerAuthentication": _fields(
        "secretTargetRef",
        secretTargetRef={
            "type": "array",
            "items": _fields(
                "parameter name key",
                parameter={"enum": ["address", "host", "port", "username", "password", "tls", "ca", "cert", "key", "keyPassword"]},
                name=_TEXT,
                key=_TEXT,
            ),
        },
    ),
}
"""What KEDA 2.20 documents of the fields that a worker's scaling may need, written down here because no package that keeps itself up has
its definitions: https://keda.sh/docs/2.20/reference/scaledobject-spec/, …/concepts/authentication/, and of triggers' metadata, which is
free text to KEDA's own definitions, …/scalers/redis-streams/, …/scalers/redis-lists/, …/scalers/cron/."""


class _NoKeyTwice(yaml.SafeLoader):
    """Kubernetes refuses a key that is there twice; PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is there twice", node.start_mark)
        return mapping


def read(file: str | Path) -> dict[str, Any]:
    """One manifest; each file holds one."""
    document = yaml.load((FOLDER / file).read_text(), _NoKeyTwice)  # a SafeLoader
    assert isinstance(document, dict)
    return document


def container() -> dict[str, Any]:
    """The Deployment's only container."""
    [only] = pod()["containers"]
    return only


def pod() -> dict[str, Any]:
    """The specification of the Deployment's pods."""
    return read("base/deployment.yaml")["spec"]["template"]["spec"]


def triggers() -> dict[str, dict[str, Any]]:
    """The ScaledObject's triggers by name."""
    return {trigger["name"]: trigger for trigger in read("keda/scaled-object.yaml")["spec"]["triggers"]}


def problems(document: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest by its schema, unknown fields included. Skips the test where no validator is installed."""
    match document["apiVersion"].partition("/")[0]:
        case "kustomize.config.k8s.io":
            return [f"unknown field {name}" for name in document.keys() - {"apiVersion", "kind", "resources", "patches"}]
        case "keda.sh":
            return [*_by_documentation(document), *_by_kubernetes(_autoscaler(document))]
    return [*_by_kubernetes(document)]


def _by_kubernetes(document: dict[str, Any]) -> Iterator[str]:
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: pip install 'streamworker[lint]'"
    )
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {error.message}"


def _by_documentation(document: dict[str, Any]) -> Iterator[str]:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: pip install 'streamworker[lint]'")
    whole = _fields("apiVersion kind metadata spec", apiVersion=_TEXT, kind=_TEXT, metadata=_METADATA, spec=KEDA[document["kind"]])
    for error in jsonschema.Draft202012Validator(whole).iter_errors(document):
        yield f"{error.json_path}: {error.message}"


def _autoscaler(scaled: dict[str, Any]) -> dict[str, Any]:
    """The autoscaler that KEDA makes of a ScaledObject, as far as its text goes into it."""
    behavior = scaled["spec"].get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {})
    target = {"kind": "Deployment", "name": "any"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "any"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 1, "behavior": behavior},
    }
