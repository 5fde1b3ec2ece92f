"""The testbed's configuration, and when it refuses to start."""

from pathlib import Path

import pytest

from reid.errors import UserError
from tests.slurm.testbed import slurm

HOME = Path("/run/some-testbed")


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
