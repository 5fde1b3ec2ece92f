rule index:
    input:
        rendered_dataset(),
    output:
        expand("results/{{dataset}}/index/{split}.parquet", split=("train", *PROTOCOLS)),
        "results/{dataset}/index/rejected.csv",
        "results/{dataset}/index/summary.json",
    log:
        "results/{dataset}/logs/index.log",
    benchmark:
        "results/{dataset}/benchmarks/index.tsv"
    conda:
        "xfd-reid"
    params:
        fingerprint=fingerprint("index"),
        stamp=dataset_stamp,
        config=frozen,
    shell:
        "exec python -m reid index --config {params.config} >> {log} 2>&1"
