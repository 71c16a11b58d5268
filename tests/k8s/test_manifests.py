"""Manifests against KubeRay's custom resource definitions, offline."""

from __future__ import annotations

import copy
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT

CRDS = ROOT.parent / "shared" / "data" / "kuberay-crds"


def schema(kind: str) -> dict:
    """The OpenAPI schema of a kind, made strict: unknown keys are errors, defaulted keys are optional."""
    path = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not path.exists():
        pytest.skip(f"{path} is not there (KubeRay's definitions are not part of this repository)")
    versions = yaml.safe_load(path.read_text())["spec"]["versions"]
    found = next(v for v in versions if v["name"] == "v1")["schema"]["openAPIV3Schema"]
    return _strict(copy.deepcopy(found), top=True)


def _strict(node, top: bool = False):
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
    validator = jsonschema.Draft202012Validator(schema(document["kind"]))
    return [f"{'/'.join(map(str, e.path))}: {e.message}" for e in validator.iter_errors(document)]


def manifest() -> dict:
    return yaml.safe_load((ROOT / "k8s" / "rayjob.yaml").read_text())


def test_rayjob_follows_the_schema():
    assert errors(manifest()) == []


def test_the_check_itself_finds_planted_errors():
    broken = manifest()
    broken["spec"]["shutdownAfterJobFinish"] = True
    broken["spec"]["backoffLimit"] = "3"
    broken["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    assert len(errors(broken)) == 3


def test_rayjob_keeps_the_controllers_rules_and_names_files_that_exist():
    spec = manifest()["spec"]
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}
    assert spec["shutdownAfterJobFinishes"]  # ttlSecondsAfterFinished needs it
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["rayVersion"] == next(
        line.split("==")[1] for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray==")
    )
    for word in spec["entrypoint"].split():
        if word.startswith(("jobs/", "configs/")):
            assert Path(ROOT / word).is_file()
