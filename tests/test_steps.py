"""Jobs depend on the code, options and files that act on their outputs, and on nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from reid import config as options
from reid import sources
from reid.config import Config
from reid.errors import UserError
from reid.steps import ENTRIES, Steps, lists_of

ROOT = Path(__file__).resolve().parents[1]
CONFIG = options.load([ROOT / "config" / "config.yaml", ROOT / "config" / "demo.yaml"])

# Options that change no result, or only where a result lies, and one among them that does.
NO_RESULT = {
    "runtime",
    "results",
    "dataset.name",
    "dataset.root",
    "dataset.max_rejected_share",
    "dataset.max_unmatched_query_share",
    "dataset.allow_shared_identities",
    *("backbones.vit_b16.sha256", "backbones.vit_l14.sha256"),
}
RESULT = {"runtime.precision"}

# Where a stage follows the value, another one must exist.
OTHERS = {
    "backbone": "vit_b16",
    "training": "baseline",
    "weights": "other.pt",
    **{name: Path("other.csv") for name in ("root", "manifest", "damaged", "results")},
    "layout": "manifest",
    "name": "other",
}


def all_jobs(config: Config) -> dict[str, Any]:
    """Options and files that a job depends on, of its first seed and protocol.

    Files under results by their place there; without the place of the dataset.
    """
    steps = Steps(config)
    demanded = [
        make(name, 1) for name in config.variants for make in (steps.tune, steps.submission)
    ]
    return {
        " ".join([job.step, *job.place[:1]]): (
            job.options,
            {
                role: path.relative_to(root) if path.is_relative_to(root) else path
                for role, path in job.inputs.items()
                if role != "dataset"
            },
        )
        for job in [*demanded, *steps][::-1]
        for root in [steps.results.root]
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
    """`section` with another value at `path`, valid or not: steps only look."""
    name, _, rest = path.partition(".")
    if isinstance(section, dict):
        return {**section, name: changed(section[name], rest)}
    value = getattr(section, name)
    other = changed(value, rest) if rest else OTHERS.get(name, [value, "other"])
    return section.model_copy(update={name: other})


def differing(path: str) -> set[str]:
    base = changed(CONFIG, "dataset.layout") if path == "dataset.manifest" else CONFIG
    before, after = all_jobs(base), all_jobs(changed(base, path))
    return {job for job in before if before[job] != after.get(job)}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("path", sorted(leaves(CONFIG)))
def test_every_option_that_changes_a_result_is_in_a_job(path: str) -> None:
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
        ("dataset.damaged", {"index"}),
        ("demo.captions", {"demo_weights tiny-b16", "demo_weights tiny-l14"}),
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
    jobs = (Steps(config).stage1("scaled", 1) for config in (clean, padded))
    assert len({str(job.options) for job in jobs}) == 1


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_trainings_that_agree_in_stage_1_have_one_owner() -> None:
    owners = dict(Steps(CONFIG).stage1_owners)
    assert owners.pop("attention") == "optimized"
    assert all(owner == name for name, owner in owners.items())
    alone = Steps(changed(CONFIG, "trainings.attention.stage1.lr")).stage1_owners
    assert alone["attention"] == "attention"


def test_a_submission_depends_on_what_its_retrievals_depend_on() -> None:
    steps = Steps(CONFIG)
    for variant in CONFIG.variants:
        jobs = [steps.retrieve(variant, 1, split) for split in CONFIG.dataset.protocols]
        submission = steps.submission(variant, 1)
        assert {*submission.inputs.values()} == {
            file for job in jobs for file in job.inputs.values()
        }
        assert all(submission.options == job.options for job in jobs)


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("mars", ["damaged.csv", "info/a.txt"]),
        ("g2a-vreid", ["damaged.csv", "info/a.txt"]),
        ("manifest", ["damaged.csv", "manifest.csv"]),
        ("detreidx", ["damaged.csv"]),
    ],
)
def test_lists_of_a_layout_are_inputs_of_the_index(
    tmp_path: Path, layout: str, names: list[str]
) -> None:
    (tmp_path / "info").mkdir()
    (tmp_path / "info" / "a.txt").touch()
    update = {"root": tmp_path, "damaged": tmp_path / "damaged.csv", "layout": layout}
    dataset = CONFIG.dataset.model_copy(update=update)
    assert lists_of(dataset) == [tmp_path / name for name in names]
    inputs = Steps(CONFIG.model_copy(update={"dataset": dataset})).index().inputs.values()
    assert {*lists_of(dataset)} < {*inputs}


def test_no_stage_depends_on_the_command_line_or_on_later_stages() -> None:
    behind = {stage: set(sources.modules_behind(entry)) for stage, entry in ENTRIES.items()}
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
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of a few modules in place of ours."""
    root = tmp_path / "reid"
    (root / "sub").mkdir(parents=True)
    for name, text in MODULES.items():
        (root / name).write_text(text)
    monkeypatch.setattr(sources, "PACKAGE", root)
    forget()
    yield root
    forget()


def forget() -> None:
    """Modules are read once in a process."""
    sources.modules_behind.cache_clear()
    sources._read.cache_clear()


def hashes() -> dict[str, str]:
    forget()
    return sources.modules_behind("reid.entry")


def test_imports_are_followed_also_relative_ones_and_those_in_functions(package: Path) -> None:
    names = {"reid.entry", "reid.lazy", "reid.sub.near", "reid.sub.far", "reid.sub.odd"}
    assert set(hashes()) == names | {"reid", "reid.sub"}


@pytest.mark.parametrize(
    ("module", "counts"),
    [(name, name not in ("files.py", "unrelated.py")) for name in MODULES],
)
def test_code_that_a_stage_imports_counts(package: Path, module: str, counts: bool) -> None:
    before = hashes()
    with (package / module).open("a") as source:
        source.write("\nz = 2\n")
    assert (hashes() != before) == counts


def test_comments_and_docstrings_do_not_count(package: Path) -> None:
    before = hashes()
    entry = package / "entry.py"
    entry.write_text(entry.read_text().replace("Words.", "Other words.") + "\n# a remark\n")
    assert hashes() == before


def test_two_checkouts_in_one_environment_are_an_error_with_both(tmp_path: Path) -> None:
    sources.demand_one_checkout(ROOT, tmp_path)
    (tmp_path / "reid").mkdir()
    (tmp_path / "reid" / "sources.py").touch()
    with pytest.raises(UserError) as refusal:
        sources.demand_one_checkout(tmp_path)
    assert str(tmp_path) in str(refusal.value)
    assert str(ROOT / "reid") in str(refusal.value)
