rule table:
    input:
        metrics(),
    output:
        tables(),
    log:
        f"results/{DATASET}/logs/table.log",
    benchmark:
        f"results/{DATASET}/benchmarks/table.tsv"
    localrule: True
    conda:
        "../envs/reid.yaml"
    params:
        fingerprint=fingerprint("table"),
        config=frozen,
    shell:
        "exec python -m reid table --config {params.config} >> {log} 2>&1"
