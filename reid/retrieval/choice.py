"""The re-ranking parameters that `reid tune` chose for a variant, and whether they still hold."""

from collections.abc import Mapping
from typing import Any

from reid.artefacts import Results
from reid.config import ReRanking
from reid.errors import UserError
from reid.files import read_json, sha256_of_file
from reid.holdout import VALIDATION


def read_choice(results: Results, variant: str, seed: int, options: Mapping[str, Any]) -> ReRanking:
    """The parameters chosen for a variant whose `reid.fingerprint.tune_settings` are `options`.

    Raises UserError when the tuning has not run, or with other options or features than now.
    """
    path = results.tuned(variant, seed)
    command = f"run `reid tune --variant {variant} --seed {seed}`"
    if not path.exists():
        raise UserError(f"{path} does not exist: {command}")
    if reason := outdated(results, variant, seed, options):
        raise UserError(f"{path} {reason}: {command}")
    try:
        return ReRanking(**read_json(path)["chosen"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} names no parameters: {command}") from None


def outdated(results: Results, variant: str, seed: int, options: Mapping[str, Any]) -> str | None:
    """What is wrong with a variant's tuning, to be read after its name.

    None where it holds, where there is no tuning, and as to features that are gone.
    """
    path = results.tuned(variant, seed)
    if not path.exists():
        return None
    try:
        content = read_json(path)
        made, digest = content["options"], content["features"]["sha256"]
        others = [key for key, value in options.items() if made.get(key) != value]
    except UserError:
        return "is damaged"
    except (KeyError, TypeError, AttributeError):
        return "does not say what it was made with"
    if others:
        return f"was made with other options ({', '.join(others)})"
    features = results.features(options["training"], seed, VALIDATION)
    if features.exists() and sha256_of_file(features) != digest:
        return "was made of other features"
    return None
