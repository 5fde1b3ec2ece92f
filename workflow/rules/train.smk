# A training stops and saves before its time is up, which only a job of Slurm has: on SIGTERM, sent
# two or three minutes before, or by its own clock. If another one holds its folder, it waits: a
# stale lease has had no heartbeat for 90 seconds.
# Snakemake deletes the log of an earlier attempt. It stays under a second name, beside the
# checkpoints, and is appended to under both.
rule stage1:
    input:
        index="results/{dataset}/index/train.parquet",
        weights=weights,
    output:
        "results/{dataset}/train/{training}/seed{seed}/stage1.safetensors",
    log:
        "results/{dataset}/logs/train/{training}/seed{seed}/stage1.log",
    benchmark:
        "results/{dataset}/benchmarks/train/{training}/seed{seed}/stage1.tsv"
    wildcard_constraints:
        training="|".join(sorted(set(STAGE1_OWNERS.values()))),
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
        fingerprint=fingerprint("stage1", "training"),
        config=frozen,
        history="results/{dataset}/train/{training}/seed{seed}/stage1.log",
    shell:
        "touch {params.history} && ln -f {params.history} {log} && "
        "exec python -m reid train stage1 --config {params.config}"
        " --training {wildcards.training} --seed {wildcards.seed} --wait 5"
        " ${{SLURM_JOB_ID:+--time-limit {resources.runtime}}} >> {log} 2>&1"


if STAGE1_SHARERS:

    rule share_stage1:
        input:
            stage1_of_owner,
        output:
            "results/{dataset}/train/{training}/seed{seed}/stage1.safetensors",
        log:
            "results/{dataset}/logs/train/{training}/seed{seed}/share_stage1.log",
        wildcard_constraints:
            training="|".join(STAGE1_SHARERS),
        localrule: True
        conda:
            "../envs/reid.yaml"
        shell:
            "exec cp {input} {output} >> {log} 2>&1"


rule stage2:
    input:
        index="results/{dataset}/index/train.parquet",
        weights=weights,
        stage1="results/{dataset}/train/{training}/seed{seed}/stage1.safetensors",
    output:
        "results/{dataset}/train/{training}/seed{seed}/stage2.safetensors",
        "results/{dataset}/train/{training}/seed{seed}/manifest.json",
    log:
        "results/{dataset}/logs/train/{training}/seed{seed}/stage2.log",
    benchmark:
        "results/{dataset}/benchmarks/train/{training}/seed{seed}/stage2.tsv"
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
        fingerprint=fingerprint("stage2", "training"),
        config=frozen,
        history="results/{dataset}/train/{training}/seed{seed}/stage2.log",
    shell:
        "touch {params.history} && ln -f {params.history} {log} && "
        "exec python -m cluster.ddp --gpus {resources.gpu} --cpus {resources.cpus_per_task}"
        " train stage2 --config {params.config}"
        " --training {wildcards.training} --seed {wildcards.seed} --wait 5"
        " ${{SLURM_JOB_ID:+--time-limit {resources.runtime}}} >> {log} 2>&1"
