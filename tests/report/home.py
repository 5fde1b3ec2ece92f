"""A working directory with a small experiment, really run: two trainings, tuning, a row not run."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from reid import config
from reid.chain import Chain
from reid.cli import main
from reid.config import Config
from tests.clips import TINY, state_dict
from tests.trees import make_tree

SETTINGS: dict[str, Any] = {
    "dataset": {"name": "little", "root": "data"},
    "backbones": {"tiny": {"weights": "tiny.safetensors"}},
    "trainings": {
        "mean": {
            "backbone": "tiny",
            "clip": {"frames": 3, "height": 32, "width": 16},
            "model": {"prompts": {"depth": 2, "length": 1}, "adapters": {"width": 64}},
            "stage1": {"epochs": 2, "batch_size": 4, "instances": 2},
            "stage2": {"epochs": 2, "batch_size": 4, "instances": 2},
        },
        "pooled": {
            "extends": "mean",
            "model": {"pooling": {"kind": "attention"}},
            "validation": {"share": 0.5},
        },
        "later": {"extends": "mean", "stage2": {"epochs": 7}},
    },
    "variants": {
        "plain": {
            "training": "mean",
            "label": "Plain",
            "reference": True,
            "rerank": {"k1": 3, "k2": 2, "lambda_value": 0.3},
        },
        "mean": {"training": "mean", "label": "Mean <pooling>", "paper": 28.11},
        "pooled": {
            "training": "pooled",
            "label": "+ Attention",
            "rerank": {"k1": 3, "k2": 2, "lambda_value": 0.3},
            "paper": 29.71,
        },
        "tuned": {"training": "pooled", "label": "+ Tuned", "rerank": "tuned"},
        "later": {"training": "later", "label": "+ Later"},
    },
    "tune": {"k1": [2, 3], "k2": [1, 2], "lambda_values": [0.2, 0.8]},
    "report": {"variant": "pooled", "attention_tracklets": 12, "queries": 1},
    "runtime": {"workers": 0, "device": "cpu", "tensorboard": False},
}
PROTOCOLS = ("A2G", "G2A", "A2A")


def parsed(**changes: Any) -> Config:
    """The configuration, with other entries of its report section."""
    raw = {**SETTINGS, "report": {**SETTINGS["report"], **changes}}
    return config.parse(raw, source="test")


def work(training: str, stage: int) -> Path:
    """Where the trainer kept curves and attempts."""
    chain = Chain(parsed())
    return chain.work(chain.steps.stage(training, 1, stage))


def make_home(home: Path) -> None:
    """Fill `home`, the working directory, by the real verbs."""
    make_tree(home / "data", train=4, test=3, tracklets=2, frames=4)
    save_file(state_dict(TINY), home / "tiny.safetensors")
    (home / "config.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
    verbs = ["index"]
    for name, splits in {"mean": PROTOCOLS, "pooled": (*PROTOCOLS, "validation")}.items():
        verbs += [f"train {stage} --training {name} --seed 1" for stage in ("stage1", "stage2")]
        verbs += [f"extract --training {name} --seed 1 --protocol {split}" for split in splits]
    verbs.append("tune --variant tuned --seed 1")
    for name, protocol in product(("plain", "mean", "pooled", "tuned"), PROTOCOLS):
        verbs.append(f"retrieve --variant {name} --seed 1 --protocol {protocol}")
    for verb in (*verbs, "table"):
        assert main([*verb.split(), "--config", "config.yaml"]) == 0, verb


@contextmanager
def without(path: Path) -> Iterator[None]:
    """Hide a file or folder for the time being."""
    hidden = path.with_name(f"{path.name}.hidden")
    path.rename(hidden)
    try:
        yield
    finally:
        hidden.replace(path)


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """Put other content in a file for the time being."""
    with without(path):
        path.write_bytes(content)
        yield


def csv_rows(path: Path) -> list[dict[str, str]]:
    """Lines of a csv by the names of its columns."""
    with path.open(newline="") as opened:
        return list(csv.DictReader(opened))


class Page(HTMLParser):
    """What a test wants to know of a page: cells of its tables, addresses, tags, text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.cells: dict[tuple[str, str, str], str] = {}
        """(table, label of the row, column) -> text, the two lines of a cell joined by a space."""
        self.addresses: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._table = self._row = self._tag = self._column = ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.addresses += [value for name in ("src", "href") if (value := attributes.get(name))]
        if attributes.get("role") == "region":
            self._table = attributes["aria-label"] or ""
        if tag in ("th", "td"):
            self._tag, self._column = tag, attributes.get("data-label") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._tag = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._tag == "th":
            self._row = data
        if self._tag == "td":
            place = self._table, self._row, self._column
            self.cells[place] = f"{self.cells.get(place, '')} {data}".strip()
