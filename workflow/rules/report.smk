rule table:
    input:
        needs("table"),
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
        RESULTS.log("table"),
    benchmark:
        RESULTS.benchmark("table")
    localrule: True
    conda:
        "../envs/reid.yaml"
    params:
        config=frozen,
    shell:
        "exec python -m reid table --config {params.config:q} >> {log:q} 2>&1"


rule report:
    input:
        needs("report"),
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
        RESULTS.log("report"),
    benchmark:
        RESULTS.benchmark("report")
    localrule: True
    conda:
        "../envs/reid.yaml"
    params:
        config=frozen,
    shell:
        "exec python -m reid report --config {params.config:q} >> {log:q} 2>&1"
