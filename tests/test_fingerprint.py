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
    *("backbones.vit_b16.sha256", "backbones.vit_l14.sha256"),
}
RESULT = {"runtime.precision"}

# Where a stage follows the value, another one must exist.
OTHERS = {"backbone": "vit_b16", "training": "baseline"}


def all_settings(config: Config) -> dict[str, Any]:
    """What every stage reads, for every training and variant."""
    one = ("demo_data", "demo_weights", "index", "table", "report")
    arguments: dict[str, list[Any]] = {stage: [(config,)] for stage in one}
    for stage in ("stage1", "stage2", "extract"):
        arguments[stage] = [(config, name) for name in config.trainings]
    for stage in ("tune", "retrieve", "submission"):
        arguments[stage] = [(config, name) for name in config.variants]
    return {
        " ".join([stage, *names]): getattr(fp, f"{stage}_settings")(config, *names)
        for stage, calls in arguments.items()
        for config, *names in calls
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
    training = CONFIG.trainings["scaled"]
    stage1 = training.stage1.model_copy(update={"view": "clean"})
    trainings = {"scaled": training.model_copy(update={"stage1": stage1})}
    clean = CONFIG.model_copy(update={"trainings": trainings})
    padded = changed(clean, "trainings.scaled.augment.pad")
    assert fp.stage1_settings(clean, "scaled") == fp.stage1_settings(padded, "scaled")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_trainings_that_agree_in_stage_1_have_one_owner() -> None:
    owners = fp.stage1_owners(CONFIG)
    assert owners.pop("attention") == "optimized"
    assert all(owner == name for name, owner in owners.items())
    alone = fp.stage1_owners(changed(CONFIG, "trainings.attention.stage1.lr"))
    assert alone["attention"] == "attention"


@pytest.mark.parametrize("folder", ["train/1/1_2", "train/3", "case1_aerial_to_ground/query/2/2_2"])
def test_an_added_or_removed_tracklet_or_person_changes_the_stamp(
    tmp_path: Path, folder: str
) -> None:
    for made in ("train/1/1_1", "case1_aerial_to_ground/query/2/2_1"):
        (tmp_path / made).mkdir(parents=True)
    before = fp.dataset_stamp(tmp_path)
    assert fp.dataset_stamp(tmp_path) == before
    (tmp_path / folder).mkdir()
    grown = fp.dataset_stamp(tmp_path)
    shutil.rmtree(tmp_path / folder)
    assert len({before, grown, fp.dataset_stamp(tmp_path)}) == 3


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"layout": "mars"}, "info/query_IDX.mat"),
        ({"layout": "manifest"}, "manifest.csv"),
        ({"damaged": "damaged.csv"}, "damaged.csv"),
    ],
)
def test_the_stamp_covers_the_contents_of_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = Dataset(root=tmp_path, **options)

    def stamp() -> str:
        return fp.dataset_stamp(tmp_path, fp.lists_of(dataset))

    assert not any(file.exists() for file in fp.lists_of(dataset))
    (tmp_path / path).parent.mkdir(exist_ok=True)
    stamps = []
    for text in ("one", "one", "three"):
        (tmp_path / path).write_text(text)
        stamps.append(stamp())
    (tmp_path / path).unlink()
    assert stamps[0] == stamps[1], "written again with the same content"
    assert len({*stamps, stamp()}) == 3


def test_no_stage_depends_on_the_command_line_or_on_later_stages() -> None:
    behind = {stage: set(fp.modules_behind(entry)) for stage, entry in fp.ENTRIES.items()}
    assert not any("reid.cli" in modules for modules in behind.values())
    for stage in ("index", "stage1", "stage2", "extract"):
        late = {"reid.retrieval.metrics", "reid.retrieval.rerank", "reid.report.table"}
        assert not behind[stage] & late
    assert "reid.train.losses" in behind["stage2"]
    assert "reid.model.network" in behind["extract"]


MODULES = {
    "__init__.py": "",
    "sub/__init__.py": "",
    "entry.py": '"""Words."""\nimport json\nfrom reid.sub import near\n\n\ndef f():\n'
    '    """Words."""\n    from . import lazy\n    return lazy\n',
    "sub/near.py": "from .far import x\nfrom reid.files import y\n",
    "sub/far.py": "x = 1\n",
    "lazy.py": "import reid.sub.odd\n",
    "sub/odd.py": "",
    "files.py": "y = 1\n",
    "unrelated.py": "",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a few modules in place of ours."""
    root = tmp_path / "reid"
    (root / "sub").mkdir(parents=True)
    for name, text in MODULES.items():
        (root / name).write_text(text)
    monkeypatch.setattr(fp, "PACKAGE", root)
    monkeypatch.setitem(fp.ENTRIES, "entry", "reid.entry")
    return root


def test_imports_are_followed_also_relative_ones_and_those_in_functions(package: Path) -> None:
    names = {"reid.entry", "reid.lazy", "reid.sub.near", "reid.sub.far", "reid.sub.odd"}
    assert set(fp.modules_behind("reid.entry")) == names | {"reid", "reid.sub"}


@pytest.mark.parametrize(
    ("module", "counts"),
    [(name, name not in ("files.py", "unrelated.py")) for name in MODULES],
)
def test_code_that_a_stage_imports_counts(package: Path, module: str, counts: bool) -> None:
    before = fp.fingerprint("entry", {"a": 1})
    with (package / module).open("a") as source:
        source.write("\nz = 2\n")
    assert (fp.fingerprint("entry", {"a": 1}) != before) == counts


def test_comments_and_docstrings_do_not_count_but_options_do(package: Path) -> None:
    before = fp.fingerprint("entry", {"a": 1})
    entry = package / "entry.py"
    entry.write_text(entry.read_text().replace("Words.", "Other words.") + "\n# a remark\n")
    assert fp.fingerprint("entry", {"a": 1}) == before
    assert fp.fingerprint("entry", {"a": 2}) != before
