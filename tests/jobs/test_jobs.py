"""Jobs through the Jobs API of a real head: logs come back, exit codes are true, strangers are refused."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest

from tests.cluster.head import head
from tests.conftest import ROOT

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster():
    with head() as running:
        yield running


def submit(cluster, *entry: str, wait: bool = True, submission: str):
    """The documented command: ``ray job submit --working-dir . -- python jobs/...``."""
    options = ["--working-dir", ".", "--submission-id", submission, *([] if wait else ["--no-wait"])]
    return cluster.ray("job", "submit", *options, "--", sys.executable, *entry)


def ask(cluster, path: str, body: dict | None = None, headers: dict | None = None) -> dict:
    """A request to the Jobs API, by default with the token."""
    headers = {"Authorization": f"Bearer {cluster.token}"} if headers is None else headers
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{cluster.url}/api/jobs/{path}", data=data, headers={"Content-Type": "application/json", **headers}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def ended(cluster, submission: str, seconds: float) -> dict:
    """The record of a job once it is over."""
    end = time.monotonic() + seconds
    while (record := ask(cluster, submission))["status"] in {"PENDING", "RUNNING"}:
        assert time.monotonic() < end, record
        time.sleep(0.3)
    return record


def test_a_job_streams_its_log_and_tells_its_exit_code_and_strangers_are_refused(cluster):
    good = submit(cluster, "jobs/simulate.py", "--list", submission="raypipe-list-1")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "xsh_500_100" in good.stdout + good.stderr
    record = ask(cluster, "raypipe-list-1")
    assert (record["status"], record["driver_exit_code"]) == ("SUCCEEDED", 0)

    entry = f"cd {ROOT} && {sys.executable} jobs/scan.py --config configs/none.yaml"
    ask(cluster, "", {"entrypoint": entry, "submission_id": "raypipe-bad-1"})
    record = ended(cluster, "raypipe-bad-1", 180)
    assert (record["status"], record["driver_exit_code"]) == ("FAILED", 2)
    assert "configs/none.yaml: no such configuration file" in ask(cluster, "raypipe-bad-1/logs")["logs"]

    # Nobody gets in without the token.
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(cluster, "", {"entrypoint": "id"}, headers)
        assert refused.value.code in (401, 403)
    assert cluster.get("/api/version") in (401, 403)
    listening = {c.laddr.ip for p in cluster.processes() for c in connections(p) if c.laddr.port == cluster.port}
    assert listening == {"127.0.0.1"}  # the job server is not reachable from outside
    assert {job["submission_id"] for job in ask(cluster, "") if job["submission_id"]} == {
        "raypipe-list-1",
        "raypipe-bad-1",
    }


def connections(process: psutil.Process) -> list:
    """Listening sockets of a process."""
    try:
        return [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return []


@pytest.mark.slow
def test_a_stopped_scan_goes_on_as_another_job(cluster, tmp_path):
    from tests.test_end_to_end import CONFIG, TINY

    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_AUTH_MODE": "disabled"}
    refused = cluster.ray("job", "submit", "--", "id", environment=stranger | {"HOME": str(cluster.folder)})
    assert refused.returncode != 0  # claiming that no token is needed does not help

    rows = tmp_path / "run" / "ledger" / "rows"
    # Enough trials that some are left when `ray job stop`, which takes seconds to start, has stopped the scan.
    arguments = [
        "jobs/scan.py",
        "--config",
        str(CONFIG.relative_to(ROOT)),
        "--output",
        str(tmp_path / "run"),
        *TINY,
        "scan.background_instances=14",
    ]
    assert submit(cluster, *arguments, wait=False, submission="raypipe-scan-1").returncode == 0
    end = time.monotonic() + 500
    while not list(rows.glob("[!.]*.json")):
        record = ask(cluster, "raypipe-scan-1")
        assert record["status"] in {"PENDING", "RUNNING"}, ask(cluster, "raypipe-scan-1/logs")["logs"][-3000:]
        assert time.monotonic() < end
        time.sleep(0.1)
    assert cluster.ray("job", "stop", "raypipe-scan-1").returncode == 0
    assert ended(cluster, "raypipe-scan-1", 60)["status"] == "STOPPED"
    kept = {path: path.stat().st_mtime_ns for path in rows.glob("[!.]*.json")}
    assert 0 < len(kept) < 16
    # The id of a submission is used once: a retry of the same submission cannot start a second scan.
    assert submit(cluster, *arguments, submission="raypipe-scan-1").returncode != 0
    again = submit(cluster, *arguments, submission="raypipe-scan-2")
    assert again.returncode == 0, (again.stdout + again.stderr)[-3000:]
    assert "16 of 16 done, 0 failed, 0 left" in again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(rows.glob("[!.]*.json"))) == 16


@pytest.mark.parametrize("name", sorted({path.stem for path in (ROOT / "jobs").glob("*.py")} - {"gpu_record"}))
def test_every_stage_has_its_entry(name):
    text = (ROOT / "jobs" / f"{name}.py").read_text()
    assert f'main(["{name}", *sys.argv[1:]])' in text
    assert name in {"simulate", "embed", "search", "scan", "report"}
