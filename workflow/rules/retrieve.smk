rule extract:
    input:
        index=index,
        weights=weights,
        stage2="results/{dataset}/train/{training}/seed{seed}/stage2.safetensors",
    output:
        "results/{dataset}/features/{training}/seed{seed}/{protocol}.safetensors",
    log:
        "results/{dataset}/logs/features/{training}/seed{seed}/{protocol}.log",
    benchmark:
        "results/{dataset}/benchmarks/features/{training}/seed{seed}/{protocol}.tsv"
    conda:
        "../envs/reid.yaml"
    threads: 8
    resources:
        gpu=1,
        cpus_per_task=8,
        mem_mb=memory(49152),
        runtime=480,
    params:
        fingerprint=fingerprint("extract", "training"),
        config=frozen,
    shell:
        "exec python -m reid extract --config {params.config} --training {wildcards.training}"
        " --seed {wildcards.seed} --protocol {wildcards.protocol} >> {log} 2>&1"


rule tune:
    input:
        index="results/{dataset}/index/train.parquet",
        features=features(VALIDATION),
    output:
        "results/{dataset}/tune/{variant}/seed{seed}.json",
    log:
        "results/{dataset}/logs/tune/{variant}/seed{seed}.log",
    benchmark:
        "results/{dataset}/benchmarks/tune/{variant}/seed{seed}.tsv"
    conda:
        "../envs/reid.yaml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem_mb=memory(16384),
        runtime=240,
    params:
        fingerprint=fingerprint("tune", "variant"),
        config=frozen,
    shell:
        "exec python -m reid tune --config {params.config} --variant {wildcards.variant}"
        " --seed {wildcards.seed} >> {log} 2>&1"


rule retrieve:
    input:
        index="results/{dataset}/index/{protocol}.parquet",
        features=features(),
        tuned=tuned,
    output:
        "results/{dataset}/retrieval/{variant}/seed{seed}/{protocol}.json",
    log:
        "results/{dataset}/logs/retrieval/{variant}/seed{seed}/{protocol}.log",
    benchmark:
        "results/{dataset}/benchmarks/retrieval/{variant}/seed{seed}/{protocol}.tsv"
    conda:
        "../envs/reid.yaml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem_mb=memory(16384),
        runtime=60,
    params:
        fingerprint=fingerprint("retrieve", "variant"),
        config=frozen,
    shell:
        "exec python -m reid retrieve --config {params.config} --variant {wildcards.variant}"
        " --seed {wildcards.seed} --protocol {wildcards.protocol} >> {log} 2>&1"


rule submission:
    input:
        indices=[RESULTS.index(protocol) for protocol in PROTOCOLS],
        features=features(*PROTOCOLS),
        tuned=tuned,
    output:
        "results/{dataset}/submission/{variant}/seed{seed}.csv",
    log:
        "results/{dataset}/logs/submission/{variant}/seed{seed}.log",
    benchmark:
        "results/{dataset}/benchmarks/submission/{variant}/seed{seed}.tsv"
    conda:
        "../envs/reid.yaml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem_mb=memory(16384),
        runtime=60,
    params:
        fingerprint=fingerprint("submission", "variant"),
        config=frozen,
    shell:
        "exec python -m reid submission --config {params.config} --variant {wildcards.variant}"
        " --seed {wildcards.seed} >> {log} 2>&1"
