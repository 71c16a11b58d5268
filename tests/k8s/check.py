"""Offline judgement of manifests: KubeRay and Kubernetes schemas made strict, and the rules only controllers know."""

from __future__ import annotations

import copy
import functools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT

CRDS = ROOT.parent / "shared" / "data" / "kuberay-crds"
K8S = ROOT / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
SUBMISSION = {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}
FOREIGN = {"kueue.x-k8s.io/v1beta1", "kustomize.config.k8s.io/v1beta1"}
"""Kinds whose schemas are not at hand."""


@functools.cache
def render(overlay: str) -> str:
    """What `kubectl kustomize` makes of an overlay."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: overlays cannot be rendered (their files are still checked one by one)")
    done = subprocess.run(
        ["kubectl", "kustomize", str(K8S / "overlays" / overlay)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(overlay: str) -> list[dict]:
    """The manifests of an overlay."""
    return [document for document in yaml.safe_load_all(render(overlay)) if document]


def find(manifests: list[dict], kind: str, name: str | None = None) -> dict:
    """One of them."""
    return next(d for d in manifests if d["kind"] == kind and name in (None, d["metadata"]["name"]))


@functools.cache
def schema(kind: str) -> dict:
    """The OpenAPI schema of a KubeRay kind, made strict: unknown keys are errors, defaulted keys are optional."""
    path = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not path.exists():
        pytest.skip(f"{path} is not there (KubeRay's definitions are not part of this repository)")
    versions = yaml.safe_load(path.read_text())["spec"]["versions"]
    found = next(v for v in versions if v["name"] == "v1")["schema"]["openAPIV3Schema"]
    return _strict(copy.deepcopy(found), top=True)


def _strict(node: Any, top: bool = False) -> Any:
    if isinstance(node, list):
        return [_strict(x) for x in node]
    if not isinstance(node, dict):
        return node
    node = {k: _strict(v) for k, v in node.items()}
    if node.pop("x-kubernetes-int-or-string", False):
        node.pop("type", None)
    properties = node.get("properties")
    if isinstance(properties, dict):
        if not top and not node.get("x-kubernetes-preserve-unknown-fields"):
            node.setdefault("additionalProperties", False)
        if "required" in node:
            node["required"] = [r for r in node["required"] if "default" not in properties.get(r, {})]
    return node


def errors(document: dict) -> list[str]:
    """Everything wrong with one manifest: schema first, then the controller's rules."""
    if document["apiVersion"] in FOREIGN:
        return []
    if document["apiVersion"] == "ray.io/v1":
        validator = jsonschema.Draft202012Validator(schema(document["kind"]))
        found = [f"{'/'.join(map(str, e.path))}: {e.message}" for e in validator.iter_errors(document)]
        return found or ray_rules(document)
    import kubernetes_validate

    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
        return [str(error)]
    return []


def ray_rules(document: dict) -> list[str]:
    """What KubeRay 1.7 refuses although its schema allows it (controllers/ray/utils/validation.go; stack.md)."""
    name, spec, found = document["metadata"]["name"], document["spec"], []
    if len(name) > 47 or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        found.append(f"metadata/name: {name!r} is not a DNS-1035 label of at most 47 characters")
    cluster = spec
    if document["kind"] == "RayJob":
        found += _job_rules(spec)
        cluster = spec.get("rayClusterSpec") or {}
    if cluster:
        found += _cluster_rules(cluster)
    return found


def _job_rules(spec: dict) -> list[str]:
    found, mode = [], spec.get("submissionMode", "K8sJobMode")
    shutdown = spec.get("shutdownAfterJobFinishes", False)
    selector, inline = bool(spec.get("clusterSelector")), bool(spec.get("rayClusterSpec"))
    if mode not in SUBMISSION:
        found.append(f"submissionMode: {mode!r} is none of {sorted(SUBMISSION)}")
    if selector == inline:
        found.append("exactly one of rayClusterSpec and clusterSelector must be set")
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not shutdown:
        found.append("ttlSecondsAfterFinished needs shutdownAfterJobFinishes")
    if spec.get("suspend") and (not shutdown or selector):
        found.append("suspend needs shutdownAfterJobFinishes and no clusterSelector")
    if spec.get("backoffLimit", 0) and (selector or mode == "InteractiveMode"):
        found.append("backoffLimit does not go with clusterSelector or InteractiveMode")
    if spec.get("deletionStrategy", {}).get("deletionRules") and shutdown:
        found.append("deletionRules and shutdownAfterJobFinishes exclude each other")
    if mode == "SidecarMode":
        if spec.get("submitterPodTemplate") or spec.get("submitterConfig") or selector:
            found.append("SidecarMode takes no submitterPodTemplate, submitterConfig or clusterSelector")
        head = (spec.get("rayClusterSpec") or {}).get("headGroupSpec", {}).get("template", {}).get("spec", {})
        if head.get("restartPolicy", "Never") != "Never":
            found.append("SidecarMode needs a head with restartPolicy Never")
    if mode == "InteractiveMode" and spec.get("entrypoint"):
        found.append("InteractiveMode takes no entrypoint")
    if (spec.get("rayClusterSpec") or {}).get("authOptions", {}).get("enableK8sTokenAuth"):
        found.append("enableK8sTokenAuth is not for RayJob")
    for policy in (spec.get("deletionStrategy") or {}).values():
        if (
            isinstance(policy, dict)
            and policy.get("policy") == "DeleteWorkers"
            and ((spec.get("rayClusterSpec") or {}).get("enableInTreeAutoscaling"))
        ):
            found.append("DeleteWorkers does not go with autoscaling")
    return found


def _cluster_rules(cluster: dict) -> list[str]:
    found, groups = [], [("head", cluster["headGroupSpec"])]
    scaling = cluster.get("enableInTreeAutoscaling", False)
    options = cluster.get("autoscalerOptions") or {}
    groups += [(group["groupName"], group) for group in cluster.get("workerGroupSpecs", [])]
    if len({name for name, _ in groups}) != len(groups):
        found.append("two groups have one name")
    for name, group in groups:
        pod = group["template"]["spec"]
        if not pod.get("containers"):
            found.append(f"{name}: a group needs a container")
        if any(not isinstance(value, str) for value in (group.get("rayStartParams") or {}).values()):
            found.append(f"{name}: rayStartParams must be text")
        if scaling and options.get("version") == "v2" and pod.get("restartPolicy", "Never") != "Never":
            found.append(f"{name}: autoscaler v2 needs restartPolicy Never")
        if name == "head":
            continue
        low, high = group.get("minReplicas"), group.get("maxReplicas")
        if low is None or high is None:
            found.append(f"{name}: minReplicas and maxReplicas must be set")
        elif low > high:
            found.append(f"{name}: minReplicas {low} > maxReplicas {high}")
        elif not low <= group.get("replicas", low) <= high:
            found.append(f"{name}: replicas outside minReplicas and maxReplicas")
        if group.get("idleTimeoutSeconds") is not None and options.get("version") != "v2":
            found.append(f"{name}: idleTimeoutSeconds is for autoscaler v2")
        if group.get("suspend") and scaling:
            found.append(f"{name}: a suspended group does not go with autoscaling")
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    if options.get("version") and any(e["name"] == "RAY_enable_autoscaler_v2" for e in head.get("env", [])):
        found.append("autoscaler version set twice: by options and by environment")
    if (cluster.get("authOptions") or {}).get("mode") == "token":
        version = tuple(int(x) for x in re.findall(r"\d+", cluster.get("rayVersion", "0"))[:2])
        if version < (2, 52):
            found.append("token authentication needs rayVersion >= 2.52")
    return found


def pod_specs(document: dict) -> dict[str, dict]:
    """Every pod that a manifest makes, by where it stands."""
    found: dict[str, dict] = {}

    def walk(node: Any, where: str) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("containers"), list):
                found[where] = node
            for key, value in node.items():
                walk(value, f"{where}/{key}")
        elif isinstance(node, list):
            for i, value in enumerate(node):
                walk(value, f"{where}/{i}")

    walk(document.get("spec", {}), document["kind"])
    return found


def yaml_files() -> list[Path]:
    """Every YAML file below k8s/."""
    return sorted(K8S.rglob("*.yaml"))
