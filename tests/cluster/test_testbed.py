"""The testbed's configuration, and when it refuses to start."""

import re
from pathlib import Path

import pytest

from cluster.testbed import conf, machine, slurm
from reid.errors import UserError

HOME = Path("/run/some-testbed")


def test_every_node_has_a_port_and_every_gpu_a_file() -> None:
    ports = {node: 7000 + number for number, node in enumerate(conf.NODES)}
    text = conf.slurm_conf(HOME, host="here", controller_port=6999, ports=ports)
    found = re.findall(r"^NodeName=(\w+) .* Port=(\d+) CPUs=64 RealMemory=\d+(.*) ", text, re.M)
    assert {node: int(port) for node, port, _ in found} == ports
    gpus = {node for node, _, gres in found if gres == f" Gres=gpu:a100:{conf.GPUS}"}
    assert gpus == set(conf.GPU_NODES)
    partitions = dict(re.findall(r"^PartitionName=(\w+) Nodes=(\S+)", text, re.M))
    assert partitions.keys() == {"gpu", "spot", "scavenge", "urgent", "cpu"}
    assert {node for nodes in partitions.values() for node in nodes.split(",")} == set(conf.NODES)
    assert conf.gres_conf(HOME).count("File=") == conf.GPUS * len(conf.GPU_NODES)


def test_it_refuses_beside_another_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "slurm.conf"
    other.touch()
    monkeypatch.setattr(machine, "SLURM_CONF", other)
    monkeypatch.setattr(machine, "lacks", lambda: None)
    with pytest.raises(UserError, match=r"slurm.conf exists: the testbed only runs on a machine"):
        slurm.up(tmp_path / "testbed")
    assert [each.name for each in tmp_path.iterdir()] == ["slurm.conf"]


def test_it_refuses_where_slurm_is_configured_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SLURM_CONF", tmp_path / "slurm.conf")
    monkeypatch.setenv("SLURM_CONF", "/opt/slurm/slurm.conf")
    assert machine.foreign_slurm(tmp_path) == "SLURM_CONF is set to /opt/slurm/slurm.conf"


def test_its_own_link_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link"
    link.symlink_to(HOME / "slurm.conf")
    monkeypatch.setattr(machine, "SLURM_CONF", link)
    assert machine.is_ours(HOME)
    assert not machine.is_ours(Path("/run/another"))


def test_it_says_what_the_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "PROGRAMS", ("slurmctld-of-nobody",))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "apt-get install slurm-wlm munge" in (machine.lacks() or "")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in (machine.lacks() or "")
