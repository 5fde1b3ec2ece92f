"""One small experiment through the real verbs: from frames to the table, and back again."""

import csv
import shutil
import zipfile
from pathlib import Path

import pytest
from safetensors.torch import save_file

from reid import provenance
from reid.files import sha256_of_file
from tests.clips import TINY, state_dict
from tests.trees import make_tree
from tests.workflow.workspace import Workspace

OPTIONS = ("--configfile", "mini.yaml", "--replace-workflow-config")
TABLES = Path("results/mini/tables")


def contents(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*")}


def rows(workspace: Workspace) -> dict[str, dict[str, str]]:
    """Rows of the table by variant."""
    with (workspace.path / TABLES / "ablation.csv").open(newline="") as opened:
        return {row["variant"]: row for row in csv.DictReader(opened)}


def tabulate(workspace: Workspace) -> str:
    """What `reid table` prints."""
    printed = workspace.command("reid", "table", "--config", "mini.yaml")
    assert printed.returncode == 0, printed.stdout
    return printed.stdout


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("line"))
    make_tree(workspace.path / "data", train=2, test=2, tracklets=1, frames=2)
    save_file(
        {k: v.clone() for k, v in state_dict(TINY).items()}, workspace.path / "tiny.safetensors"
    )
    shutil.copy(Path(__file__).with_name("mini.yaml"), workspace.path)
    before = contents(workspace.path / "data")
    workspace.snakemake(*OPTIONS)
    assert contents(workspace.path / "data") == before, "the dataset was written to"
    return workspace


def test_the_whole_line_ran(done: Workspace) -> None:
    assert set(rows(done)) == {"plain", "reranked", "pooled", "untrained"}
    for suffix in ("csv", "md", "tex"):
        assert (done.path / TABLES / f"ablation.{suffix}").stat().st_size > 0


def test_fault_21_a_second_run_does_nothing(done: Workspace) -> None:
    assert "Nothing to be done" in done.snakemake(*OPTIONS)


def test_the_report_is_written_and_stands_in_the_one_of_snakemake(done: Workspace) -> None:
    page = (done.path / "results/mini/report.html").read_text()
    assert all(row["label"] in page for row in rows(done).values())
    done.snakemake(*OPTIONS, "--report", "all.zip")
    with zipfile.ZipFile(done.path / "all.zip") as archive:
        names = {Path(name).name for name in archive.namelist()}
        text = archive.read("all/report.html").decode()
    assert {"ablation.csv", "breakdown.csv", "cmc.svg", "training_stage2.svg"} <= names
    for category in ("Report", "Tables", "Figures"):
        assert f'"{category}"' in text
    assert "One column of a paper wide" in text


def test_fault_22_every_cell_traces_to_weights_data_code_and_machine(done: Workspace) -> None:
    for variant, row in rows(done).items():
        paths = [done.path / path for path in row["manifests"].split()]
        assert len(paths) == 1
        behind: dict[str, provenance.Manifest] = {}
        waiting = paths[:1]
        while waiting:
            path = waiting.pop()
            manifest = provenance.read(path)
            if manifest is None:
                continue
            behind[str(path.relative_to(done.path / "results/mini"))] = manifest
            inputs = [done.path / file for file in manifest.made["inputs"].values()]
            waiting += [file.with_name(f"{file.stem}.manifest.json") for file in inputs]
        training = {"reranked": "plain"}.get(variant, variant)
        steps = {manifest.stamp["step"] for manifest in behind.values()}
        assert steps == {"retrieve", "extract", "stage1", "stage2"} | {"index"} & steps
        weights = behind[f"train/{training}/seed1/stage2.manifest.json"]
        assert weights.stamp["inputs"]["weights"] == sha256_of_file(done.path / "tiny.safetensors")
        assert weights.stamp["options"]["stage2"]["batch_size"] == 4
        assert weights.made["starts"][0]["threads"] >= 1
        facts = {"git", "slurm", "gpu", "host", "packages", "threads", "wall_seconds"}
        assert facts <= weights.made.keys()
        made = done.path / f"results/mini/train/{training}/seed1/stage2.safetensors"
        assert weights.outputs[made.name]["sha256"] == sha256_of_file(made)


def test_fault_22_a_missing_row_is_a_gap_in_the_table(done: Workspace) -> None:
    metrics = done.path / "results/mini/retrieval/reranked/seed1/A2A.json"
    kept = metrics.read_text()
    whole = rows(done)
    assert float(whole["reranked"]["A2A_mean_ap"]) > 0
    metrics.unlink()
    try:
        printed = tabulate(done)
        assert "re-ranked, A2A: not run" in printed
        assert rows(done)["reranked"]["A2A_mean_ap"] == ""
        assert rows(done)["plain"] == whole["plain"]
    finally:
        metrics.write_text(kept)


@pytest.mark.parametrize(
    ("option", "other", "row", "reason"),
    [
        ("k1: 3", "k1: 2", "re-ranked", "outdated: rerank.k1: 3 -> 2"),
        (
            "width: 64",
            "width: 128",
            "plain",
            "outdated: stage2 plain seed1: model.adapters.width: 64 -> 128",
        ),
    ],
)
def test_fault_22_a_number_made_with_other_options_is_not_shown(
    done: Workspace, option: str, other: str, row: str, reason: str
) -> None:
    with done.edited("mini.yaml", option, other):
        printed = tabulate(done)
    assert f"{row}, A2A: {reason}" in printed
    (shown,) = (found for found in rows(done).values() if found["label"] == row)
    assert shown["A2A_mean_ap"] == ""


def test_fault_23_a_tracklet_changed_after_indexing_stops_training_at_once(
    done: Workspace,
) -> None:
    tracklet = next((done.path / "data" / "train").glob("*/*"))
    frame = next(tracklet.iterdir())
    extra = frame.with_name(frame.name.replace("_0000", "_0009"))
    shutil.copy(frame, extra)
    printed = done.command(
        *["reid", "train", "stage2", "--config", "mini.yaml", "--training", "plain", "--seed", "1"]
    )
    assert printed.returncode == 1
    assert printed.stdout.splitlines()[-1].startswith("error: ")
    assert tracklet.name in printed.stdout
    assert "reid index" in printed.stdout
