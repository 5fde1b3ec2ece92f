"""The ablation table (Table 6): measured beside the paper, as csv, md, tex and text."""

import re
from collections.abc import Iterator, Sequence

import pandas as pd

from reid.config import Config
from reid.files import write_text
from reid.paths import Results
from reid.report.collect import NOT_RUN, AblationRow, Spread, ablation_rows, one_line

PAPER_PROTOCOLS = {"A2G": 46.69, "G2A": 41.23, "A2A": 22.98}
"""mAP of the paper's last row by protocol, from its public abstract, in per cent."""
PAPER_SCORE = 35.73
CHALLENGE_WINNER = 32.89
MEANS = {"macro": "Macro (Eq. 5)", "micro": "Micro"}
"""Mean over protocols -> its column."""
_COMMANDS = ("asciicircum", "asciitilde", "backslash")
SYMBOLS = {"±": r"$\pm$", "Δ": r"$\Delta$", "λ": r"$\lambda$"} | {
    rf"\text{name} ": rf"\text{name}{{}}" for name in _COMMANDS
}
"""What LaTeX has no letter for, and what pandas writes in a form that eats a space."""
SEPARATING_LINE = "\001"
"""tabulate draws a line for a row that holds this."""


def run(config: Config) -> None:
    """Write the table in its three formats and the breakdown, and print the table."""
    rows = ablation_rows(config)
    results = Results.of(config.dataset.name)
    notes = list(footnotes(config, rows))
    write_text(results.table("csv"), _csv(scores(rows).round(4)))
    write_text(results.breakdown(), _csv(breakdown(rows)))
    write_text(results.table("md"), as_markdown(rows, notes))
    write_text(results.table("tex"), as_latex(rows, notes))
    print(as_text(rows, notes), end="")


def in_order(rows: Sequence[AblationRow]) -> list[AblationRow]:
    """Rows of the ablation, then the references."""
    return sorted(rows, key=lambda row: row.variant.reference)


def ablation(rows: Sequence[AblationRow]) -> pd.DataFrame:
    """The table as text: a line for each of `in_order(rows)`, then a random ranking if measured."""
    ordered = in_order(rows)
    base, paper_base = _macro(ordered[0]), ordered[0].variant.paper
    lines = []
    for row in ordered:
        paper = row.variant.paper
        lines.append(
            {
                "Variant": row.label,
                **{protocol: percent(row, protocol) for protocol in row.protocols},
                **{column: percent(row, mean) for mean, column in MEANS.items()},
                "Paper": "" if paper is None else f"{paper:.2f}",
                "Δ": _gain(_macro(row), base),
                "Paper Δ": _gain(paper, paper_base),
            }
        )
    for row in rows:  # of the first that was measured whole
        if row.spread("macro", "chance"):
            columns = {**{protocol: protocol for protocol in row.protocols}, **MEANS}
            spreads = {text: row.spread(place, "chance") for place, text in columns.items()}
            chances = {text: f"{100 * s.mean:.2f}" for text, s in spreads.items() if s}
            lines.append({"Variant": "Random ranking (expected)", **chances})
            break
    return pd.DataFrame(lines, dtype=str).fillna("")


def _macro(row: AblationRow) -> float | None:
    macro = row.spread("macro")
    return 100 * macro.mean if macro else None


def _gain(value: float | None, base: float | None) -> str:
    return "" if value is None or base is None else f"{value - base:+.2f}"


def percent(row: AblationRow, place: str, score: str = "mean_ap") -> str:
    """A score in per cent with two digits, and its spread over seeds."""
    spread = row.spread(place, score)
    if spread is None:
        return NOT_RUN
    text = f"{100 * spread.mean:.2f}"
    if spread.deviation is not None:
        text += f" ± {100 * spread.deviation:.2f}"
    if spread.seeds < len(row.seeds):
        text += f" ({spread.seeds}/{len(row.seeds)} seeds)"
    return text


def interval(row: AblationRow, protocol: str, digits: int) -> str:
    """The 95 % interval of mAP in per cent, mean of each end over seeds; empty without one."""
    low, high = row.spread(protocol, "low"), row.spread(protocol, "high")
    if low is None or high is None:
        return ""
    return f"{100 * low.mean:.{digits}f} to {100 * high.mean:.{digits}f}"


def scores(rows: Sequence[AblationRow]) -> pd.DataFrame:
    """Every number in full: per protocol and averaged, mean and standard deviation, in per cent."""
    lines = []
    for row in rows:
        macro = row.spread("macro")
        line: dict[str, object] = {
            "variant": row.name,
            "label": row.label,
            "training": row.variant.training,
            "reference": str(row.variant.reference).lower(),
            "seeds": f"{macro.seeds if macro else 0}/{len(row.seeds)}",
            "paper": row.variant.paper,
        }
        for score in ("mean_ap", "trapezoid", "rank1", "without_rerank"):
            for place in (*row.protocols, *MEANS):
                spread = row.spread(place, score) or Spread(float("nan"), None, 0)
                line[f"{place}_{score}"] = 100 * spread.mean
                line[f"{place}_{score}_std"] = spread.deviation and 100 * spread.deviation
        for score in ("low", "high", "chance"):
            for protocol in row.protocols:
                plain = row.spread(protocol, score)
                line[f"{protocol}_{score}"] = plain and 100 * plain.mean
        line["manifests"] = " ".join(path.as_posix() for path in row.manifests)
        lines.append(line)
    return pd.DataFrame(lines)


def breakdown(rows: Sequence[AblationRow]) -> pd.DataFrame:
    """One line for every group of every measurement; shares, not per cent."""
    place = ["variant", "seed", "protocol"]
    group = ["attribute", "side", "group", "queries", "identities", "mAP", "rank1"]
    bounds = [f"{value}_{end}" for value in ("mAP", "rank1") for end in ("low", "high")]
    lines = []
    for row in rows:
        for (seed, protocol), measurement in row.measurements.items():
            for entry in measurement.content["breakdown"]:
                ends = (entry[f"{v}_interval"] or (None, None) for v in ("mAP", "rank1"))
                values = (end for both in ends for end in both)
                lines.append([row.name, seed, protocol, *(entry[key] for key in group), *values])
    frame = pd.DataFrame(lines, columns=[*place, *group, *bounds])
    return frame.astype(dict.fromkeys(("mAP", "rank1", *bounds), float))


def as_markdown(rows: Sequence[AblationRow], notes: Sequence[str]) -> str:
    """A table for a README, reference rows in italics."""
    frame, first_reference = ablation(rows), _first_reference(rows)
    labels = frame["Variant"].map(_markdown)
    frame["Variant"] = labels.where(frame.index < first_reference, "*" + labels + "*")
    bullets = "\n".join(f"- {_markdown(note)}" for note in notes)
    return f"{_tabulated(frame, 'pipe')}\n\n{bullets}\n"


def as_latex(rows: Sequence[AblationRow], notes: Sequence[str]) -> str:
    """A booktabs tabular with the notes below it as comments."""
    frame, first_reference = ablation(rows), _first_reference(rows)
    aligned = "l" + "r" * (frame.shape[1] - 1)
    lines = frame.to_latex(index=False, escape=True, column_format=aligned).splitlines()
    lines.insert(lines.index(r"\midrule") + 1 + first_reference, r"\midrule")
    text = "\n".join(lines)
    for symbol, command in SYMBOLS.items():
        text = text.replace(symbol, command)
    return "\n".join([text, "", *(f"% {note}" for note in notes)]) + "\n"


def as_text(rows: Sequence[AblationRow], notes: Sequence[str]) -> str:
    """The table for a terminal."""
    frame, first_reference = ablation(rows), _first_reference(rows)
    line = pd.DataFrame([[SEPARATING_LINE] * frame.shape[1]], columns=frame.columns)
    parts = [frame[:first_reference], line, frame[first_reference:]]
    return "\n".join([_tabulated(pd.concat(parts), "simple"), "", *notes]) + "\n"


def footnotes(config: Config, rows: Sequence[AblationRow]) -> Iterator[str]:
    """What must be read with the numbers: rules, comparators, gaps, checks, notes of variants."""
    yield (
        "mAP in %; AP by the standard (rectangle) rule, same identity and camera is junk. "
        "Macro is Eq. 5, the mean over protocols; Micro weights each protocol by its queries. "
        "The published overall scores fit the micro mean."
    )
    protocols = ", ".join(f"{name} {value:.2f}" for name, value in PAPER_PROTOCOLS.items())
    mean = sum(PAPER_PROTOCOLS.values()) / len(PAPER_PROTOCOLS)
    yield (
        f"The paper's last row by protocol: {protocols}; their mean is {mean:.2f}, the paper "
        f"prints {PAPER_SCORE:.2f}. DetReIDXv1 challenge winner: {CHALLENGE_WINNER:.2f}."
    )
    if config.dataset.name != "detreidx":
        yield (
            f"The paper's figures are for DetReIDX; this table is for {config.dataset.name}: "
            "its numbers do not compare with them."
        )
    for row in rows:
        if row.variant.note:
            yield f"{row.label}: {one_line(row.variant.note)}"
    for row in rows:
        for reason, places in row.reasons().items():
            yield f"{row.label}, {', '.join(places)}: {reason}."
    seeds = rows[0].seeds
    if len(seeds) > 1:
        yield f"Mean ± sample standard deviation over the seeds {', '.join(map(str, seeds))}."
    yield from _interval_note(rows)
    yield from check_lines(config, rows)


def check_lines(config: Config, rows: Sequence[AblationRow]) -> Iterator[str]:
    """For each training whose backbone has a reference: on how many protocols its features beat
    the reference and chance.

    Compared without re-ranking, as the references are.
    """
    backbones = {row.name: config.trainings[row.variant.training].backbone for row in rows}
    references = {backbones[row.name]: row for row in rows if row.variant.reference}
    verdicts: dict[str, str] = {}
    passed: list[bool | None] = []
    for row in rows:
        training, reference = row.variant.training, references.get(backbones[row.name])
        if row.variant.reference or reference is None or training in verdicts:
            continue
        triples = [
            (own.mean, base.mean, chance.mean)
            for protocol in row.protocols
            if (own := row.spread(protocol, "without_rerank"))
            and (base := reference.spread(protocol, "without_rerank"))
            and (chance := row.spread(protocol, "chance"))
        ]
        beaten = sum(own > base for own, base, _ in triples)
        lucky = sum(own > chance for own, _, chance in triples)
        total = len(row.protocols)
        known = len(triples) == total
        passed.append(beaten >= min(2, total) and lucky == total if known else None)
        counts = f"{beaten}/{total} and {lucky}/{total}" if known else "not measured"
        verdicts[training] = f"{training} {counts}"
    if verdicts:
        answer = "NO" if False in passed else "not yet known" if None in passed else "yes"
        yield (
            f"Check: every training beats plain CLIP on at least two protocols and chance on all: "
            f"{answer} ({'; '.join(verdicts.values())}; features without re-ranking)."
        )


def _interval_note(rows: Sequence[AblationRow]) -> Iterator[str]:
    """Intervals of the last ablation row that was measured; the csv has those of every row."""
    for row in reversed([row for row in rows if not row.variant.reference]):
        texts = [f"{p} {text}" for p in row.protocols if (text := interval(row, p, 2))]
        if texts:
            of = "mean over its seeds of each end: " if len(row.seeds) > 1 else ""
            yield (
                f"95 % intervals of mAP, bootstrap over query identities, {row.label}: "
                f"{of}{', '.join(texts)} (all rows: csv)."
            )
            return


def _first_reference(rows: Sequence[AblationRow]) -> int:
    return sum(not row.variant.reference for row in rows)


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")


def _tabulated(frame: pd.DataFrame, form: str) -> str:
    """A frame of texts by tabulate: the first column to the left, the others to the right."""
    aligned = ("left", *["right"] * (frame.shape[1] - 1))
    text = frame.to_markdown(index=False, tablefmt=form, colalign=aligned, disable_numparse=True)
    return str(text)


def _markdown(text: str) -> str:
    r"""A text with what Markdown would read as markup escaped; `code` stays."""
    return re.sub(r"([\\*_<~|\[])", r"\\\1", text)
