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
    params:
        fingerprint=fingerprint("stage1", "training"),
        config=frozen,
    shell:
        "exec python -m reid train stage1 --config {params.config}"
        " --training {wildcards.training} --seed {wildcards.seed} >> {log} 2>&1"


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
    params:
        fingerprint=fingerprint("stage2", "training"),
        config=frozen,
    shell:
        "exec python -m reid train stage2 --config {params.config}"
        " --training {wildcards.training} --seed {wildcards.seed} >> {log} 2>&1"
