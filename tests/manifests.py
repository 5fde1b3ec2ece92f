"""Manifests for artifacts that a test has put in place itself."""

from reid import provenance
from reid.chain import Chain
from reid.config import Config
from reid.steps import ENTRIES, Steps


def describe(config: Config, *steps: str) -> None:
    """Write the manifest of every job whose outputs are there, as if it had just made them.

    With names of steps: only of theirs.
    """
    made = provenance.facts()
    for job in Steps(config):
        if job.step in (steps or ENTRIES) and all(path.exists() for path in job.outputs):
            chain = Chain(config)
            chain.write_manifest(job, chain.stamp(job), made)
