"""Must-show 1: the whole ablation by `snakemake --profile slurm`, from a fresh clone."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.site import Controller, Site, job

ASKED = {
    "index": {"cpus": "8", "memory": "8G", "gpu": "", "time": "04:00:00", "partition": "cpu"},
    "stage1": {"cpus": "8", "memory": "48G", "gpu": "gres:gpu:a100:1", "time": "1-00:00:00"},
    "stage2": {"cpus": "8", "memory": "48G", "gpu": "gres:gpu:a100:1", "time": "1-00:00:00"},
    "extract": {"cpus": "8", "memory": "48G", "gpu": "gres:gpu:a100:1", "time": "08:00:00"},
    "retrieve": {"cpus": "4", "memory": "16G", "gpu": "", "time": "01:00:00", "partition": "cpu"},
}
"""Of sbatch by rule; what is not named is the default partition of the testbed, gpu."""


def asked_by(controller: Controller) -> dict[str, dict[str, str]]:
    """What `scontrol show job` says of one job of each rule."""
    found = {}
    for rule, identifier in re.findall(r"/rule_(\w+?)/\S*?(\d+)\.log\)", controller.text):
        if rule in ASKED and rule not in found:
            fields = job(identifier)
            found[rule] = {
                "cpus": fields["NumCPUs"],
                "memory": fields["MinMemoryNode"],
                "gpu": fields.get("TresPerJob", ""),
                "time": fields["TimeLimit"],
                "partition": fields["Partition"],
            }
            assert fields["Requeue"] == "1"
    return found


@pytest.fixture
def local(base: Site, tmp_path: Path) -> Site:
    """A site where everything has run locally."""
    site = base.copy(tmp_path / "here")
    site.start("--resources", "gpu=2").succeeds(1500)
    return site


@pytest.fixture
def there(local: Site, tmp_path: Path) -> Iterator[Site]:
    """A fresh clone."""
    site = Site.clone(tmp_path / "there", compiled=local)
    yield site
    site.clear_away()


def test_must_show_1_the_whole_table(local: Site, there: Site) -> None:
    # CPU rules go to the default of all jobs, GPU rules name their own partition.
    there.edit("# slurm_partition: \"'cpu'\"", "slurm_partition: \"'cpu'\"")
    there.to_partition("gpu")
    controller = there.start("--profile", "slurm")
    controller.succeeds(1500)
    steps = re.search(r"(\d+) of \1 steps \(100%\) done", controller.text)
    assert steps, controller.text
    for suffix in ("csv", "md", "tex"):
        table = f"results/demo/tables/ablation.{suffix}"
        assert (there.path / table).read_text() == (local.path / table).read_text()
    rows = (there.path / "results/demo/tables/ablation.md").read_text()
    assert len(re.findall(r"^\| [A-Z+]", rows, re.MULTILINE)) >= 7
    assert asked_by(controller) == {
        rule: {"partition": "gpu", **asked} for rule, asked in ASKED.items()
    }
    assert "rule_table" not in controller.text, "the table is made by the controller itself"
    again = there.start("--profile", "slurm")
    again.succeeds()
    assert "Nothing to be done" in again.text
