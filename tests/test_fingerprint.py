"""Fingerprints change with the code and options that a stage depends on, and with nothing else."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from reid import config as options
from reid import fingerprint as fp
from reid.config import Config, Dataset

ROOT = Path(__file__).resolve().parents[1]
CONFIG = options.load([ROOT / "config" / "config.yaml", ROOT / "config" / "demo.yaml"])

# Options that change no result, or only where a result lies, and one among them that does.
NO_RESULT = {
    "runtime",
    "dataset.name",
    "dataset.root",
    "dataset.max_rejected_share",
    "dataset.max_unmatched_query_share",
    "dataset.allow_shared_identities",
}
RESULT = {"runtime.precision"}

# Where a stage follows the value, another one must exist.
OTHERS = {"backbone": "vit_b16", "training": "baseline"}


def all_settings(config: Config) -> dict[str, Any]:
    """What every stage reads, for every training and variant."""
    return {
        "demo_data": fp.demo_data_settings(config),
        "demo_weights": fp.demo_weights_settings(config),
        "index": fp.index_settings(config),
        **{f"stage1 {name}": fp.stage1_settings(config, name) for name in config.trainings},
        **{f"stage2 {name}": fp.stage2_settings(config, name) for name in config.trainings},
        **{f"extract {name}": fp.extract_settings(config, name) for name in config.trainings},
        **{f"tune {name}": fp.tune_settings(config, name) for name in config.variants},
        **{f"retrieve {name}": fp.retrieve_settings(config, name) for name in config.variants},
        **{f"submission {name}": fp.submission_settings(config, name) for name in config.variants},
        "table": fp.table_settings(config),
        "report": fp.report_settings(config),
    }


def leaves(section: BaseModel, path: str = "") -> Iterator[str]:
    """Paths of all options of the configuration; of a mapping's entries, only of one."""
    for name in type(section).model_fields:
        value, below = getattr(section, name), f"{path}.{name}".lstrip(".")
        if isinstance(value, dict):
            key = "scaled" if "scaled" in value else next(iter(value))
            value, below = value[key], f"{below}.{key}"
        if isinstance(value, BaseModel):
            yield from leaves(value, below)
        else:
            yield below


def changed(section: Any, path: str) -> Any:
    """`section` with another value at `path`, valid or not: fingerprints only hash."""
    name, _, rest = path.partition(".")
    if isinstance(section, dict):
        return {**section, name: changed(section[name], rest)}
    value = getattr(section, name)
    other = changed(value, rest) if rest else OTHERS.get(name, [value, "other"])
    return section.model_copy(update={name: other})


def differing(path: str) -> set[str]:
    before, after = all_settings(CONFIG), all_settings(changed(CONFIG, path))
    return {stage for stage in before if before[stage] != after[stage]}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("path", sorted(leaves(CONFIG)))
def test_every_option_that_changes_a_result_changes_a_fingerprint(path: str) -> None:
    exempt = path not in RESULT and not NO_RESULT.isdisjoint({path, path.split(".")[0]})
    assert bool(differing(path)) != exempt


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("variants.scaled.rerank.k1", {"retrieve scaled", "submission scaled", "table", "report"}),
        ("variants.scaled.label", {"table", "report"}),
        ("report.faces", {"report"}),
        ("trainings.scaled.stage2.losses.triplet", {"stage2 scaled"}),
        ("trainings.scaled.stage1.lr", {"stage1 scaled"}),
        ("trainings.scaled.model.pooling.kind", {"stage2 scaled", "extract scaled"}),
        ("trainings.scaled.clip.test_sampling", {"extract scaled"}),
        ("dataset.check_sizes", {"index"}),
        ("demo.captions", {"demo_weights"}),
        ("demo.train_identities", {"demo_data"}),
    ],
)
def test_an_option_counts_where_it_acts(path: str, stages: set[str]) -> None:
    assert differing(path) == stages


def test_augmentation_counts_in_stage_1_only_where_it_is_applied() -> None:
    clean = changed(CONFIG, "trainings.scaled.stage1.view")
    training = clean.trainings["scaled"]
    stage1 = training.stage1.model_copy(update={"view": "clean"})
    clean = CONFIG.model_copy(
        update={"trainings": {"scaled": training.model_copy(update={"stage1": stage1})}}
    )
    assert fp.stage1_settings(clean, "scaled") == fp.stage1_settings(
        changed(clean, "trainings.scaled.augment.pad"), "scaled"
    )


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_trainings_that_agree_in_stage_1_have_one_owner() -> None:
    owners = fp.stage1_owners(CONFIG)
    assert owners.pop("attention") == "optimized"
    assert all(owner == name for name, owner in owners.items())
    alone = fp.stage1_owners(changed(CONFIG, "trainings.attention.stage1.lr"))
    assert alone["attention"] == "attention"


class TestStamp:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for folder in ("train/1/1_1", "case1_aerial_to_ground/query/2/2_1"):
            (tmp_path / "data" / folder).mkdir(parents=True)
        return tmp_path / "data"

    def test_it_is_stable(self, root: Path) -> None:
        assert fp.dataset_stamp(root) == fp.dataset_stamp(root)

    @pytest.mark.parametrize(
        "folder", ["train/1/1_2", "train/3", "case1_aerial_to_ground/query/2/2_2"]
    )
    def test_a_tracklet_or_a_person_more_or_less_changes_it(self, root: Path, folder: str) -> None:
        before = fp.dataset_stamp(root)
        (root / folder).mkdir()
        grown = fp.dataset_stamp(root)
        shutil.rmtree(root / folder)
        assert len({before, grown, fp.dataset_stamp(root)}) == 3

    def test_a_changed_list_changes_it(self, root: Path) -> None:
        (root / "info").mkdir()
        listed = root / "info" / "query_IDX.mat"
        listed.write_text("one")
        (root / "manifest.csv").write_text("one")
        for layout, path in (("mars", listed), ("manifest", root / "manifest.csv")):
            dataset = Dataset(root=root, layout=layout)
            before = fp.dataset_stamp(root, fp.lists_of(dataset))
            assert before != fp.dataset_stamp(root)
            path.write_text("three")
            assert fp.dataset_stamp(root, fp.lists_of(dataset)) != before
            path.unlink()
            assert fp.dataset_stamp(root, fp.lists_of(dataset)) != before
        assert fp.lists_of(Dataset(root=root)) == []

    def test_sees_what_the_list_of_damaged_frames_says(self, tmp_path: Path) -> None:
        damaged = tmp_path / "damaged.csv"
        damaged.write_text("path,damage\n")
        dataset = Dataset(root=tmp_path, damaged=damaged)
        before = fp.dataset_stamp(tmp_path, fp.lists_of(dataset))
        damaged.write_text("path,damage\n")  # another check that found the same
        assert fp.dataset_stamp(tmp_path, fp.lists_of(dataset)) == before
        damaged.write_text("path,damage\na.jpg,is missing\n")
        assert fp.dataset_stamp(tmp_path, fp.lists_of(dataset)) != before


def test_no_stage_depends_on_the_command_line_or_on_later_stages() -> None:
    behind = {stage: set(fp.modules_behind(entry)) for stage, entry in fp.ENTRIES.items()}
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
    monkeypatch.setattr(fp, "PACKAGE", root)
    return root


def test_imports_are_followed_also_relative_ones_and_those_in_functions(package: Path) -> None:
    names = {"reid.entry", "reid.lazy", "reid.sub.near", "reid.sub.far", "reid.sub.odd"}
    assert set(fp.modules_behind("reid.entry")) == names | {"reid", "reid.sub"}


@pytest.mark.parametrize("module", ["entry.py", "lazy.py", "sub/far.py", "sub/__init__.py"])
def test_code_behind_counts(package: Path, module: str) -> None:
    before = fp.code_hash("reid.entry")
    with (package / module).open("a") as opened:
        opened.write("\nz = 2\n")
    assert fp.code_hash("reid.entry") != before


def test_words_and_strangers_and_plumbing_do_not_count(package: Path) -> None:
    before = fp.code_hash("reid.entry")
    for module in ("stranger.py", "files.py"):
        (package / module).write_text("z = 2\n")
    entry = package / "entry.py"
    entry.write_text(entry.read_text().replace("Words.", "Other words.") + "\n# a remark\n")
    assert fp.code_hash("reid.entry") == before


def test_a_fingerprint_hashes_code_and_options(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fp.ENTRIES, "entry", "reid.entry")
    before = fp.fingerprint("entry", {"a": 1})
    assert fp.fingerprint("entry", {"a": 1}) == before
    assert fp.fingerprint("entry", {"a": 2}) != before
    (package / "lazy.py").write_text("z = 2\n")
    assert fp.fingerprint("entry", {"a": 1}) != before
