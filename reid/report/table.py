"""The ablation table (Table 6): measured beside the paper, as csv, md, tex and text."""

import csv
import io
import math
from collections.abc import Iterator, Sequence

from reid.artifacts import Results
from reid.config import Config
from reid.files import write_text
from reid.report.cells import Cell, Row, Spread, collect, percent

PAPER_PROTOCOLS = {"A2G": 46.69, "G2A": 41.23, "A2A": 22.98}
"""mAP of the paper's last row by protocol, from its public abstract, in per cent."""
PAPER_SCORE = 35.73
CHALLENGE_WINNER = 32.89
_LATEX = str.maketrans(
    {"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "±": r"$\pm$", "Δ": r"$\Delta$"}
)


def run(config: Config) -> None:
    """Write the table in its three formats and the breakdown, and print the table."""
    rows = collect(config)
    results = Results.of(config.dataset.name)
    notes = list(footnotes(config, rows))
    write_text(results.table("csv"), as_csv(rows))
    write_text(results.breakdown(), breakdown_csv(rows))
    write_text(results.table("md"), as_markdown(rows, notes))
    write_text(results.table("tex"), as_latex(rows, notes))
    print(as_text(rows, notes), end="")


def cells_of(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], int]:
    """Header, body and the number of ablation rows; reference rows follow them in the body."""
    protocols = rows[0].protocols
    header = ["Variant", *protocols, "Macro (Eq. 5)", "Micro", "Paper", "Δ", "Paper Δ"]
    ablation = [row for row in rows if not row.variant.reference]
    references = [row for row in rows if row.variant.reference]
    first = ablation[0] if ablation else None
    body = []
    for row in (*ablation, *references):
        macro = row.macro()
        base = first.macro() if first else None
        gain = None if macro is None or base is None else 100 * (macro.mean - base.mean)
        paper = row.variant.paper
        paper_base = first.variant.paper if first else None
        paper_gain = None if paper is None or paper_base is None else paper - paper_base
        body.append(
            [
                row.variant.label,
                *(percent(row.of(protocol), row) for protocol in protocols),
                percent(macro, row),
                percent(row.micro(), row),
                "" if paper is None else f"{paper:.2f}",
                "" if gain is None else f"{gain:+.2f}",
                "" if paper_gain is None else f"{paper_gain:+.2f}",
            ]
        )
    body.extend(_chance_row(rows))
    return header, body, len(ablation)


def footnotes(config: Config, rows: Sequence[Row]) -> Iterator[str]:
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
            yield f"{row.variant.label}: {row.variant.note}"
    for row in rows:
        for reason, places in row.gaps().items():
            yield f"{row.variant.label}, {', '.join(places)}: {reason}."
    yield from _seed_note(rows)
    yield from _interval_note(rows)
    yield from check_lines(config, rows)


def check_lines(config: Config, rows: Sequence[Row]) -> Iterator[str]:
    """For each training whose backbone has a reference: where its features beat that and chance.

    Compared without re-ranking, as the references are.
    """
    references = {
        config.trainings[row.variant.training].backbone: row
        for row in rows
        if row.variant.reference
    }
    seen: set[str] = set()
    verdicts: list[str] = []
    outcomes: list[bool | None] = []
    for row in rows:
        training = row.variant.training
        reference = references.get(config.trainings[training].backbone)
        if row.variant.reference or reference is None or training in seen:
            continue
        seen.add(training)
        pairs = [
            (own, base, chance)
            for protocol in row.protocols
            if (own := row.of(protocol, "without_rerank"))
            and (base := reference.of(protocol, "without_rerank"))
            and (chance := row.of(protocol, "chance"))
        ]
        beaten = sum(own.mean > base.mean for own, base, _ in pairs)
        lucky = sum(own.mean > chance.mean for own, _, chance in pairs)
        total = len(row.protocols)
        if len(pairs) < total:
            outcomes.append(None)
            verdicts.append(f"{training} not measured")
        else:
            outcomes.append(beaten >= min(2, total) and lucky == total)
            verdicts.append(f"{training} {beaten}/{total} and {lucky}/{total}")
    if verdicts:
        unknown = "not yet known" if None in outcomes else "yes"
        answer = "NO" if False in outcomes else unknown
        yield (
            f"Check: every training beats plain CLIP on at least two protocols and chance on all: "
            f"{answer} ({'; '.join(verdicts)}; features without re-ranking)."
        )


def as_csv(rows: Sequence[Row]) -> str:
    """Every number in full: per protocol and averaged, mean and standard deviation, in per cent."""
    protocols = rows[0].protocols
    values = ("mean_ap", "trapezoid", "rank1", "without_rerank")
    places = (*protocols, "macro", "micro")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [
        f"{place}_{value}{end}" for value in values for place in places for end in ("", "_std")
    ]
    head = ["variant", "label", "training", "reference", "seeds", "paper"]
    single = [(value, protocol) for value in ("low", "high", "chance") for protocol in protocols]
    writer.writerow([*head, *names, *(f"{p}_{value}" for value, p in single), "manifests"])
    for row in rows:
        spreads = [
            spread
            for value in values
            for spread in (
                *(row.of(protocol, value) for protocol in protocols),
                row.macro(value),
                row.micro(value),
            )
        ]
        plain = [row.of(protocol, value) for value, protocol in single]
        macro = row.macro()
        writer.writerow(
            [
                row.name,
                row.variant.label,
                row.variant.training,
                str(row.variant.reference).lower(),
                f"{macro.seeds if macro else 0}/{len(row.seeds)}",
                "" if row.variant.paper is None else row.variant.paper,
                *(text for spread in spreads for text in _full(spread)),
                *(_full(spread)[0] for spread in plain),
                " ".join(path.as_posix() for path in row.manifests),
            ]
        )
    return text.getvalue()


def breakdown_csv(rows: Sequence[Row]) -> str:
    """One line for every group of every measured cell; shares, not per cent."""
    text = io.StringIO()
    place = ("variant", "seed", "protocol")
    group = ("attribute", "side", "group", "queries", "identities", "mAP", "rank1")
    bounds = [f"{value}_{end}" for value in ("mAP", "rank1") for end in ("low", "high")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*place, *group, *bounds])
    for row in rows:
        for (seed, protocol), cell in row.cells.items():
            for entry in cell.breakdown if isinstance(cell, Cell) else ():
                intervals = (entry[f"{value}_interval"] or ("", "") for value in ("mAP", "rank1"))
                ends = [end for interval in intervals for end in interval]
                writer.writerow([row.name, seed, protocol, *(entry[key] for key in group), *ends])
    return text.getvalue()


def as_markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """A table for a README, reference rows in italics."""
    header, body, ablation = cells_of(rows)
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    lines += [
        [f"*{row[0]}*", *row[1:]] if place >= ablation else row for place, row in enumerate(body)
    ]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def as_latex(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """A booktabs tabular with the notes below it."""
    header, body, ablation = cells_of(rows)
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule"]
    lines += [_latex_line(header), r"\midrule"]
    lines += [_latex_line(row) for row in body[:ablation]]
    lines += [r"\midrule", *(_latex_line(row) for row in body[ablation:])]
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    lines += [rf"% {note}" for note in notes]
    return "\n".join(lines) + "\n"


def as_text(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The table for a terminal."""
    header, body, ablation = cells_of(rows)
    widths = [max(len(line[place]) for line in (header, *body)) for place in range(len(header))]

    def aligned(line: Sequence[str]) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        return "  ".join((line[0].ljust(widths[0]), *numbers)).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [aligned(header), rule, *map(aligned, body[:ablation])]
    lines += [rule, *map(aligned, body[ablation:]), "", *notes]
    return "\n".join(lines) + "\n"


def _chance_row(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Expected mAP of a random ranking, from the first row that was run."""
    for row in rows:
        macro, micro = row.macro("chance"), row.micro("chance")
        if macro and micro:
            chances = (row.of(protocol, "chance") for protocol in row.protocols)
            shares = [chance.mean for chance in (*chances, macro, micro) if chance]
            yield ["Random ranking (expected)", *(f"{100 * s:.2f}" for s in shares), "", "", ""]
            return


def _seed_note(rows: Sequence[Row]) -> Iterator[str]:
    seeds = rows[0].seeds
    if len(seeds) > 1:
        yield f"Mean ± sample standard deviation over the seeds {', '.join(map(str, seeds))}."


def _interval_note(rows: Sequence[Row]) -> Iterator[str]:
    """Intervals of the last ablation row that was run; the csv has those of every row."""
    for row in reversed([row for row in rows if not row.variant.reference]):
        found = [
            f"{protocol} {100 * low.mean:.2f} to {100 * high.mean:.2f}"
            for protocol in row.protocols
            if (low := row.of(protocol, "low"))
            and (high := row.of(protocol, "high"))
            and low.mean <= high.mean
        ]
        if found:
            of = "mean over its seeds of each end: " if len(row.seeds) > 1 else ""
            yield (
                f"95 % intervals of mAP, bootstrap over query identities, {row.variant.label}: "
                f"{of}{', '.join(found)} (all rows: csv)."
            )
            return


def _full(value: Spread | None) -> tuple[str, str]:
    if value is None or math.isnan(value.mean):
        return "", ""
    deviation = "" if value.deviation is None else f"{100 * value.deviation:.4f}"
    return f"{100 * value.mean:.4f}", deviation


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"
