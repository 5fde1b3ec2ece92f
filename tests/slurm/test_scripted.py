"""Faults that this Slurm cannot show: scripted commands stand before the real ones."""

import stat

import pytest

from tests.slurm.site import STAGE2, STEPS, Site, job, slurm

SACCT = """\
# Accounting as it would be: what squeue says, with the user who cancelled.
[ -e sacct.down ] && exit 1
for word; do case $word in --jobs=*) jobs=$word ;; esac; done
real squeue --noheader --states=all --format='%i|%T' "$jobs" |
    sed 's/CANCELLED/CANCELLED by 1000/'
"""
SBATCH = """\
# The first answer gets lost on its way, as with `Socket timed out`, but the job is there.
real sbatch "$@" || exit
if [ ! -e lost ]; then
    touch lost
    echo "sbatch: error: Batch job submission failed: Socket timed out" >&2
    exit 1
fi
"""


def scripted(site: Site, **commands: str) -> str:
    """A PATH on which these commands come first; in them, `real COMMAND` is Slurm's own."""
    folder = site.path / "bin"
    folder.mkdir(exist_ok=True)
    for name, text in commands.items():
        script = folder / name
        script.write_text(f'#!/bin/bash\nreal() {{ "/usr/bin/$@"; }}\n{text}')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return f"{folder}:/usr/local/bin:/usr/bin:/bin"


def with_accounting(site: Site) -> str:
    site.edit("slurm-status-command: squeue", "slurm-status-command: sacct")
    return scripted(site, sacct=SACCT)


@pytest.mark.parametrize("accounting", [False, True])
def test_must_show_7_fault_16_cancelled_by_hand(
    site: Site, expected: dict[str, str], accounting: bool
) -> None:
    """With accounting, the plugin alone waits forever: it does not know `CANCELLED by 1000`."""
    path = {"PATH": with_accounting(site)} if accounting else {}
    controller = site.on_slurm("--retries", "0", **path)
    mine = controller.submitted()
    site.trained(8)
    slurm("scancel", mine)
    assert controller.ends() == 1
    who = " by user 1000" if accounting else ""
    assert f"Slurm job {mine} was cancelled{who}: it counts as failed" in controller.text
    assert f"snakemake {STAGE2} --profile slurm --retries 0" in controller.text, "what to type"
    site.on_slurm().succeeds()
    assert site.outcome() == expected
    assert len(site.steps) == STEPS


def test_fault_17_accounting_down_until_the_job_has_ended(
    site: Site, expected: dict[str, str]
) -> None:
    """The executor alone forgets its jobs; here squeue is asked instead."""
    site.edit("gpu: 1\n    gpu_model: \"'a100'\"", "gpu: 0\n    gres: \"'gpu:a100:1'\"")
    controller = site.on_slurm(step_seconds=0.2, PATH=with_accounting(site))
    mine = controller.submitted()
    (site.path / "sacct.down").touch()
    assert job(mine)["TresPerNode"] == "gres:gpu:a100:1", "the other way to ask for a GPU"
    controller.succeeds()
    assert controller.jobs == [mine]
    assert site.outcome() == expected


def test_fault_17_lost_answer_of_sbatch_gives_no_second_trainer(
    site: Site, expected: dict[str, str]
) -> None:
    controller = site.on_slurm(PATH=scripted(site, sbatch=SBATCH))
    mine = controller.submitted()
    (unknown, _, _) = job(mine)["Dependency"].removeprefix("afterany:").partition("(")
    controller.succeeds()
    assert "Socket timed out" in controller.text
    assert site.outcome() == expected
    assert {line.split()[0] for line in site.steps} == {unknown}
    assert len(site.steps) == STEPS
