rule extract:
    input:
        needs("extract", "training", "seed", "protocol"),
    output:
        RESULTS.features("{training}", "{seed}", "{protocol}"),
    log:
        RESULTS.log("features", "{training}", "seed{seed}", "{protocol}"),
    benchmark:
        RESULTS.benchmark("features", "{training}", "seed{seed}", "{protocol}")
    conda:
        "../envs/reid.yaml"
    threads: 8
    resources:
        gpu=1,
        cpus_per_task=8,
        mem_mb=memory(49152),
        runtime=480,
    params:
        config=frozen,
    shell:
        "exec python -m reid extract --config {params.config:q} --training {wildcards.training}"
        " --seed {wildcards.seed} --protocol {wildcards.protocol} >> {log:q} 2>&1"


rule tune:
    input:
        needs("tune", "variant", "seed"),
    output:
        RESULTS.tuned("{variant}", "{seed}"),
    log:
        RESULTS.log("tune", "{variant}", "seed{seed}"),
    benchmark:
        RESULTS.benchmark("tune", "{variant}", "seed{seed}")
    conda:
        "../envs/reid.yaml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem_mb=memory(16384),
        runtime=240,
    params:
        config=frozen,
    shell:
        "exec python -m reid tune --config {params.config:q} --variant {wildcards.variant}"
        " --seed {wildcards.seed} >> {log:q} 2>&1"


rule retrieve:
    input:
        needs("retrieve", "variant", "seed", "protocol"),
    output:
        RESULTS.retrieval("{variant}", "{seed}", "{protocol}"),
    log:
        RESULTS.log("retrieval", "{variant}", "seed{seed}", "{protocol}"),
    benchmark:
        RESULTS.benchmark("retrieval", "{variant}", "seed{seed}", "{protocol}")
    conda:
        "../envs/reid.yaml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem_mb=memory(16384),
        runtime=60,
    params:
        config=frozen,
    shell:
        "exec python -m reid retrieve --config {params.config:q} --variant {wildcards.variant}"
        " --seed {wildcards.seed} --protocol {wildcards.protocol} >> {log:q} 2>&1"


rule submission:
    input:
        needs("submission", "variant", "seed"),
    output:
        RESULTS.submission("{variant}", "{seed}"),
    log:
        RESULTS.log("submission", "{variant}", "seed{seed}"),
    benchmark:
        RESULTS.benchmark("submission", "{variant}", "seed{seed}")
    conda:
        "../envs/reid.yaml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem_mb=memory(16384),
        runtime=60,
    params:
        config=frozen,
    shell:
        "exec python -m reid submission --config {params.config:q} --variant {wildcards.variant}"
        " --seed {wildcards.seed} >> {log:q} 2>&1"
