# rejected.csv and summary.json are no outputs: they must survive a failure, which they explain.
rule index:
    input:
        needs("index"),
    output:
        [RESULTS.index(split) for split in ("train", *PROTOCOLS)],
    log:
        RESULTS.log("index"),
    benchmark:
        RESULTS.benchmark("index")
    conda:
        "../envs/reid.yaml"
    threads: 8
    resources:
        cpus_per_task=8,
        mem_mb=memory(8192),
        runtime=240,
    params:
        config=frozen,
    shell:
        "exec python -m reid index --config {params.config:q} >> {log:q} 2>&1"
