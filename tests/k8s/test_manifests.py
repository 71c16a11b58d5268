"""Manifests, rendered and judged offline: schemas, the controller's rules, and hardening; mutants must fail."""

from __future__ import annotations

import copy
import re

import pytest
import yaml

from tests.conftest import ROOT
from tests.k8s.check import FOREIGN, K8S, OVERLAYS, documents, errors, find, pod_specs, yaml_files

JOBS = [name for name in OVERLAYS if name != "cluster"]


def patched(document: dict, path: str, value) -> dict:
    """A copy with one value changed (None: removed)."""
    changed = copy.deepcopy(document)
    *parents, last = [int(p) if p.isdigit() else p for p in path.split("/")]
    node = changed
    for parent in parents:
        node = node[parent]
    if value is None:
        node.pop(last)
    else:
        node[last] = value
    return changed


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_rendered_manifest_is_valid(overlay):
    manifests = documents(overlay)
    assert len(manifests) > 10
    assert {f"{d['kind']} {d['metadata']['name']}": errors(d) for d in manifests if errors(d)} == {}


@pytest.mark.parametrize("path", yaml_files(), ids=lambda p: str(p.relative_to(K8S)))
def test_every_file_is_valid_by_itself(path):
    """What can be said without kubectl: each document is YAML that the schemas accept; each patch and name exists."""
    for document in yaml.safe_load_all(path.read_text()):
        if isinstance(document, list):  # a patch
            assert {frozenset(step) for step in document} <= {
                frozenset(("op", "path", "value")),
                frozenset(("op", "path")),
            }
            assert all(step["path"].startswith("/") for step in document)
        elif path.name == "kustomization.yaml":
            for name in document["resources"] + [patch["path"] for patch in document.get("patches", [])]:
                assert (path.parent / name).exists(), name
        else:
            assert errors(document) == []


MUTANTS = [
    # unknown fields
    ("spec/shutdownAfterJobFinish", True, "shutdownAfterJobFinish"),
    ("spec/rayClusterSpec/headGroupSpec/template/spec/containers/0/resource", {}, "resource"),
    ("spec/rayClusterSpec/authOption", {"mode": "token"}, "authOption"),
    # wrong types
    ("spec/backoffLimit", "3", "is not of type 'integer'"),
    ("spec/rayClusterSpec/headGroupSpec/rayStartParams/num-cpus", 0, "is not of type 'string'"),
    ("spec/rayClusterSpec/authOptions/mode", "open", "is not one of"),
    ("spec/rayClusterSpec/workerGroupSpecs/0/groupName", None, "'groupName' is a required property"),
    # rules that no schema holds
    ("metadata/name", "1-raypipe", "DNS-1035"),
    ("metadata/name", "x" * 48, "DNS-1035"),
    ("spec/submissionMode", "K8sJob", "submissionMode"),
    ("spec/clusterSelector", {"ray.io/cluster": "x"}, "exactly one of"),
    ("spec/shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished needs"),
    ("spec/submissionMode", "SidecarMode", "SidecarMode takes no"),
    ("spec/submissionMode", "InteractiveMode", "InteractiveMode"),
    ("spec/rayClusterSpec/rayVersion", "2.51.0", "rayVersion >= 2.52"),
    ("spec/rayClusterSpec/authOptions/enableK8sTokenAuth", True, "not for RayJob"),
    ("spec/rayClusterSpec/workerGroupSpecs/0/minReplicas", 99, "minReplicas 99 > maxReplicas"),
    ("spec/rayClusterSpec/workerGroupSpecs/0/replicas", 99, "replicas outside"),
    ("spec/rayClusterSpec/headGroupSpec/template/spec/restartPolicy", "Always", "restartPolicy Never"),
]


@pytest.mark.parametrize(("path", "value", "words"), MUTANTS)
def test_a_broken_job_is_refused(path, value, words):
    job = find(documents("cpu"), "RayJob")
    assert errors(job) == []
    assert any(words in error for error in errors(patched(job, path, value)))


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "mlflow", "spec/template/spec/containers/0/comand", ["x"]),
        ("Deployment", "mlflow", "spec/replicas", "one"),
        ("StatefulSet", "postgres", "spec/template/spec/containers/0/ports/0/containerPort", "5432"),
        ("NetworkPolicy", "ray", "spec/ingres", []),
        ("PersistentVolumeClaim", "raypipe-results", "spec/resources/request", {}),
        ("PriorityClass", "raypipe-worker", "value", "low"),
    ],
)
def test_a_broken_plain_manifest_is_refused(kind, name, path, value):
    document = find(documents("cpu"), kind, name)
    assert errors(document) == []
    assert errors(patched(document, path, value))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_hardened_and_bounded(overlay):
    """What the restricted pod security standard asks, a read-only root, no API token without need, and limits."""
    for document in documents(overlay):
        for where, pod in pod_specs(document).items():
            scaled = document["spec"].get("rayClusterSpec", document["spec"]).get("enableInTreeAutoscaling", False)
            head = "headGroupSpec" in where
            # Only a head with the autoscaler beside it talks to the API server.
            assert pod["automountServiceAccountToken"] is (head and scaled), where
            security = pod["securityContext"]
            assert security["runAsNonRoot"] is True
            assert security["runAsUser"] > 0
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
            assert not any("hostPath" in volume for volume in pod.get("volumes", []))
            for container in pod["containers"]:
                own = container["securityContext"]
                assert own["allowPrivilegeEscalation"] is False
                assert own["readOnlyRootFilesystem"] is True
                assert own["capabilities"] == {"drop": ["ALL"]}
                resources = container["resources"]
                assert resources["requests"]["memory"]
                assert resources["limits"]["memory"]
                if "ray-" in container["name"] and container["name"] != "ray-job-submitter":
                    assert resources["requests"] == resources["limits"]  # Ray is told its memory once
                assert ":latest" not in container["image"]
                assert ":" in container["image"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_come_only_from_secret_objects(overlay):
    secret = re.compile(r"password|token|secret|access_key", re.I)
    for document in documents(overlay):
        assert document["kind"] != "Secret"
        for pod in pod_specs(document).values():
            for container in pod["containers"]:
                for variable in container.get("env", []):
                    if secret.search(variable["name"]):
                        assert "secretKeyRef" in variable["valueFrom"], variable["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_namespace_lets_nothing_in_that_is_not_named(overlay):
    manifests = documents(overlay)
    policies = {d["metadata"]["name"]: d["spec"] for d in manifests if d["kind"] == "NetworkPolicy"}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for spec in policies.values():
        for rule in spec.get("ingress", []):
            assert rule["from"]  # an empty list would mean everybody
    assert all(
        d["metadata"].get("namespace") == "raypipe"
        for d in manifests
        if d["kind"] not in {"Namespace", "PriorityClass", "ClusterQueue", "ResourceFlavor"}
    )
    labels = find(manifests, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    # Every label that a policy selects by is one that some pod carries.
    carried = {
        ("app.kubernetes.io/name", d["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"])
        for d in manifests
        if d["kind"] in {"Deployment", "StatefulSet"}
    }
    for document in manifests:
        text = yaml.safe_dump(document)
        if document["apiVersion"] == "ray.io/v1":
            carried |= set(re.findall(r"(app\.kubernetes\.io/[a-z-]+): ([a-z-]+)", text))
    wanted = {
        pair
        for d in manifests
        if d["kind"] == "NetworkPolicy"
        for pair in re.findall(r"(app\.kubernetes\.io/[a-z-]+): ([a-z-]+)", yaml.safe_dump(d))
    }
    assert wanted - carried <= {("app.kubernetes.io/component", "submitter")}  # a standing cluster has no submitter


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_is_asked_for_its_token_and_the_head_does_no_work(overlay):
    for document in documents(overlay):
        if document["apiVersion"] != "ray.io/v1":
            continue
        cluster = document["spec"].get("rayClusterSpec", document["spec"])
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["rayVersion"] == next(
            line.split("==")[1]
            for line in (ROOT / "constraints.txt").read_text().splitlines()
            if line.startswith("ray==")
        )
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert cluster["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"


@pytest.mark.parametrize("overlay", JOBS)
def test_a_job_survives_its_head_and_names_what_exists(overlay):
    spec = find(documents(overlay), "RayJob")["spec"]
    assert spec["backoffLimit"] >= 3  # a lost head or driver is a new attempt, which continues from the ledger
    assert spec["submissionMode"] == "K8sJobMode"  # HTTPMode gives up for good after 300 s without an answer
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] > 0
    words = spec["entrypoint"].split()
    assert words[:3] == ["raypipe", "scan", "--config"]
    from raypipe.config import load_config

    load_config(ROOT / words[3], [word for word in words if "=" in word])


def test_overlays_are_what_they_are_called():
    cpu, gpu, spot, kueue = (find(documents(o), "RayJob")["spec"] for o in ("cpu", "gpu", "spot", "kueue"))
    assert cpu["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    group = gpu["rayClusterSpec"]["workerGroupSpecs"][1]
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert group["template"]["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert group["template"]["spec"]["affinity"]["podAntiAffinity"]  # one Ray pod a GPU node
    head = spot["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    worker = spot["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert head["nodeSelector"] == spot["submitterPodTemplate"]["spec"]["nodeSelector"]
    assert head["nodeSelector"] != worker["nodeSelector"]
    assert worker["tolerations"]
    assert "tolerations" not in head
    assert head["priorityClassName"] != worker["priorityClassName"]
    for kind, name in (("Deployment", "mlflow"), ("StatefulSet", "postgres")):
        assert find(documents("spot"), kind, name)["spec"]["template"]["spec"]["nodeSelector"] == head["nodeSelector"]
    # Kueue: it starts the job, the size is fixed, and there are at most seven worker groups.
    job = find(documents("kueue"), "RayJob")
    queue = find(documents("kueue"), "LocalQueue")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
    assert kueue["suspend"] is True
    assert kueue["rayClusterSpec"]["enableInTreeAutoscaling"] is False
    (group,) = kueue["rayClusterSpec"]["workerGroupSpecs"]
    assert group["minReplicas"] == group["maxReplicas"] == group["replicas"]
    quota = {
        r["name"]: r["nominalQuota"]
        for r in find(documents("kueue"), "ClusterQueue")["spec"]["resourceGroups"][0]["flavors"][0]["resources"]
    }
    assert quota["cpu"] >= 4 * group["replicas"] + 2 + 1
    assert {d["apiVersion"] for d in documents("kueue")} & FOREIGN


def test_images_are_built_from_pinned_bases_as_nobody():
    for name in ("Dockerfile", "Dockerfile.cuda", "Dockerfile.mlflow"):
        text = (K8S / name).read_text()
        bases = re.findall(r"^FROM (\S+)", text, re.M)
        assert bases
        assert all(re.search(r":\d", base) or base in re.findall(r" AS (\S+)", text) for base in bases), bases
        assert re.findall(r"^USER (\S+)", text, re.M)[-1] == "1000:1000"
        for source in re.findall(r"^COPY (?!--from)(.+)$", text, re.M):
            assert all((ROOT / item).exists() for item in source.split()[:-1]), source
