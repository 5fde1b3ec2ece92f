rule table:
    input:
        metrics(),
    output:
        report(
            Results.of(DATASET).table("csv"),
            caption="../report/ablation.rst",
            category="Tables",
            labels={"table": "ablation"},
        ),
        report(
            Results.of(DATASET).breakdown(),
            caption="../report/breakdown.rst",
            category="Tables",
            labels={"table": "by capture conditions"},
        ),
        Results.of(DATASET).table("md"),
        Results.of(DATASET).table("tex"),
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
        metrics(),
        tables(),
    output:
        report(
            page(),
            caption="../report/page.rst",
            category="Report",
            labels={"page": "the whole report"},
        ),
        report(
            directory(Results.of(DATASET).figures()),
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
