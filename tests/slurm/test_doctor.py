"""The doctor on the testbed: a short job really runs, and what does not fit is found."""

import subprocess
import sys

import yaml

from tests.slurm.site import Site


def doctor(site: Site, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cluster.doctor", *arguments],
        cwd=site.path,
        env=site.environment(0.0),
        capture_output=True,
        text=True,
    )


def test_the_testbed_is_well_but_for_its_short_kill_wait(site: Site) -> None:
    done = doctor(site)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("0 problem(s), 1 warning(s)\n"), done.stdout
    assert "warn     KillWait: only 15 s" in done.stdout
    for said in (
        "22.05.8 answers; cluster testbed",
        "squeue is asked, MinJobAge",
        "partition gpu: up; its longest job, stage1, asks for 1440 minutes",
        "2 of gpu can run",
        "sbatch: would take",
        "node: sees this folder as it is now",
        "shared files: a file of the node was seen here",
    ):
        assert said in done.stdout, done.stdout


def test_what_does_not_fit_is_named_with_its_remedy(site: Site) -> None:
    site.edit("gpu_model: \"'a100'\"", "gpu_model: \"'h100'\"")
    site.edit("runtime: 1440", "runtime: 2880")
    done = doctor(site, "--no-job")
    assert done.returncode == 1, done.stdout
    assert "2880 minutes are asked for, gpu allows 1440" in done.stdout
    assert "1 GPU(s) called h100. GPUs offered: gpu:a100:4" in done.stdout
    assert "problem  sbatch for stage2: refused" in done.stdout, "and Slurm agrees"
    assert "runtime of stage2 in slurm/config.yaml" in done.stdout.replace("\n         -> ", " ")


def test_a_node_without_what_it_needs_is_found_by_the_job(site: Site) -> None:
    """The testbed's GPUs are names only: torch finds none, which `device: auto` would need."""
    more = site.path / "more.yaml"
    more.write_text(yaml.safe_dump({"demo": None, "runtime": {"device": "auto"}}))
    done = doctor(site, "--configfile", "more.yaml")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "problem  GPU: torch sees 0 of 1 on the node" in done.stdout
    assert "dataset: the node reads" in done.stdout
    assert "weights: the node reads" in done.stdout


def test_a_job_that_does_not_start_in_time_is_given_up(site: Site) -> None:
    done = doctor(site, "--wait", "0")
    assert "test job: still PENDING" in done.stdout or "test job: still RUNNING" in done.stdout
    assert "squeue --start" in done.stdout
