"""Must-show 4 and 5: nodes and the controller of Slurm go away under a running stage 2."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.slurm.site import STEPS, Site, job, slurm, until
from tests.slurm.testbed import conf
from tests.slurm.testbed import slurm as testbed


def daemon(*words: str) -> psutil.Process:
    """The process of the testbed whose command line starts with these words."""
    (found,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[: len(words)] == list(words)
    ]
    return found


def kill_job_processes(identifier: str) -> None:
    """What is left of a job on its node, as if the node had lost power."""
    for process in psutil.process_iter(["cmdline"]):
        if f"slurmstepd: [{identifier}." in " ".join(process.info["cmdline"] or []):
            for each in (process, *process.children(recursive=True)):
                each.kill()


def state(node: str) -> str:
    return slurm("sinfo", "-hN", "-n", node, "-p", "spot", "-o", "%T").strip()


def works_again(node: str) -> bool:
    """Whether a node is at work; one that was set down by hand has to be told."""
    if state(node).startswith("down"):
        resume = ("scontrol", "update", f"NodeName={node}", "State=RESUME")
        subprocess.run(resume, capture_output=True, check=False)  # it may just have come by itself
    return state(node) in testbed.AT_WORK


@pytest.fixture
def nodes(pair: str) -> Iterator[str]:
    """Two nodes, by their feature, which work again afterwards."""
    yield pair
    for node in conf.PAIRS[pair]:
        pid = Path(testbed.HOME / f"{node}.pid")
        if not pid.exists() or not psutil.pid_exists(int(pid.read_text())):
            testbed.start_node(node)
        until(lambda node=node: works_again(node), f"{node} to work again")


@pytest.mark.parametrize("dies", [True, False])
def test_must_show_4_fault_15_node_dies_or_is_set_down(
    site: Site, expected: dict[str, str], nodes: str, dies: bool
) -> None:
    site.to_partition("spot", nodes)
    controller = site.on_slurm()
    mine = controller.submitted()
    site.trained(8)
    node = job(mine)["NodeList"]
    if dies:
        daemon("slurmd", "-N", node).kill()
        kill_job_processes(mine)
    else:
        slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    controller.succeeds()
    assert controller.jobs == [mine], "Slurm starts it again under the same id"
    assert job(mine)["NodeList"] != node
    assert site.outcome() == expected
    assert "resuming before epoch" in site.log


def test_must_show_4_slurmd_dies_and_its_trainer_lives(
    site: Site, expected: dict[str, str], nodes: str
) -> None:
    """Slurm starts the job again elsewhere, while the first trainer is still at work."""
    site.to_partition("spot", nodes)
    controller = site.on_slurm()
    mine = controller.submitted()
    site.trained(2)
    site.hold()  # the first start lasts until the second is there, however long Slurm takes
    node = job(mine)["NodeList"]
    daemon("slurmd", "-N", node).kill()
    until(lambda: "waiting for it" in site.log, "the second start")
    site.release()
    controller.succeeds()
    assert job(mine)["NodeList"] != node
    assert site.outcome() == expected
    assert len(site.steps) == STEPS, "the second start left the first alone"


def test_must_show_5_fault_17_outage_of_slurm(
    request: pytest.FixtureRequest, use_of_slurm: ExitStack
) -> None:
    """slurmctld is killed and comes back: in the middle of one job, and after another has ended."""
    # Only now: Slurm must be this test's before.
    new_site, expected = map(request.getfixturevalue, ("new_site", "expected"))
    site, second_site = new_site("site"), new_site("second")
    second_site.hold()
    sites = {"mid-run": site, "end": second_site}
    controllers = {when: each.on_slurm() for when, each in sites.items()}
    jobs = {when: controller.submitted() for when, controller in controllers.items()}
    second_site.trained(1)
    site.trained(4)
    os.kill(daemon("slurmctld").pid, signal.SIGKILL)
    try:
        site.trained(len(site.steps) + 2)
        site.hold()  # it lasts longer than the outage, however long Slurm takes
        second_site.release()
        until(lambda: second_site.attempts[-1]["event"] == "done", "the end of the second")
        for controller in controllers.values():
            until(lambda c=controller: "Slurm does not answer" in c.text, "the watch to notice")
    finally:
        testbed.start_controller()
    for controller in controllers.values():
        until(lambda c=controller: "Slurm answers again" in c.text, "Slurm to be back")
    for partition, nodes in (("gpu", 2), ("urgent", 2 * len(conf.PAIRS)), ("cpu", 1)):
        run = ("srun", f"--partition={partition}", f"--nodes={nodes}", "--mem=1", "true")
        until(lambda r=run: subprocess.run(r, timeout=200).returncode == 0, "all nodes to be back")
    site.release()
    use_of_slurm.close()  # a minute passes until nodes try again to tell Slurm of a job's end
    for when, controller in controllers.items():
        controller.succeeds()
        assert controller.jobs == [jobs[when]], "nothing twice"
        assert sites[when].outcome() == expected
        assert len(sites[when].steps) == STEPS
