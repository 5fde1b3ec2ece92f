"""The documentation of the Python API, rendered from the docstrings as `make api` does."""

from pathlib import Path

import pdoc

PUBLIC = {
    "reid.data.index": ("build", "Index"),
    "reid.data.pack": ("pack",),
    "reid.data.dataset": ("TrackletDataset",),
    "reid.encoder": ("TrackletEncoder",),
    "reid.model.network": ("build", "VideoReID", "load_reference_checkpoint"),
    "reid.retrieval.rerank": ("k_reciprocal",),
    "reid.retrieval.metrics": ("evaluate",),
}


def test_public_names_are_documented(tmp_path: Path) -> None:
    pdoc.render.configure(docformat="markdown")
    pdoc.pdoc(*PUBLIC, output_directory=tmp_path)
    for module, names in PUBLIC.items():
        page = tmp_path.joinpath(*module.split(".")).with_suffix(".html").read_text()
        for name in names:
            entry = page.split(f'<section id="{name}">', 1)[1].split("</section>", 1)[0]
            assert 'class="docstring"' in entry, name
