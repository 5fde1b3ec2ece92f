"""Numbers for people whose names may be any text."""

from collections.abc import Callable, Iterable

from reid.data.layout import GrammarError, parse_identity


def number_identities(names: Iterable[str]) -> Callable[[str], int]:
    """The number of a name: the name itself if all are integers, else its rank among all."""
    every = sorted(set(names))
    try:
        numbers = {name: parse_identity(name) for name in every}
    except GrammarError:
        numbers = {name: rank for rank, name in enumerate(every)}
    return numbers.__getitem__
