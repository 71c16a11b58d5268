"""Batch systems: the Slurm script on two nodes of a stand-in, what the HTCondor file says, the Apptainer definition."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raypipe.config import load_config
from tests.conftest import ROOT
from tests.test_end_to_end import CONFIG, SAMPLES, TINY

SCRIPT = ROOT / "jobs" / "slurm" / "raypipe.sbatch"
HERE = Path(__file__).parent / "slurm"
PRIVATE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]


def can_make_nodes() -> bool:
    """Whether this process may make network namespaces, and `ip` is there."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    made = ["sh", "-c", "mount -t tmpfs tmpfs /run && ip netns add x && ip link add y type veth peer name z netns x"]
    return subprocess.run([*PRIVATE, *made], capture_output=True, check=False).returncode == 0


def sbatch(*command: object) -> subprocess.CompletedProcess:
    """The batch script with a command of raypipe, in an allocation of two nodes of one core each."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "SLURM_"))}
    environment |= {"PYTHONPATH": str(ROOT), "RAYPIPE_VENV": str(Path(sys.executable).parents[1])}
    environment["SLURM_JOB_ID"] = str(os.getpid())
    arguments = [*PRIVATE, str(HERE / "allocation"), "2", str(SCRIPT), *map(str, command)]
    try:
        return subprocess.run(
            arguments, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
        )
    finally:
        shutil.rmtree(f"/tmp/raypipe-{os.getpid()}", ignore_errors=True)


def head_of(done: subprocess.CompletedProcess) -> str:
    """What the first node said."""
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("1: ")) + done.stderr


@pytest.mark.ray
@pytest.mark.skipif(not can_make_nodes(), reason="needs the right to make network namespaces (root), and iproute2")
def test_a_batch_script_runs_on_two_nodes_and_its_status_is_that_of_the_command(tmp_path):
    done = sbatch("simulate", "--config", CONFIG, "--output", tmp_path / "run", *TINY)
    assert done.returncode == 0, head_of(done)
    assert "1: On head node." in done.stdout
    assert "2: On worker node. Connecting to Ray cluster at 10.77.0.1:6379" in done.stdout
    manifest = json.loads((tmp_path / "run" / "events" / "dataset.json").read_text())
    assert all(manifest["samples"][name]["n"] >= events for name, events in SAMPLES.items())

    bad = sbatch("simulate", "--config", CONFIG, "--output", tmp_path / "bad", "simulate.shard_events=-1")
    assert bad.returncode == 2, head_of(bad)
    assert "simulate.shard_events = -1" in bad.stdout
    assert not (tmp_path / "bad").exists()


def test_the_batch_script_gives_whole_nodes_and_a_token():
    text = SCRIPT.read_text()
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    assert "#SBATCH --exclusive\n" in text  # `ray stop` at the end would reach other jobs of the user
    assert text.index("RAY_AUTH_MODE=token") < text.index("ray symmetric-run --address")


def expanded(text: str, given: dict[str, str]) -> dict[str, str]:
    """The settings of a submit file with its macros, whose defaults stand behind a colon."""
    lines = [line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")]
    settings = {name.strip(): value.strip() for name, value in lines}
    known = {"ClusterId": "7"} | given

    def value(found: re.Match[str]) -> str:
        name, default = found[1], found[3]
        return known[name] if name in known or default is None else default

    return {name: re.sub(r"\$\((\w+)(:([^)]*))?\)", value, said) for name, said in settings.items()}


def test_the_condor_file_asks_for_what_its_command_uses():
    text = (ROOT / "jobs" / "htcondor" / "raypipe.sub").read_text()
    given = {"command": "scan --config configs/contrastive/laptop.yaml --output /shared/run", "cpus": "32"}
    settings = expanded(text, given)
    command, *arguments = shlex.split(settings["arguments"])
    config = load_config(ROOT / arguments[1], arguments[4:], Path(arguments[3]), command)
    assert config.resources.cpus == int(settings["request_cpus"]) == 32
    assert settings["executable"] == ".venv/bin/raypipe"
    assert text.rstrip().endswith("\nqueue")
    assert expanded(text, {"command": "scan"})["request_memory"] == "32GB"


def test_the_apptainer_definition_is_the_image_of_the_dockerfile():
    text, docker = (ROOT / "jobs/apptainer/raypipe.def").read_text(), (ROOT / "k8s/Dockerfile").read_text()
    base, torch = (re.search(rf"{word}(\S+)", docker)[1] for word in ("FROM ", "torch=="))
    assert f"From: {base}\n" in text
    assert f"torch=={torch}" in text
    copied = re.findall(r"^    (\S+) /app/\S+$", text, re.MULTILINE)
    assert all((ROOT / name).exists() for name in copied)
    assert {"pyproject.toml", "setup.py", "constraints.txt", "raypipe"} <= set(copied)
    wanted = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    assert wanted == f"torch=={torch}"
