# A training stops and saves before its time is up, which only a job of Slurm has: on SIGTERM, sent
# two or three minutes before, or by its own clock. If another one holds its folder, it waits: a
# stale lease has had no heartbeat for 90 seconds.
# Snakemake deletes the log of an earlier attempt. It stays under a second name, beside the
# checkpoints, and is appended to under both: by a hard link, or a symbolic one where there are no
# hard links or the folders are on two file systems.
rule stage1:
    input:
        needs("stage1", "training", "seed"),
    output:
        RESULTS.stage("{training}", "{seed}", 1),
    log:
        RESULTS.log("train", "{training}", "seed{seed}", "stage1"),
    benchmark:
        RESULTS.benchmark("train", "{training}", "seed{seed}", "stage1")
    wildcard_constraints:
        training="|".join(sorted(set(STEPS.stage1_owners.values()))),
    conda:
        "../envs/reid.yaml"
    threads: 8
    resources:
        gpu=1,
        cpus_per_task=8,
        mem_mb=memory(49152, "stage1"),
        runtime=1440,
        slurm_extra="--open-mode=append --signal=TERM@120",
    params:
        config=frozen,
        history=str(RESULTS.run("{training}", "{seed}") / "stage1.log"),
    shell:
        "touch {params.history:q} && {{ ln -f {params.history:q} {log:q} 2> /dev/null"
        ' || ln -sf "$(realpath {params.history:q})" {log:q} || true; }} && '
        "exec python -m reid train stage1 --config {params.config:q}"
        " --training {wildcards.training} --seed {wildcards.seed} --wait 5"
        " ${{SLURM_JOB_ID:+--time-limit {resources.runtime}}} >> {log:q} 2>&1"


rule stage2:
    input:
        needs("stage2", "training", "seed"),
    output:
        RESULTS.stage("{training}", "{seed}", 2),
    log:
        RESULTS.log("train", "{training}", "seed{seed}", "stage2"),
    benchmark:
        RESULTS.benchmark("train", "{training}", "seed{seed}", "stage2")
    conda:
        "../envs/reid.yaml"
    threads: 8
    resources:
        gpu=1,
        nodes=1,  # of several GPUs, Slurm may else give some on one node and some on another
        cpus_per_task=8,
        mem_mb=memory(49152, "stage2"),
        runtime=1440,
        slurm_extra="--open-mode=append --signal=TERM@120",
    params:
        config=frozen,
        history=str(RESULTS.run("{training}", "{seed}") / "stage2.log"),
    shell:
        "touch {params.history:q} && {{ ln -f {params.history:q} {log:q} 2> /dev/null"
        ' || ln -sf "$(realpath {params.history:q})" {log:q} || true; }} && '
        "exec python -m cluster.ddp --gpus {resources.gpu} --cpus {resources.cpus_per_task}"
        " train stage2 --config {params.config:q}"
        " --training {wildcards.training} --seed {wildcards.seed} --wait 5"
        " ${{SLURM_JOB_ID:+--time-limit {resources.runtime}}} >> {log:q} 2>&1"
