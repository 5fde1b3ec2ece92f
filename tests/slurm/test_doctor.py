"""The doctor on the testbed: a short job really runs, and what does not fit is found."""

import subprocess
import sys

import yaml

from tests.slurm.site import Site


def doctor(site: Site, *arguments: str, code: int, says: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster.doctor", *arguments],
        cwd=site.path, env=site.environment(0.0),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    printed = done.stdout.replace("\n         -> ", " ")
    for text in says:
        assert text in printed, printed


def test_the_testbed_is_well_but_for_its_short_kill_wait(site: Site) -> None:
    doctor(site, code=0, says=(
        "22.05.8 answers; cluster testbed",
        "squeue is enough, MinJobAge 3600 s",
        "warn     KillWait: only 15 s",
        "sbatch: would take",
        "ran the test job and sees this folder",
        "shared files: a file of the node was seen here",
        "0 problem(s), 1 warning(s)\n",
    ))  # fmt: skip


def test_what_does_not_fit_is_named_with_its_remedy(site: Site) -> None:
    """The testbed's GPUs are names only: torch finds none, which `device: auto` would need."""
    more = {"demo": None, "runtime": {"device": "auto"}}
    (site.path / "more.yaml").write_text(yaml.safe_dump(more))
    doctor(site, "--configfile", "more.yaml", code=1, says=(
        "problem  GPU: torch sees 0 of 1 on the node",
        "dataset: the node reads",
        "weights: the node reads",
    ))  # fmt: skip
    site.edit("gpu_model: \"'a100'\"", "gpu_model: \"'h100'\"")
    site.edit("runtime: 1440", "runtime: 2880")
    doctor(site, "--no-job", code=1, says=(
        "2880 minutes are asked for, gpu allows 1440",
        "set runtime of stage2 in slurm/config.yaml to at most 1440",
        "problem  sbatch for stage2: refused: allocation failure",
        "--gpus=h100:1",
        "gpu: 64 CPUs, 524288 MB, gpu:a100:4",
    ))  # fmt: skip
