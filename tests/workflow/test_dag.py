"""What the workflow runs, and what it runs again, on the paper's experiment.

The verbs are stood in for, so that the whole DAG runs in seconds; Snakemake, the rules, the
configuration, the command lines and the stamps are the real ones.
"""

import os
import shutil
import time
from pathlib import Path

import pytest

from reid import config
from tests.workflow.workspace import Job, Workspace, counts, values

WHOLE = {
    "index": 1,
    "stage1": 5,
    "stage2": 6,
    "extract": 18,
    "retrieve": 27,
    "table": 1,
    "report": 1,
}


@pytest.fixture(scope="module")
def done(fresh: Workspace) -> Workspace:
    """The same after a whole run."""
    fresh.snakemake()
    return fresh


class TestFresh:
    def test_the_dag_of_the_paper(self, fresh: Workspace) -> None:
        jobs = fresh.plan()
        assert counts(jobs) == WHOLE
        trainings = {"baseline", "optimized", "attention", "scaled", "clip_b16", "clip_l14"}
        assert values(jobs, "stage2", "training") == trainings
        assert values(jobs, "stage1", "training") == trainings - {"attention"}
        assert len(values(jobs, "retrieve", "variant")) == 9

    def test_a_dry_run_writes_nothing_but_stamps_and_the_configuration(
        self, fresh: Workspace
    ) -> None:
        fresh.plan()
        folders = {path.name for path in (fresh.path / "results" / "detreidx").iterdir()}
        assert folders == {"stamps", "config"}

    def test_the_demo_renders_its_data_and_weights(self, fresh: Workspace) -> None:
        jobs = fresh.plan("--configfile", "config/demo.yaml")
        assert counts(jobs) == {"demo_data": 1, "demo_weights": 2, **WHOLE}
        assert values(jobs, "demo_weights", "file") == {"tiny-b16", "tiny-l14"}

    def test_an_open_clip_tag_is_no_file(self, fresh: Workspace) -> None:
        change = "backbones:\n  vit_b16: {weights: 'open_clip:ViT-B-16-quickgelu:openai'}\n"
        with fresh.appended("mine.yaml", change):
            assert counts(fresh.plan("--configfile", "mine.yaml")) == WHOLE

    def test_a_tuned_variant_is_tuned_on_people_held_out_of_training(
        self, fresh: Workspace
    ) -> None:
        change = (
            "trainings: {scaled: {validation: {share: 0.2}}}\nvariants: {scaled: {rerank: tuned}}\n"
        )
        with fresh.appended("mine.yaml", change):
            jobs = fresh.plan("--configfile", "mine.yaml")
        assert counts(jobs) == {**WHOLE, "extract": 19, "tune": 1}
        wanted = {"training": "scaled", "seed": "1"}
        assert Job("extract", {**wanted, "protocol": "validation"}) in jobs

    def test_a_submission_is_of_its_seed(self, fresh: Workspace) -> None:
        with fresh.appended("mine.yaml", "seeds: [1, 2]\n"):
            target = "results/detreidx/submission/scaled/seed2.csv"
            jobs = fresh.plan(target, "--configfile", "mine.yaml")
        wanted = {"variant": "scaled", "seed": "2"}
        assert Job("submission", wanted) in jobs
        assert values(jobs, "extract", "seed") == {"2"}
        assert counts(jobs)["extract"] == 3

    def test_gpu_rules_ask_for_one_gpu_and_only_one_runs_at_a_time(self, fresh: Workspace) -> None:
        printed = fresh.snakemake("-n")
        blocks = [block for block in printed.split("\n[") if "rule stage2:" in block]
        assert blocks
        for asked in ("gpu=1", "nodes=1", "mem_mb=49152"):
            assert all(f"{asked}," in block for block in blocks)
        profile = (fresh.path / "workflow/profiles/default/config.yaml").read_text()
        assert "resources:\n  gpu: 1\n" in profile

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("trainings: {scaled: {stage2: {epoch: 3}}}",
             "trainings.scaled.stage2: unknown key epoch (did you mean epochs?)"),
            ("tune: {k1: [5]}\nseeds: [1]\ntune: {k2: [3]}",
             "mine.yaml, line 3: key tune is already in line 1"),
            ("backbones: {vit_l14: {weights: weights/other.pt}}",
             "backbones.vit_l14.weights: weights/other.pt is not a file"),
            ("dataset: {root: data/moved}", "dataset.root: data/moved is not a folder"),
        ],
    )  # fmt: skip
    def test_fault_23_a_mistake_is_named_before_anything_runs(
        self, fresh: Workspace, change: str, message: str
    ) -> None:
        with fresh.appended("mine.yaml", f"{change}\n"):
            assert message in fresh.refused("-n", "--configfile", "mine.yaml")

    @pytest.mark.parametrize("options", [(), ("--no-hooks",)])
    def test_a_locked_folder_is_left_alone_and_the_cure_is_named(
        self, fresh: Workspace, options: tuple[str, ...]
    ) -> None:
        target = "results/detreidx/index/train.parquet"
        with fresh.appended(".snakemake/locks/0.output.lock", f"{target}\n"):
            printed = fresh.refused(target, *options)
            assert "Directory cannot be locked" in printed
            assert "It can be removed with the --unlock argument." in printed
            assert (fresh.path / ".snakemake/locks/0.output.lock").exists()
        assert not (fresh.path / target).exists()

    def test_unlock_needs_nothing_else(self, fresh: Workspace) -> None:
        lock = fresh.path / ".snakemake/locks/0.output.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        assert "Unlocked working directory" in fresh.snakemake("--unlock")
        assert not lock.exists()


class TestAgain:
    def test_fault_21_everything_ran_once_and_a_second_run_does_nothing(
        self, done: Workspace
    ) -> None:
        verbs = (done.path / "verbs.txt").read_text().split()
        ran = {verb: verbs.count(verb) for verb in set(verbs)}
        assert ran == WHOLE
        assert "Nothing to be done" in done.snakemake()

    def test_the_configuration_of_the_run_is_kept_whole(self, done: Workspace) -> None:
        kept = (done.path / "results" / "detreidx" / "config").iterdir()
        whole = config.load([done.path / "config" / "config.yaml"])
        assert whole in [config.load([path]) for path in kept]

    def test_every_job_has_a_log_and_a_benchmark(self, done: Workspace) -> None:
        results = done.path / "results" / "detreidx"
        for folder, suffix in (("logs", "log"), ("benchmarks", "tsv")):
            found = {p.relative_to(results / folder) for p in (results / folder).rglob("*.*")}
            assert Path(f"train/scaled/seed1/stage2.{suffix}") in found
            assert Path(f"retrieval/rerank/seed1/A2A.{suffix}") in found
        assert len(list((results / "logs").rglob("*.log"))) == sum(WHOLE.values())

    def test_fault_21_texts_and_cluster_files_rerun_nothing(self, done: Workspace) -> None:
        with (
            done.appended("README.md", "\nchanged\n"),
            done.appended("config/README.md", "\nchanged\n"),
            done.appended("cluster/slurm/config.yaml", "jobs: 10\n"),
            done.appended("reid/train/stage2.py", "\n# a remark\n"),
        ):
            assert done.plan() == []

    def test_only_contents_count_not_times_places_metadata_or_leftovers(
        self, done: Workspace
    ) -> None:
        for path in (done.path / "results" / "detreidx" / "index").iterdir():
            path.touch()
        for name in ("ViT-B-16.pt", "ViT-L-14.pt"):
            (done.path / "weights" / name).rename(done.path / "weights" / f"moved-{name}")
        shutil.rmtree(done.path / ".snakemake")
        shutil.copytree(done.path / "data" / "DetReIDX", done.path / "data" / "copy")
        for junk in (".DS_Store", "Thumbs.db"):
            (next((done.path / "data" / "copy" / "train").iterdir()) / junk).touch()
        change = (
            "dataset: {root: data/copy}\nbackbones:\n"
            "  vit_b16: {weights: weights/moved-ViT-B-16.pt}\n"
            "  vit_l14: {weights: weights/moved-ViT-L-14.pt}\n"
        )
        try:
            with done.appended("mine.yaml", change):
                assert done.plan("--configfile", "mine.yaml") == []
        finally:
            for name in ("ViT-B-16.pt", "ViT-L-14.pt"):
                (done.path / "weights" / f"moved-{name}").rename(done.path / "weights" / name)

    def test_an_option_that_was_only_tried_in_a_dry_run_leaves_nothing_to_do(
        self, done: Workspace
    ) -> None:
        with done.appended("mine.yaml", "variants: {rerank: {rerank: {k1: 24}}}\n"):
            printed = done.snakemake("-n", "--configfile", "mine.yaml")
        assert "retrieve rerank seed1 A2G must run again: rerank.k1: 20 -> 24" in printed
        assert done.plan() == []

    @pytest.mark.parametrize(
        ("change", "rules", "trainings", "variants"),
        [
            ("runtime: {workers: 0, extract_batch: 4, device: cpu}", {}, set(), set()),
            ("trainings: {scaled: {stage2: {losses: {triplet: 2}}}}",
             {"stage2": 1, "extract": 3, "retrieve": 3, "table": 1, "report": 1},
             {"scaled"}, {"scaled"}),
            # Rows 5 and 6 use this training; `scaled` is a difference from it: keep it as it was.
            ("trainings:\n  attention: {stage2: {losses: {triplet: 2}}}\n"
             "  scaled: {stage2: {losses: {triplet: 1}}}",
             {"stage2": 1, "extract": 3, "retrieve": 6, "table": 1, "report": 1},
             {"attention"}, {"attention", "attention_tuned"}),
            ("variants: {rerank: {rerank: {k1: 24}}}",
             {"retrieve": 3, "table": 1, "report": 1}, set(), {"rerank"}),
            ("variants: {rerank: {label: other}}", {"table": 1, "report": 1}, set(), set()),
        ],
        ids=["machine", "loss weight", "loss weight of two rows", "k1", "label"],
    )  # fmt: skip
    def test_fault_21_a_change_reruns_what_depends_on_it(
        self, done: Workspace, change: str, rules: dict[str, int], trainings: set[str],
        variants: set[str],
    ) -> None:  # fmt: skip
        with done.appended("mine.yaml", f"{change}\n"):
            jobs = done.plan("--configfile", "mine.yaml")
        assert counts(jobs) == rules
        assert values(jobs, "stage2", "training") == trainings
        assert values(jobs, "retrieve", "variant") == variants

    def test_another_seed_adds_jobs_and_repeats_none(self, done: Workspace) -> None:
        with done.appended("mine.yaml", "seeds: [1, 2]\n"):
            jobs = done.plan("--configfile", "mine.yaml")
        assert counts(jobs) == {rule: count for rule, count in WHOLE.items() if rule != "index"}
        assert {job.wildcards["seed"] for job in jobs if "seed" in job.wildcards} == {"2"}

    @pytest.mark.parametrize(
        ("module", "rules"),
        [
            ("reid/retrieval/metrics.py", {"retrieve": 27, "table": 1, "report": 1}),
            ("reid/report/table.py", {"table": 1, "report": 1}),
            ("reid/features/extract.py", {"extract": 18, "retrieve": 27, "table": 1, "report": 1}),
            (
                "reid/train/stage2.py",
                {"stage2": 6, "extract": 18, "retrieve": 27, "table": 1, "report": 1},
            ),
            ("reid/train/stage1.py", {k: v for k, v in WHOLE.items() if k != "index"}),
            ("reid/data/scan.py", WHOLE),
        ],
    )
    def test_fault_21_code_reruns_the_stages_that_use_it(
        self, done: Workspace, module: str, rules: dict[str, int]
    ) -> None:
        with done.appended(module, "\nCHANGED = True\n"):
            assert counts(done.plan()) == rules

    def test_another_weights_file_reruns_the_trainings_on_it(self, done: Workspace) -> None:
        with done.appended("weights/new.pt", "new"):
            change = "backbones: {vit_l14: {weights: weights/new.pt}}\n"
            with done.appended("mine.yaml", change):
                jobs = done.plan("--configfile", "mine.yaml")
        assert values(jobs, "stage2", "training") == {"scaled", "clip_l14"}
        assert values(jobs, "stage1", "training") == {"scaled", "clip_l14"}

    def test_a_number_made_by_hand_with_another_option_is_made_again(self, done: Workspace) -> None:
        """Twice: Snakemake remembers what the stamp was when its job ran."""
        hand = ("retrieve", "--variant", "rerank", "--seed", "1", "--protocol", "A2A")
        with done.appended("mine.yaml", "variants: {rerank: {rerank: {k1: 24}}}\n"):
            for _ in range(2):
                by_hand = done.command("reid", *hand, "--configfile", "mine.yaml")
                assert by_hand.returncode == 0, by_hand.stdout
                assert counts(done.plan()) == {"retrieve": 1, "table": 1, "report": 1}
                done.snakemake()
        assert done.plan() == []

    def test_artifacts_of_the_future_and_another_option(self, done: Workspace) -> None:
        results = done.path / "results" / "detreidx"
        future = time.time() + 1e8
        for path in results.rglob("*"):
            os.utime(path, (future, future))
        assert done.plan() == []
        with done.appended("mine.yaml", "variants: {rerank: {rerank: {k1: 24}}}\n"):
            jobs = done.plan("--configfile", "mine.yaml")
            done.snakemake("--configfile", "mine.yaml")
        assert counts(jobs) == {"retrieve": 3, "table": 1, "report": 1}
        done.snakemake()
        assert done.plan() == []

    def test_a_submission_of_another_option_is_made_again(self, done: Workspace) -> None:
        target = "results/detreidx/submission/rerank/seed1.csv"
        done.snakemake(target)
        assert done.plan(target) == []
        with done.appended("mine.yaml", "variants: {rerank: {rerank: {k1: 24}}}\n"):
            jobs = done.plan(target, "--configfile", "mine.yaml")
        assert counts(jobs)["submission"] == 1

    @pytest.mark.parametrize("name", ["ViT-B-16.pt", "elsewhere.pt"])
    def test_weights_as_a_link_or_elsewhere_rerun_nothing(self, done: Workspace, name: str) -> None:
        weights = done.path / "weights"
        file = weights / "ViT-B-16.pt"
        kept = file.rename(weights / "elsewhere.pt")
        try:
            if name == file.name:
                file.symlink_to(kept.name)
            with done.appended("mine.yaml", f"backbones: {{vit_b16: {{weights: weights/{name}}}}}"):
                assert done.plan("--configfile", "mine.yaml") == []
        finally:
            kept.replace(file)

    def test_an_artifact_of_another_job_of_equal_size_is_made_again(self, done: Workspace) -> None:
        path = done.path / "results/detreidx/retrieval/scaled/seed1/A2A.json"
        kept = path.read_text()
        path.write_text(kept[::-1])
        try:
            assert counts(done.plan()) == {"retrieve": 1, "table": 1, "report": 1}
        finally:
            path.write_text(kept)

    def test_a_missing_artifact_is_made_again(self, done: Workspace) -> None:
        path = done.path / "results/detreidx/retrieval/scaled/seed1/A2A.json"
        kept = path.read_text()
        path.unlink()
        try:
            jobs = done.plan()
        finally:
            path.write_text(kept)
        wanted = {"variant": "scaled", "seed": "1", "protocol": "A2A"}
        assert Job("retrieve", wanted) in jobs
        assert counts(jobs) == {"retrieve": 1, "table": 1, "report": 1}


class TestLast:
    """Tests that change the finished workspace for good."""

    def test_fault_22_a_failed_training_leaves_a_table_of_the_others_and_is_resumed(
        self, done: Workspace
    ) -> None:
        shutil.copy(Path(__file__).with_name("mini.yaml"), done.path)
        (done.path / "tiny.safetensors").write_text("weights")
        options = ("--configfile", "mini.yaml", "--replace-workflow-config")
        ticket = done.path / "fail-pooled"
        ticket.touch()
        verbs = done.path / "verbs.txt"
        verbs.unlink()
        printed = done.refused(*options)
        assert "no luck" in printed, "the log of the failed job is not shown"
        assert "the same command again" in printed
        ran = verbs.read_text().split()
        rest = {
            "index": 1,
            "stage1": 2,
            "stage2": 2,
            "extract": 2,
            "retrieve": 3,
            "table": 1,
            "report": 1,
        }
        assert {verb: ran.count(verb) for verb in set(ran)} == rest
        ticket.unlink()
        assert counts(done.plan(*options)) == {
            "stage2": 1,
            "extract": 1,
            "retrieve": 1,
            "table": 1,
            "report": 1,
        }

    def test_fault_23_a_new_tracklet_reruns_the_index(self, done: Workspace) -> None:
        person = next((done.path / "data" / "DetReIDX" / "train").iterdir())
        (person / f"{person.name}_9999").mkdir()
        assert counts(done.plan()) == WHOLE

    def test_another_list_of_damaged_frames_reruns_the_index(self, done: Workspace) -> None:
        options = ("results/listed/index/train.parquet", "--configfile", "mine.yaml")
        change = "dataset: {name: listed, damaged: damaged.csv}\n"
        with (
            done.appended("mine.yaml", change),
            done.appended("damaged.csv", "path,damage\n"),
        ):
            done.snakemake(*options)
            assert done.plan(*options) == []
            with done.appended("damaged.csv", "a.jpg,is missing\n"):
                assert counts(done.plan(*options)) == {"index": 1}
