"""The re-ranking parameters that `reid tune` chose for a variant, and whether they still hold."""

from reid.config import Config, ReRanking
from reid.data.holdout import VALIDATION
from reid.errors import UserError
from reid.files import read_json, sha256_of_file
from reid.fingerprint import tune_settings
from reid.paths import Results


def reranking(config: Config, variant: str, seed: int) -> ReRanking | None:
    """What a variant re-ranks with: what it says, or what was chosen for it; None for nothing.

    Raises UserError when the tuning has not run, or with other options or features than now.
    """
    options = config.variants[variant]
    if not options.tuned:
        return options.rerank
    path = Results.of(config.dataset.name).tuned(variant, seed)
    command = f"run `reid tune --variant {variant} --seed {seed}`"
    if not path.exists():
        raise UserError(f"{path} does not exist: {command}")
    if reason := outdated(config, variant, seed):
        raise UserError(f"{path} {reason}: {command}")
    try:
        return ReRanking(**read_json(path)["chosen"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} names no parameters: {command}") from None


def outdated(config: Config, variant: str, seed: int) -> str | None:
    """What is wrong with a variant's tuning, to be read after its name.

    None where it holds, where there is no tuning, and as to features that are gone.
    """
    results, options = Results.of(config.dataset.name), tune_settings(config, variant)
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
