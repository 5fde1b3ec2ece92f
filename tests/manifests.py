"""Manifests for artifacts that a test has put in place itself."""

from reid import provenance
from reid.chain import Chain
from reid.config import Config
from reid.steps import Steps


def describe(config: Config) -> None:
    """Write the manifest of every job whose outputs are there, as if it had just made them."""
    for job in Steps(config):
        if all(path.exists() for path in job.outputs):
            chain = Chain(config)
            chain.write_manifest(job, chain.stamp(job), provenance.facts())
