"""The testbed's configuration, and when it refuses to start."""

import re
from pathlib import Path

import pytest

from reid.errors import UserError
from tests.slurm.testbed import conf, slurm

HOME = Path("/run/some-testbed")


def test_every_node_has_a_port_and_every_gpu_a_file() -> None:
    ports = {node: 7000 + number for number, node in enumerate(conf.NODES)}
    text = conf.slurm_conf(HOME, host="here", controller_port=6999, ports=ports)
    nodes = re.findall(r"^NodeName=(\w+) .* Port=(\d+) CPUs=64 RealMemory=\d+(.*) ", text, re.M)
    assert {node: int(port) for node, port, _ in nodes} == ports
    gpus = {node for node, _, gres in nodes if gres == f" Gres=gpu:a100:{conf.GPUS}"}
    assert gpus == set(conf.GPU_NODES)
    partitions = dict(re.findall(r"^PartitionName=(\w+) Nodes=(\S+)", text, re.M))
    assert partitions.keys() == {"gpu", "spot", "scavenge", "urgent", "cpu"}
    assert {node for nodes in partitions.values() for node in nodes.split(",")} == set(conf.NODES)
    assert conf.gres_conf(HOME).count("File=") == conf.GPUS * len(conf.GPU_NODES)


def test_it_refuses_beside_another_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "PROGRAMS", ())
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(slurm, "SLURM_CONF", tmp_path / "slurm.conf")
    monkeypatch.setenv("SLURM_CONF", "/opt/slurm/slurm.conf")
    with pytest.raises(UserError, match=r"SLURM_CONF is set to /opt/slurm/slurm.conf"):
        slurm.up(tmp_path / "testbed")
    (tmp_path / "slurm.conf").touch()
    with pytest.raises(UserError, match=r"slurm.conf exists: the testbed only runs on a machine"):
        slurm.up(tmp_path / "testbed")
    assert [path.name for path in tmp_path.iterdir()] == ["slurm.conf"]
    (tmp_path / "slurm.conf").unlink()
    (tmp_path / "slurm.conf").symlink_to(HOME / "slurm.conf")
    assert slurm.is_ours(HOME)
    assert not slurm.is_ours(Path("/run/another"))


def test_it_says_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "PROGRAMS", ("slurmctld-of-nobody",))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "apt-get install slurm-wlm munge" in str(slurm.impossible())
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in str(slurm.impossible())
