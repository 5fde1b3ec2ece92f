"""The ablation table (Table 6): measured beside the paper, as csv, md, tex and text."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reid.chain import NOT_RUN, Chain
from reid.config import Config
from reid.files import write_text
from reid.paths import Results
from reid.report.collect import AblationRow, ablation_rows, measured, one_line

PAPER_PROTOCOLS = {"A2G": 46.69, "G2A": 41.23, "A2A": 22.98}
"""mAP of the paper's last row by protocol, from its public abstract, in per cent."""
PAPER_SCORE = 35.73
CHALLENGE_WINNER = 32.89
MEANS = {"macro": "Macro (Eq. 5)", "micro": "Micro"}
"""Mean over protocols -> its column."""
SYMBOLS = {"±": r"$\pm$", "Δ": r"$\Delta$", "λ": r"$\lambda$"}
"""What LaTeX has no letter for."""
SEPARATING_LINE = "\001"
"""tabulate draws a line for a row that holds this."""
GROUP = ["variant", "seed", "protocol", "attribute", "side", "group", "queries", "identities"]
QUALITY = ["mAP", "rank1", "mAP_low", "mAP_high", "rank1_low", "rank1_high"]
"""Columns of the breakdown."""


def run(config: Config) -> None:
    """Write the table in its three formats and the breakdown, and print the table."""
    rows, chain = ablation_rows(config), Chain(config)
    results, notes = Results.of(config), list(footnotes(config, rows))
    with chain.record(chain.steps.table(), with_gaps=True):
        write_text(results.table("csv"), scores(rows).round(4).to_csv(index=False))
        write_text(results.breakdown(), breakdown(rows).to_csv(index=False))
        write_text(results.table("md"), as_markdown(rows, notes))
        write_text(results.table("tex"), as_latex(rows, notes))
    print(as_text(rows, notes), end="")


def in_order(rows: Sequence[AblationRow]) -> list[AblationRow]:
    """Rows of the ablation, then the references."""
    return sorted(rows, key=lambda row: row.variant.reference)


def places(row: AblationRow) -> dict[str, str]:
    """Protocols and means over them -> their columns."""
    return dict(zip(row.protocols, row.protocols, strict=True)) | MEANS


def ablation(rows: Sequence[AblationRow]) -> pd.DataFrame:
    """The table as text: a line for each of `in_order(rows)`, then a random ranking if measured."""
    ordered = in_order(rows)
    lines = [
        {"Variant": row.label, **{text: percent(row, place) for place, text in places(row).items()}}
        for row in ordered
    ]
    table = pd.DataFrame(lines, dtype=str)
    paper = pd.Series([row.variant.paper for row in ordered], dtype=float)
    macro = pd.Series([row.spread("macro").mean for row in ordered])
    table["Paper"] = _texts(paper, "{:.2f}")
    table["Δ"] = _texts(macro - macro[0], "{:+.2f}")
    table["Paper Δ"] = _texts(paper - paper[0], "{:+.2f}")
    complete = [row for row in rows if row.spread("macro", "chance").seeds]
    for row in complete[:1]:
        chance = {text: row.spread(place, "chance").mean for place, text in places(row).items()}
        texts = {text: f"{mean:.2f}" for text, mean in chance.items()}
        table.loc[len(table)] = pd.Series({"Variant": "Random ranking (expected)", **texts})
    return table.fillna("")


def _texts(values: pd.Series, form: str) -> list[str]:
    return ["" if np.isnan(value) else form.format(value) for value in values]


def percent(row: AblationRow, place: str, score: str = "mean_ap") -> str:
    """A score in per cent with two digits, and its spread over seeds."""
    spread = row.spread(place, score)
    if spread.seeds == 0:
        return NOT_RUN
    text = f"{spread.mean:.2f}"
    if spread.seeds > 1:
        text += f" ± {spread.deviation:.2f}"
    if spread.seeds < len(row.seeds):
        text += f" ({spread.seeds}/{len(row.seeds)} seeds)"
    return text


def interval(row: AblationRow, protocol: str, digits: int) -> str:
    """The 95 % interval of mAP in per cent, mean of each end over seeds; empty without one."""
    low, high = (row.spread(protocol, end) for end in ("low", "high"))
    return f"{low.mean:.{digits}f} to {high.mean:.{digits}f}" if low.seeds else ""


def scores(rows: Sequence[AblationRow]) -> pd.DataFrame:
    """Every number in full: per protocol and averaged, mean and standard deviation, in per cent."""
    lines = []
    for row in rows:
        line: dict[str, object] = {
            "variant": row.name,
            "label": row.label,
            "training": row.variant.training,
            "reference": str(row.variant.reference).lower(),
            "seeds": f"{row.spread('macro').seeds}/{len(row.seeds)}",
            "paper": row.variant.paper,
        }
        for score in ("mean_ap", "trapezoid", "rank1", "without_rerank"):
            for place in places(row):
                spread = row.spread(place, score)
                line[f"{place}_{score}"] = spread.mean
                line[f"{place}_{score}_std"] = spread.deviation
        for score in ("low", "high", "chance"):
            for protocol in row.protocols:
                line[f"{protocol}_{score}"] = row.spread(protocol, score).mean
        line["manifests"] = " ".join(m.manifest.as_posix() for m in row.measurements.values())
        lines.append(line)
    return pd.DataFrame(lines)


def breakdown(rows: Sequence[AblationRow]) -> pd.DataFrame:
    """One line for every group of every measurement; shares, not per cent."""
    lines = []
    for row in rows:
        for (seed, protocol), measurement in row.measurements.items():
            for entry in measurement.content["breakdown"]:
                line = {"variant": row.name, "seed": seed, "protocol": protocol, **entry}
                for value in ("mAP", "rank1"):
                    ends = entry[f"{value}_interval"] or (None, None)
                    line |= {f"{value}_low": ends[0], f"{value}_high": ends[1]}
                lines.append(line)
    return pd.DataFrame(lines, columns=GROUP + QUALITY).astype(dict.fromkeys(QUALITY, float))


def as_markdown(rows: Sequence[AblationRow], notes: Sequence[str]) -> str:
    """A table for a README, reference rows in italics."""
    table, measured_rows = ablation(rows), _before_references(rows)
    labels = table["Variant"].map(_markdown)
    table["Variant"] = labels.where(table.index < measured_rows, "*" + labels + "*")
    bullets = "\n".join(f"- {_markdown(note)}" for note in notes)
    return f"{_tabulated(table, 'pipe')}\n\n{bullets}\n"


def as_latex(rows: Sequence[AblationRow], notes: Sequence[str]) -> str:
    """A booktabs tabular, a rule before the references, with the notes below it as comments."""
    text = _tabulated(_separated(rows), "latex_booktabs")
    for symbol, command in SYMBOLS.items():
        text = text.replace(symbol, command)
    return "\n".join([text, "", *(f"% {note}" for note in notes)]) + "\n"


def as_text(rows: Sequence[AblationRow], notes: Sequence[str]) -> str:
    """The table for a terminal, a line before the references."""
    return "\n".join([_tabulated(_separated(rows), "simple"), "", *notes]) + "\n"


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
    yield from (f"{r.label}: {one_line(r.variant.note)}" for r in rows if r.variant.note)
    for row in rows:
        for reason, where in row.reasons().items():
            yield f"{row.label}, {', '.join(where)}: {reason}."
    seeds = rows[0].seeds
    if len(seeds) > 1:
        yield f"Mean ± sample standard deviation over the seeds {', '.join(map(str, seeds))}."
    for row in measured(rows)[-1:]:  # the csv has the intervals of every row
        if texts := [f"{p} {text}" for p in row.protocols if (text := interval(row, p, 2))]:
            of = "mean over its seeds of each end: " if len(seeds) > 1 else ""
            yield (
                f"95 % intervals of mAP, bootstrap over query identities, {row.label}: "
                f"{of}{', '.join(texts)} (all rows: csv)."
            )
    yield from check_lines(config, rows)


def check_lines(config: Config, rows: Sequence[AblationRow]) -> Iterator[str]:
    """For each training whose backbone has a reference: on how many protocols its features beat
    the reference and chance.

    Compared without re-ranking, as the references are.
    """
    backbones = {row.name: config.trainings[row.variant.training].backbone for row in rows}
    references = {backbones[row.name]: row for row in rows if row.variant.reference}
    verdicts: dict[str, tuple[bool | None, str]] = {}
    for row in rows:
        training, reference = row.variant.training, references.get(backbones[row.name])
        if row.variant.reference or reference is None or training in verdicts:
            continue
        trained, chance = (_by_protocol(row, score) for score in ("without_rerank", "chance"))
        plain, total = _by_protocol(reference, "without_rerank"), len(row.protocols)
        better, lucky = np.sum(trained > plain), np.sum(trained > chance)
        verdicts[training] = None, f"{training} not measured"
        if not np.isnan([trained, plain, chance]).any():
            passed = bool(better >= min(2, total) and lucky == total)
            verdicts[training] = passed, f"{training} {better}/{total} and {lucky}/{total}"
    if verdicts:
        passes, texts = zip(*verdicts.values(), strict=True)
        answer = "NO" if False in passes else "not yet known" if None in passes else "yes"
        yield (
            f"Check: every training beats plain CLIP on at least two protocols and chance on all: "
            f"{answer} ({'; '.join(texts)}; features without re-ranking)."
        )


def _by_protocol(row: AblationRow, score: str) -> NDArray[np.float64]:
    return np.array([row.spread(protocol, score).mean for protocol in row.protocols])


def _separated(rows: Sequence[AblationRow]) -> pd.DataFrame:
    """The table with a line before the references, or where these would stand."""
    table, end = ablation(rows), _before_references(rows)
    line = pd.DataFrame([[SEPARATING_LINE] * table.shape[1]], columns=table.columns)
    return pd.concat([table[:end], line, table[end:]])


def _before_references(rows: Sequence[AblationRow]) -> int:
    return sum(not row.variant.reference for row in rows)


def _tabulated(table: pd.DataFrame, form: str) -> str:
    """A table of texts: the first column to the left, the others to the right."""
    aligned = ("left", *["right"] * (table.shape[1] - 1))
    text = table.to_markdown(index=False, tablefmt=form, colalign=aligned, disable_numparse=True)
    return str(text)


def _markdown(text: str) -> str:
    r"""A text with what Markdown would read as markup escaped; `code` stays."""
    return re.sub(r"([\\*_<~|\[])", r"\\\1", text)
