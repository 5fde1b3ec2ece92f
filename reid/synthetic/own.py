"""Which folder is one that `reid demo-data` rendered: no other is ever replaced."""

from pathlib import Path

from reid.errors import UserError

MANIFEST = ".xfd-demo.json"
"""In a rendered folder: with which settings, and how many crops."""
STAMP = ".xfd-demo.rendered"
"""Beside it, for Snakemake, which deletes what a rule makes before it runs the rule again."""


def holds_render(root: Path) -> bool:
    """Whether a render lies at `root`; False where nothing does.

    Raises UserError when `root` is anything else, which is not ours to delete.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / MANIFEST).is_file():
        raise UserError(
            f"{root} holds something that `reid demo-data` did not make: set dataset.root to a new "
            "folder, or leave the `demo` section out to use the data that is there"
        )
    return True
