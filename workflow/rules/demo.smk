from reid.synthetic.marks import demand_tiny_clip, holds_render

# Before Snakemake deletes any output: are these files ours?
try:
    holds_render(SETTINGS.dataset.root)
    for backbone in SETTINGS.backbones.values():
        if backbone.weights.startswith("resources/demo/weights/"):
            demand_tiny_clip(Path(backbone.weights))
except UserError as error:
    raise WorkflowError(error) from None
except OSError as error:
    raise WorkflowError(of_system(error)) from None


# No folder is the output: Snakemake deletes outputs, and would delete what lay there before.
rule demo_data:
    input:
        needs("demo_data"),
    output:
        at(STEPS.demo_data().manifest),
    log:
        RESULTS.log("demo_data"),
    benchmark:
        RESULTS.benchmark("demo_data")
    conda:
        "../envs/reid.yaml"
    threads: 2
    resources:
        cpus_per_task=2,
        mem_mb=memory(8192),
        runtime=60,
    params:
        config=frozen,
    shell:
        "exec python -m reid demo-data --config {params.config:q} >> {log:q} 2>&1"


rule demo_weights:
    input:
        RESULTS.stamp("demo_weights", "{file}"),
    output:
        at("resources/demo/weights/{file}.safetensors"),
    log:
        RESULTS.log("demo_weights", "{file}"),
    benchmark:
        RESULTS.benchmark("demo_weights", "{file}")
    conda:
        "../envs/reid.yaml"
    threads: 2
    resources:
        cpus_per_task=2,
        mem_mb=memory(8192),
        runtime=60,
    params:
        config=frozen,
        backbone=backbone_of_demo_weights,
    shell:
        "exec python -m reid demo-weights --config {params.config:q}"
        " --backbone {params.backbone:q} >> {log:q} 2>&1"
