"""How time and memory grow with users, items, events, history length and judged users.

Each is doubled in turn, the others staying where they start; each size has a process of its own,
and another one makes its log. The shape of the model stays the same, with a softmax over a sample
of items where there are more than `num_sampled`.

    epoch_seconds       an epoch of 6,400 moments, the fastest of three, without compilation
    fit_seconds         a whole fit of two epochs with one moment for 8 events, compiled before
    fit_gigabytes       peak memory of the process until all fits have ended
    evaluate_seconds    every metric for all users, compiled before
    evaluate_gigabytes  peak memory while users are judged
    event_gigabytes     arrays of the log, here and on the device, among the memory

The exponent is the slope of a straight line through the logarithms: 1 is linear growth. It is
taken against the number of events for users and for events per user. The bytes for each more user,
item, event per user, or event of history are the growth of the peak from the smallest size to the
largest.

    python benchmarks/growth.py                 # or --num-users 1000 --doublings 2 --axes users
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from timing import RUNS, apart, in_process, machine, peak_gigabytes

START = {"num_users": 4_000, "num_items": 2_000, "num_events": 30, "history_length": 16}
JUDGED = 25_000  # users of the smallest log that is only judged
AXES = {  # shown as -> the option that is doubled
    "users": "num_users",
    "items": "num_items",
    "events per user": "num_events",
    "history length": "history_length",
    "judged users": "num_users",
}
SECONDS = ("epoch_seconds", "fit_seconds", "evaluate_seconds")
MEMORY = ("fit_gigabytes", "evaluate_gigabytes", "event_gigabytes")
COLOURS = {"epoch_seconds": "C3", "fit_seconds": "C0", "evaluate_seconds": "C1"}
COLOURS |= {"fit_gigabytes": "C0", "evaluate_gigabytes": "C1", "event_gigabytes": "C2"}
EPOCHS, EVENTS_PER_MOMENT, REPEAT_LENGTH = 2, 8, 64


def make_data(num_users: int, num_items: int, num_events: int):
    """Features, histories and held-out users of a simulated log; all users are judged."""
    import interestkit as ik

    sizes = {"num_users": num_users, "num_items": num_items, "events_per_user": num_events}
    log = ik.simulate(**sizes, num_bots=0, faults=0, seed=1)
    split = ik.leave_last_out(log)
    before = split.before("test")
    features = ik.fit_features(before, split.items, min_item_events=1)
    return features, features.histories(before), ik.held_out(features, split, "test")


def forget_peak() -> None:
    """Let the peak memory of this process begin anew, where the system can."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def seconds_of(work, *arguments, **options) -> float:
    """Wall seconds of a call."""
    began = time.perf_counter()
    work(*arguments, **options)
    return time.perf_counter() - began


def event_gigabytes(features, *logs) -> float:
    """Arrays with a row per event: those of the histories, and what the model reads of them."""
    numbers = 3 + 4 + len(features.scales_days)  # item, seconds, weight; again, next, and counts
    return sum(len(log.item) for log in logs) * numbers * 4 / 1e9


def measure(
    num_users: int, num_items: int, num_events: int, history_length: int, judged_only: int
) -> dict[str, float]:
    """Seconds and memory for one size, in this process."""
    import jax
    from flax import nnx

    import interestkit as ik
    from interestkit.model import InterestModel
    from interestkit.training import model_config

    features, known, truth = apart(make_data, num_users, num_items, num_events)
    shape = {"history_length": history_length, "repeat_length": REPEAT_LENGTH}
    found = {"events": len(known.item), "items": features.num_items, "judged": len(truth)}
    found["event_gigabytes"] = event_gigabytes(features, known, truth.histories)
    forget_peak()
    if judged_only:
        model = InterestModel(model_config(features, known, **shape), rngs=nnx.Rngs(0))
        jax.block_until_ready(nnx.state(model))
    else:
        model = measure_fit(found, features, known, shape)
    forget_peak()
    rankers = {"model": ik.Predictor(features=features, model=model)}
    evaluated = {"truth": truth, "features": features, "progress": False}
    ik.evaluate(rankers, **evaluated)  # compiles
    found["evaluate_seconds"] = seconds_of(ik.evaluate, rankers, **evaluated)
    return found | {"evaluate_gigabytes": peak_gigabytes()}


def measure_fit(found: dict, features, known, shape: Mapping[str, int]):
    """The model; what it took goes into `found`."""
    import interestkit as ik

    options = {"progress": False} | shape
    curve = ik.fit(features, known, config=ik.TrainingConfig(epochs=4), **options).curve
    found["epoch_seconds"] = curve["seconds"].diff().min()
    moments = max(found["events"] // EVENTS_PER_MOMENT, 1)
    options["config"] = ik.TrainingConfig(epochs=EPOCHS, examples_per_epoch=moments)
    ik.fit(features, known, stop_after=1, **options)  # compiles
    began = time.perf_counter()
    result = ik.fit(features, known, **options)
    found["fit_seconds"] = time.perf_counter() - began
    found["fit_gigabytes"] = peak_gigabytes()
    return result.model


def grow(start: Mapping[str, int], axes: Iterable[str], doublings: int, repeats: int) -> list[dict]:
    """One row per axis and size: the fastest of some repeats, and the smallest memory."""
    rows, measured = [], {}
    for axis in axes:
        option, judged_only = AXES[axis], int(axis == "judged users")
        origin = dict(start) | ({"num_users": JUDGED, "num_events": 8} if judged_only else {})
        for factor in 2 ** np.arange(doublings + 1):
            sizes = origin | {option: int(origin[option] * factor), "judged_only": judged_only}
            key = tuple(sizes.values())
            for repeat in range(0 if key in measured else repeats):
                point = in_process(Path(sys.executable), "ours", sizes)
                print(f"{axis} {sizes[option]}, {repeat + 1}/{repeats}: {point}", file=sys.stderr)
                last = measured.get(key, point)
                measured[key] = {name: min(value, last[name]) for name, value in point.items()}
            rows.append({"axis": axis, "size": sizes[option]} | measured[key])
    return rows


def exponents(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Axis -> measure -> slope of a straight line through logarithms of size and measure."""
    found = {}
    for axis in dict.fromkeys(row["axis"] for row in rows):
        own = [row for row in rows if row["axis"] == axis]
        # the log that comes out is not exactly of the size that was asked for
        counted = {"events per user": "events", "users": "events", "items": "items"}
        size = np.log([row[counted.get(axis, "size")] for row in own])
        found[axis] = {
            name: float(np.polyfit(size, np.log([row[name] for row in own]), 1)[0])
            for name in (*SECONDS, *MEMORY)
            if name in own[0] and len(own) > 1
        }
    return found


def table(rows: list[dict], slopes: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row for each size, and below each axis its exponents."""
    names = ["events", "items", *SECONDS, *MEMORY]
    lines = [f"| axis | size | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for axis, own in slopes.items():
        for row in (row for row in rows if row["axis"] == axis):
            cells = [f"{row[name]:.4g}" if name in row else "" for name in names]
            lines.append(f"| {axis} | {row['size']:,} | {' | '.join(cells)} |")
        cells = [f"{own[name]:.2f}" if name in own else "" for name in names]
        lines.append(f"| {axis} | **exponent** | {' | '.join(cells)} |")
        cells = [bytes_each(rows, axis, name) if name in MEMORY else "" for name in names]
        lines.append(f"| {axis} | **bytes for each more** | {' | '.join(cells)} |")
    return "\n".join(lines)


def bytes_each(rows: list[dict], axis: str, name: str) -> str:
    """Memory of the largest size less that of the smallest, for each unit of size between them."""
    own = [row for row in rows if row["axis"] == axis]
    if len(own) < 2 or name not in own[0]:
        return ""
    more = (own[-1][name] - own[0][name]) / (own[-1]["size"] - own[0]["size"])
    return f"{more * 1e9:,.0f}"


def figure(rows: list[dict], slopes: Mapping[str, Mapping[str, float]]):
    """Time above and memory below, a column for each axis; dashed: linear growth."""
    import matplotlib.pyplot as plt

    from interestkit import plots

    plots.use_style()
    drawn, panels = plt.subplots(
        *(2, len(slopes)),
        figsize=(2.8 * len(slopes), 5.4),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, (axis, own) in enumerate(slopes.items()):
        points = [row for row in rows if row["axis"] == axis]
        for panel, names in zip(panels[:, column], (SECONDS, MEMORY), strict=True):
            draw(panel, points, names, own)
        panels[1, column].set_xlabel(axis)
    panels[0, 0].set_title("One size is doubled at a time (dashed: linear growth)", loc="left")
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("peak memory (GB)")
    return drawn


def draw(panel, points: list[dict], names: Iterable[str], slopes: Mapping[str, float]) -> None:
    """Measures against size, both logarithmic, with their exponents."""
    sizes = np.array([row["size"] for row in points], float)
    shown = [name for name in names if name in points[0]]
    for name in shown:
        what = name.split("_")[0].replace("event", "the log's arrays")
        label = f"{what}: {slopes[name]:.2f}" if name in slopes else what
        values = [row[name] for row in points]
        panel.plot(sizes, values, "o-", markersize=3, label=label, color=COLOURS[name])
    lowest = points[0][shown[0]]
    panel.plot(sizes, lowest * sizes / sizes[0], "--", color="grey", linewidth=1)
    panel.set(xscale="log", yscale="log")
    panel.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], rotation=45)
    panel.minorticks_off()
    panel.legend(fontsize=6, title="exponent", title_fontsize=6)


def main() -> None:
    """Measure all sizes, or one with --side; print the table, write JSON and the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--doublings", type=int, default=3, help="default 3")
    parser.add_argument("--repeats", type=int, default=2, help="of each size; default 2")
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--side", help="measure one size here and print JSON")
    parser.add_argument("--judged-only", type=int, default=0)
    for option, value in START.items():
        flag = f"--{option.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=value, help=f"default {value}")
    given = vars(parser.parse_args())
    start = {option: given[option] for option in START}
    if given["side"]:
        print(json.dumps(measure(**start, judged_only=given["judged_only"])), flush=True)
        return
    rows = grow(start, given["axes"], given["doublings"], given["repeats"])
    slopes = exponents(rows)
    print(table(rows, slopes))
    record = {"machine": machine(), "start": start, "rows": rows, "exponents": slopes}
    RUNS.mkdir(parents=True, exist_ok=True)
    path = RUNS / "growth.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    figure(rows, slopes).savefig(path.with_suffix(".png"), dpi=120, bbox_inches="tight")
    print(f"\nwritten: {path} and {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
