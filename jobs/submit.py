"""Commands of raypipe as jobs of a Ray cluster: submit, follow, stop, go on.

    python jobs/submit.py --name demo -- scan --config FILE --output /shared/demo
    python jobs/submit.py --name demo            # follow the newest attempt again
    python jobs/submit.py --name demo --stop
    python jobs/submit.py --name demo -- scan --config FILE --output /shared/demo    # the next attempt goes on

Run it at the root of the repository: the job gets this folder. RAY_ADDRESS is the job server (http://HOST:8265);
RAY_AUTH_MODE=token and RAY_AUTH_TOKEN open it. The run folder must be on storage that all nodes see.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

LEFT_BEHIND = [".git", ".venv", "runs", "tests"]
"""Of the working folder: what no command reads."""


def attempts(client: JobSubmissionClient, name: str) -> dict[int, JobDetails]:
    """The jobs ``raypipe-<name>-<attempt>`` of a cluster by their attempt, first to last."""
    made = {job.submission_id: job for job in client.list_jobs() if job.submission_id}
    numbers = {key: re.fullmatch(rf"raypipe-{re.escape(name)}-(\d+)", key) for key in made}
    return dict(sorted((int(number[1]), made[key]) for key, number in numbers.items() if number))


def submitted(client: JobSubmissionClient, name: str, command: tuple[str, ...]) -> str:
    """Submit the next attempt of a command; its id. A cluster takes an id once, so of two at once one is refused."""
    before = attempts(client, name)
    number = max(before, default=0) + 1
    if before and not before[number - 1].status.is_terminal():
        raise click.ClickException(f"attempt {number - 1} of {name} is {before[number - 1].status}: --stop it first")
    return client.submit_job(
        entrypoint=shlex.join(["python", "-m", "raypipe.cli", *command]),
        submission_id=f"raypipe-{name}-{number}",
        runtime_env={"working_dir": ".", "excludes": LEFT_BEHIND},
    )


async def followed(client: JobSubmissionClient, job: str) -> int:
    """Print what a job prints until it ends; its exit status."""
    async for lines in client.tail_job_logs(job):
        click.echo(lines, nl=False)
    while not (info := client.get_job_info(job)).status.is_terminal():
        await asyncio.sleep(1)
    click.echo(f"{job}: {info.status.lower()}", err=True)
    return (info.driver_exit_code or 1) if info.status != "SUCCEEDED" else 0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--address", envvar="RAY_ADDRESS", required=True, help="Job server, http://HOST:8265.")
@click.option("--name", default="scan", show_default=True, help="Of the attempts at one command.")
@click.option("--stop", is_flag=True, help="Stop the newest attempt.")
@click.option("--detach", is_flag=True, help="Submit, print the id and leave.")
@click.argument("command", nargs=-1)
def main(address: str, name: str, stop: bool, detach: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND (scan --config FILE ...) of raypipe on a cluster as its next attempt, and follow it.

    Without COMMAND the newest attempt is followed, or stopped. An interrupt ends the following, not the job.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    job = name
    try:
        client = JobSubmissionClient(address)
        if command:
            job = submitted(client, name, command)
        elif made := attempts(client, name):
            job = made[max(made)].submission_id
        else:
            raise click.ClickException(f"{address}: no attempt of {name}")
        if stop:
            click.echo(f"{job}: {'stopped' if client.stop_job(job) else 'had ended'}")
        elif detach:
            click.echo(job)
        else:
            sys.exit(asyncio.run(followed(client, job)))
    except AuthenticationError as error:  # its first line says what, the others how
        raise click.ClickException(f"{address}: {str(error).splitlines()[0]}") from None
    except (ConnectionError, RuntimeError) as error:  # the last line of a traceback of the server
        raise click.ClickException(f"{address}: {str(error).strip().splitlines()[-1]}") from None
    except KeyboardInterrupt:
        click.echo(f"{job} goes on; follow it with --name {name}", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
