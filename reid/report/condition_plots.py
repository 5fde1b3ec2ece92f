"""Figures of where retrieval works: mAP against the conditions of capture, by protocol."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from reid.report.drawing import SERIES, Plot, Series, drawing, legend_above, panel, save
from reid.report.measured import Measurement
from reid.retrieval.breakdown import HEIGHT_EDGES

SIDE = {"G2A": "gallery"}
"""The side whose conditions are shown: where the drone is; elsewhere that of the query."""

CONDITIONS = {
    "altitude": "altitude of the drone (m)",
    "distance": "horizontal distance (m)",
    "angle": "camera below the horizon (degrees)",
    "pixel height": "height of the crop (pixels)",
}
"""Attribute of the breakdown -> label of its axis."""

COLUMNS = ("variant", "seed", "protocol", "side", "group", "queries", "identities", "mAP", "low",
           "high")  # fmt: skip


def condition_plots(
    attribute: str,
    found: Sequence[Mapping[str, Measurement]],
    protocols: Sequence[str],
    folder: Path,
) -> list[Plot]:
    """mAP against one of CONDITIONS, a panel a protocol; nothing where none has it.

    found: rows by protocol; the last is the one shown in detail, with its intervals.
    """
    shown = [p for p in protocols if any(groups(each, p, attribute) for each in found)]
    if not shown:
        return []
    table: list[tuple[object, ...]] = []
    count = len(shown)
    with drawing(1.3 * count + 0.6, nrows=count, sharex=True, squeeze=False) as (figure, grid):
        for axes, protocol in zip(grid[:, 0], shown, strict=True):
            for place, measured in enumerate(found):
                detailed = place == len(found) - 1
                series = SERIES[0] if detailed else SERIES[1]
                entries = groups(measured, protocol, attribute)
                _line(axes, entries, attribute, series, band=detailed)
                table += [_record(measured[protocol], entry) for entry in entries]
            panel(axes, protocol)
            axes.set_ylabel("mAP (%)")
            axes.margins(y=0.2)
            axes.set_ylim(bottom=0)
        bottom, top = grid[-1, 0], grid[0, 0]
        if attribute == "pixel height":
            names = [f"<{HEIGHT_EDGES[1]}", *(f"{edge}+" for edge in HEIGHT_EDGES[1:])]
            bottom.set_xticks(range(len(names)), names, fontsize=7)
        bottom.set_xlabel(CONDITIONS[attribute])
        for measured, series in zip(found, (SERIES[1], SERIES[0])[-len(found) :], strict=True):
            label = next(iter(measured.values())).row.variant.label
            top.plot([], [], label=label, **series.line())
        legend_above(top, columns=1)
        return [
            save(
                figure,
                folder,
                f"map_by_{attribute.replace(' ', '_')}",
                title=f"mAP by {attribute}",
                alt=_said(attribute, found[-1], shown),
                caption=f"By {attribute} of the queries; in G2A, where these are on the ground, "
                "of the positives. The band is the 95 % interval over identities.",
                columns=COLUMNS,
                rows=table,
            )
        ]


def groups(
    measured: Mapping[str, Measurement], protocol: str, attribute: str
) -> list[Mapping[str, Any]]:
    """Groups of an attribute on the side that is shown and that have a number, ascending."""
    if protocol not in measured:
        return []
    return [
        entry
        for entry in measured[protocol].content["breakdown"]
        if entry["attribute"] == attribute
        and entry["side"] == SIDE.get(protocol, "query")
        and entry["mAP"] is not None
    ]


def _line(
    axes: Axes, entries: Sequence[Mapping[str, Any]], attribute: str, series: Series, *, band: bool
) -> None:
    # Groups of height are not evenly wide: they stand at equal distances, by number.
    by_number = attribute == "pixel height"
    x = [HEIGHT_EDGES.index(e["group"]) if by_number else e["group"] for e in entries]
    axes.plot(x, [100 * e["mAP"] for e in entries], **series.line())
    if band:
        bounds = [e["mAP_interval"] or (e["mAP"], e["mAP"]) for e in entries]
        low, high = ([100 * bound[end] for bound in bounds] for end in (0, 1))
        axes.fill_between(x, low, high, color=series.color, alpha=0.15, linewidth=0)


def _record(measurement: Measurement, entry: Mapping[str, Any]) -> tuple[object, ...]:
    side = SIDE.get(measurement.protocol, "query")
    bounds = entry["mAP_interval"] or ("", "")
    keys = ("group", "queries", "identities", "mAP")
    return (
        measurement.row.name,
        measurement.seed,
        measurement.protocol,
        side,
        *(entry[key] for key in keys),
        *bounds,
    )


def _said(attribute: str, measured: Mapping[str, Measurement], protocols: Sequence[str]) -> str:
    """The figure in words: both ends of each panel."""
    ends = []
    for protocol in protocols:
        if entries := groups(measured, protocol, attribute):
            first, last = (
                f"{100 * e['mAP']:.0f} % at {e['group']:g}" for e in (entries[0], entries[-1])
            )
            ends.append(f"{protocol} {first}, {last}")
    label = next(iter(measured.values())).row.variant.label
    return f"mAP by {attribute} of {label}: {'; '.join(ends)}."
