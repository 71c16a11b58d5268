"""Jobs through the Jobs API of a real head: logs come back, exit codes are true, strangers are refused."""

from __future__ import annotations

import json
import os
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


def ask(cluster, path: str, body: dict | None = None, headers: dict | None = None) -> dict:
    """A request to the Jobs API, by default with the token."""
    headers = {"Authorization": f"Bearer {cluster.token}"} if headers is None else headers
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{cluster.url}/api/jobs/{path}", data=data, headers={"Content-Type": "application/json", **headers}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_a_job_streams_its_log_and_tells_its_exit_code_and_strangers_are_refused(cluster):
    good = cluster.submit("--name", "list", "--", "simulate", "--list")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "xsh_500_100" in good.stdout
    assert "raypipe-list-1: succeeded" in good.stderr
    record = ask(cluster, "raypipe-list-1")
    assert (record["status"], record["driver_exit_code"]) == ("SUCCEEDED", 0)

    for attempt in (1, 2):
        bad = cluster.submit("--name", "bad", "--", "scan", "--config", "configs/none.yaml")
        assert bad.returncode == 2
        assert "configs/none.yaml: no such configuration file" in bad.stdout
        assert f"raypipe-bad-{attempt}: failed" in bad.stderr
    again = cluster.submit("--name", "bad")
    assert (again.returncode, again.stdout) == (2, bad.stdout)
    assert cluster.submit("--name", "bad", "--stop").stdout == "raypipe-bad-2: had ended\n"
    none = cluster.submit("--name", "other", "--stop")
    assert (none.returncode, "no attempt of other" in none.stderr) == (1, True)

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
        "raypipe-bad-2",
    }
    wrong = cluster.submit("--name", "bad", environment=cluster.environment | {"RAY_AUTH_TOKEN": "wrong"})
    assert wrong.returncode == 1
    assert len(wrong.stderr.strip().splitlines()) == 1, wrong.stderr


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
    refused = cluster.submit("--", "config", environment=stranger | {"HOME": str(cluster.folder)})
    assert refused.returncode != 0  # claiming that no token is needed does not help

    rows = tmp_path / "run" / "ledger" / "rows"
    # Enough trials that some are left when `--stop`, which takes seconds to start, has stopped the scan.
    arguments = [
        "--",
        "scan",
        "--config",
        str(CONFIG.relative_to(ROOT)),
        "--output",
        str(tmp_path / "run"),
        *TINY,
        "scan.background_instances=14",
    ]
    named = ("--name", "scan")
    first = cluster.submit(*named, "--detach", *arguments)
    assert (first.returncode, first.stdout) == (0, "raypipe-scan-1\n"), first.stderr
    end = time.monotonic() + 500
    while not list(rows.glob("[!.]*.json")):
        record = ask(cluster, "raypipe-scan-1")
        assert record["status"] in {"PENDING", "RUNNING"}, ask(cluster, "raypipe-scan-1/logs")["logs"][-3000:]
        assert time.monotonic() < end
        time.sleep(0.1)
    # While one attempt runs a repeated command cannot start a second scan.
    twice = cluster.submit(*named, *arguments)
    assert (twice.returncode, "attempt 1 of scan is RUNNING" in twice.stderr) == (1, True)
    assert cluster.submit(*named, "--stop").stdout == "raypipe-scan-1: stopped\n"
    assert "raypipe-scan-1: stopped" in cluster.submit(*named).stderr  # followed to its end
    kept = {path: path.stat().st_mtime_ns for path in rows.glob("[!.]*.json")}
    assert 0 < len(kept) < 16
    again = cluster.submit(*named, *arguments)
    assert again.returncode == 0, (again.stdout + again.stderr)[-3000:]
    assert "16 of 16 done, 0 failed, 0 left" in again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(rows.glob("[!.]*.json"))) == 16
