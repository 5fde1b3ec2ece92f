"""The doctor on the testbed: a short job really runs, and what does not fit is found."""

import subprocess
import sys

import yaml

from tests.slurm.site import Site


def doctor(site: Site, *arguments: str, code: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cluster.doctor", *arguments],
        cwd=site.path,
        env=site.environment(0.0),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == code, done.stdout
    return done.stdout.replace("\n         -> ", " ")


def test_the_testbed_is_well_but_for_its_short_kill_wait(site: Site) -> None:
    printed = doctor(site, code=0)
    assert printed.endswith("0 problem(s), 1 warning(s)\n"), printed
    for said in (
        "22.05.8 answers; cluster testbed",
        "warn     KillWait: only 15 s",
        "squeue is enough, MinJobAge 3600 s",
        "sbatch: would take",
        "ran the test job and sees this folder",
        "shared files: a file of the node was seen here",
    ):
        assert said in printed, printed


def test_what_does_not_fit_is_named_with_its_remedy(site: Site) -> None:
    site.edit("gpu_model: \"'a100'\"", "gpu_model: \"'h100'\"")
    site.edit("runtime: 1440", "runtime: 2880")
    printed = doctor(site, "--no-job", code=1)
    for said in (
        "2880 minutes are asked for, gpu allows 1440",
        "set runtime of stage2 in slurm/config.yaml to at most 1440",
        "problem  sbatch for stage2: refused: allocation failure",
        "--gpus=h100:1",
        "gpu: 64 CPUs, 524288 MB, gpu:a100:4",
    ):
        assert said in printed, printed


def test_what_a_node_does_not_offer_is_found_by_the_job(site: Site) -> None:
    """The testbed's GPUs are names only: torch finds none, which `device: auto` would need."""
    more = {"demo": None, "runtime": {"device": "auto"}}
    (site.path / "more.yaml").write_text(yaml.safe_dump(more))
    printed = doctor(site, "--configfile", "more.yaml", code=1)
    assert "problem  GPU: torch sees 0 of 1 on the node" in printed
    assert "dataset: the node reads" in printed
    assert "weights: the node reads" in printed
    printed = doctor(site, "--wait", "0", code=0)
    assert "test job: still " in printed
    assert "squeue --start" in printed
