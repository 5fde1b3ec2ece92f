"""The documentation of the Python API, rendered from the docstrings as `make api` does."""

from pathlib import Path

import pdoc
import pytest

PUBLIC = {
    "reid.data.index": ("build", "Index"),
    "reid.data.pack": ("pack",),
    "reid.data.dataset": ("TrackletDataset",),
    "reid.encoder": ("TrackletEncoder",),
    "reid.model.network": ("build", "VideoReID", "load_reference_checkpoint"),
    "reid.retrieval.rerank": ("k_reciprocal",),
    "reid.retrieval.metrics": ("evaluate",),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    pdoc.render.configure(docformat="markdown")
    pdoc.pdoc(*PUBLIC, output_directory=folder)
    return folder


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_documented(pages: Path, module: str) -> None:
    page = pages.joinpath(*module.split(".")).with_suffix(".html").read_text()
    for name in PUBLIC[module]:
        entry = page.split(f'<section id="{name}">', 1)[1].split("</section>", 1)[0]
        assert 'class="docstring"' in entry, name
