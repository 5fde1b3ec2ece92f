"""The code that a module depends on is found, and only that."""

from pathlib import Path

import pytest

from reid import fingerprint as fp
from reid import sources


def test_no_stage_depends_on_the_command_line_or_on_later_stages() -> None:
    behind = {stage: set(sources.modules_behind(entry)) for stage, entry in fp.ENTRIES.items()}
    assert not any("reid.cli" in modules for modules in behind.values())
    for stage in ("index", "stage1", "stage2", "extract"):
        late = {"reid.retrieval.metrics", "reid.retrieval.rerank", "reid.report.table"}
        assert not behind[stage] & late
    assert "reid.train.losses" in behind["stage2"]
    assert "reid.model.network" in behind["extract"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a few modules in place of ours."""
    root = tmp_path / "reid"
    (root / "sub").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "sub" / "__init__.py").write_text("")
    (root / "entry.py").write_text(
        '"""Words."""\nimport json\nfrom reid.sub import near\n\n\ndef f():\n'
        '    """Words."""\n    from . import lazy\n    return lazy\n'
    )
    (root / "sub" / "near.py").write_text("from .far import x\nfrom reid.files import y\n")
    (root / "sub" / "far.py").write_text("x = 1\n")
    (root / "lazy.py").write_text("import reid.sub.odd\n")
    (root / "sub" / "odd.py").write_text("")
    (root / "files.py").write_text("y = 1\n")
    (root / "stranger.py").write_text("")
    monkeypatch.setattr(sources, "PACKAGE", root)
    return root


def test_imports_are_followed_also_relative_ones_and_those_in_functions(package: Path) -> None:
    names = {"reid.entry", "reid.lazy", "reid.sub.near", "reid.sub.far", "reid.sub.odd"}
    assert set(sources.modules_behind("reid.entry")) == names | {"reid", "reid.sub"}


@pytest.mark.parametrize("module", ["entry.py", "lazy.py", "sub/far.py", "sub/__init__.py"])
def test_code_behind_counts(package: Path, module: str) -> None:
    before = sources.code_hash("reid.entry")
    with (package / module).open("a") as opened:
        opened.write("\nz = 2\n")
    assert sources.code_hash("reid.entry") != before


def test_words_and_strangers_and_plumbing_do_not_count(package: Path) -> None:
    before = sources.code_hash("reid.entry")
    for module in ("stranger.py", "files.py"):
        (package / module).write_text("z = 2\n")
    entry = package / "entry.py"
    entry.write_text(entry.read_text().replace("Words.", "Other words.") + "\n# a remark\n")
    assert sources.code_hash("reid.entry") == before


def test_a_fingerprint_hashes_code_and_options(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fp.ENTRIES, "entry", "reid.entry")
    before = fp.fingerprint("entry", {"a": 1})
    assert fp.fingerprint("entry", {"a": 1}) == before
    assert fp.fingerprint("entry", {"a": 2}) != before
    (package / "lazy.py").write_text("z = 2\n")
    assert fp.fingerprint("entry", {"a": 1}) != before
