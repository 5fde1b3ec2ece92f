"""What the workflow asks Slurm for, as Snakemake's plan says it."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster import requests
from cluster.requests import Request
from reid.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
STAGE2 = Request("stage2", minutes=1440, cpus=8, mem_mb=49152, options={"gpus": "a100:1"})
BY_GRES = replace(STAGE2, options={"gres": "gpu:a100:1"})

PLAN = """
[Sun Nov 22 13:58:35 2026]
rule stage2:
    input: results/demo/index/train.parquet, weights.safetensors
    output: results/demo/train/scaled/seed1/stage2.safetensors
    jobid: 40
    reason: Forced execution
    wildcards: dataset=demo, training=scaled, seed=1
    threads: 2
    resources: tmpdir=/tmp, disk_mb=<TBD>, mem_mb=49152, mem=49.15 GB, mem_mib=46875, \
runtime=1440, gpu=4, cpus_per_task=8, nodes=2, slurm_extra=--signal=TERM@120, gpu_model=a100, \
slurm_partition=long,short, slurm_account=me, qos=high, constraint=nvlink&a100
[Sun Nov 22 13:58:35 2026]
rule table:
    output: results/demo/tables/ablation.csv
    resources: tmpdir=/tmp, mem_mb=8192, runtime=60
"""


def test_a_plan_is_read() -> None:
    options = {"partition": "long,short", "account": "me", "qos": "high",
               "constraint": "nvlink&a100", "gpus": "a100:4"}  # fmt: skip
    assert list(requests.parse(PLAN)) == [replace(STAGE2, nodes=2, options=options)]


def test_the_profile_asks_for_what_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    profile = requests.read()
    assert profile.settings["executor"] == "slurm"
    assert profile.settings["latency-wait"] == 60, "FAULT 24: files that appear late"
    assert {"index", "stage1", "stage2", "extract", "retrieve", "tune"} <= set(profile.requests)
    assert "table" not in profile.requests
    on_gpu = {rule for rule, request in profile.requests.items() if request.gpu_count}
    assert on_gpu == {"stage1", "stage2", "extract"}
    for rule in on_gpu:
        request = profile.requests[rule]
        assert request.options == {"gpus": "a100:1"}
        assert (request.cpus, request.mem_mb) == (8, 49152)


def test_a_folder_without_a_profile_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="slurm: no profile here: run this from the root"):
        requests.read()


def test_options_of_sbatch() -> None:
    assert STAGE2.sbatch() == [
        "--time=1440", "--cpus-per-task=8", "--mem=49152M", "--nodes=1", "--gpus=a100:1",
    ]  # fmt: skip
    assert BY_GRES.sbatch()[-1] == "--gres=gpu:a100:1"


def test_more_gpus_bring_their_cpus_and_memory() -> None:
    more = STAGE2.with_gpus(4, nodes=2)
    assert (more.gpu_count, more.cpus, more.mem_mb, more.nodes) == (4, 32, 98304, 2)
    assert more.options == {"gpus": "a100:4"}
    assert replace(STAGE2, options={"gpus": "1"}).with_gpus(2, nodes=1).options == {"gpus": "2"}
    by_gres = BY_GRES.with_gpus(4, nodes=2)
    assert (by_gres.options["gres"], by_gres.gpu_count) == ("gpu:a100:2", 4)
    unnumbered = replace(BY_GRES, options={"gres": "gpu:a100"})
    assert unnumbered.gpu_count == 1
    assert unnumbered.with_gpus(2, nodes=1).options["gres"] == "gpu:a100:2"
    with pytest.raises(UserError, match="--gpus 3: must be a multiple of --nodes 2"):
        STAGE2.with_gpus(3, nodes=2)
    with pytest.raises(UserError, match="asks for no GPU"):
        replace(STAGE2, options={}).with_gpus(2, nodes=1)
