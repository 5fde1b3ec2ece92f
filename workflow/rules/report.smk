rule table:
    input:
        METRICS,
    output:
        report(
            RESULTS.table("csv"),
            caption="../report/ablation.rst",
            category="Tables",
            labels={"table": "ablation"},
        ),
        report(
            RESULTS.breakdown(),
            caption="../report/breakdown.rst",
            category="Tables",
            labels={"table": "by capture conditions"},
        ),
        RESULTS.table("md"),
        RESULTS.table("tex"),
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


rule report:
    input:
        METRICS,
        TABLES,
    output:
        report(
            RESULTS.report(),
            caption="../report/page.rst",
            category="Report",
            labels={"page": "the whole report"},
        ),
        report(
            directory(RESULTS.figures()),
            patterns=["{figure}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"results/{DATASET}/logs/report.log",
    benchmark:
        f"results/{DATASET}/benchmarks/report.tsv"
    localrule: True
    conda:
        "../envs/reid.yaml"
    params:
        fingerprint=fingerprint("report"),
        config=frozen,
    shell:
        "exec python -m reid report --config {params.config} >> {log} 2>&1"
