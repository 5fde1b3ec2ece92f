# rejected.csv and summary.json are no outputs: they must survive a failure, which they explain.
rule index:
    input:
        rendered_dataset(),
    output:
        expand("results/{{dataset}}/index/{split}.parquet", split=("train", *PROTOCOLS)),
    log:
        "results/{dataset}/logs/index.log",
    benchmark:
        "results/{dataset}/benchmarks/index.tsv"
    conda:
        "../envs/reid.yaml"
    threads: 8
    resources:
        cpus_per_task=8,
        mem_mb=memory(8192),
        runtime=240,
    params:
        fingerprint=fingerprint("index"),
        stamp=dataset_stamp,
        config=frozen,
    shell:
        "exec python -m reid index --config {params.config} >> {log} 2>&1"
