"""How loss falls with parameters, data and compute, on a log whose best loss is known.

    python benchmarks/scaling_study.py --page       # writes docs/scaling_study.md and its figure
    python benchmarks/scaling_study.py --again --page

The log is made up: what comes next depends on the classes of the last item and of the one three
back, and each pair of classes has a ranking of all items of its own, from which one that the user
has not had is drawn (Zipf). So the loss of somebody who knows all this is known too, and *excess*
is what a model loses more. The widths of item vectors and layers grow together; data is the number
of users, each with `LENGTH` events. Compute is what `capacity_model.flops` says of steps so far.
"""

import argparse
import json
import time
from collections.abc import Iterable
from datetime import timedelta
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import polars as pl
from capacity_model import Case, flops, parameters
from protocols import START
from scipy import stats
from timing import ROOT, RUNS, machine

from interestkit.schema import ITEM, ITEM_COLUMNS, KIND, TIME, USER

ITEMS, CLASSES, LENGTH, SHARPNESS = 200, 6, 16, 1.3
WIDTHS, USERS = (8, 16, 32, 64), (1_000, 2_000, 4_000, 8_000)
LARGEST, MIDDLE = max(USERS), 32  # data for all widths, width for all data
JUDGED = 2_000  # fresh users, their last event
TRAINING = {"epochs": 8, "examples_per_epoch": 8_000, "batch_size": 64, "num_targets": 1}
TRAINING |= {"learning_rate": 0.01, "weight_decay": 0.01, "single_part_share": 0.0}


class World(NamedTuple):
    """Users' items, and how probable each was given those before it."""

    item: np.ndarray  # (users, LENGTH)
    probability: np.ndarray  # (users, LENGTH - 1), of all but the first


def world(users: int, *, seed: int) -> World:
    """A log of the process; the process itself is always the same."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng([1, seed])
    classes = fixed.integers(0, CLASSES, ITEMS)
    ranks = np.argsort(fixed.random((CLASSES, CLASSES, ITEMS)), axis=2)
    weights = (1.0 + ranks) ** -SHARPNESS
    item = np.zeros((users, LENGTH), int)
    free, rows = np.ones((users, ITEMS), bool), np.arange(users)
    probability = np.zeros((users, LENGTH - 1))
    item[:, 0] = rng.integers(0, ITEMS, users)
    free[rows, item[:, 0]] = False
    for at in range(1, LENGTH):
        back = item[:, max(at - 3, 0)]
        weight = weights[classes[item[:, at - 1]], classes[back]] * free
        ends = np.cumsum(weight, axis=1)
        drawn = rng.random(users) * ends[:, -1]
        item[:, at] = (ends < drawn[:, None]).sum(axis=1)
        free[rows, item[:, at]] = False
        probability[:, at - 1] = weight[rows, item[:, at]] / ends[:, -1]
    return World(item, probability)


def events_of(item: np.ndarray) -> pl.DataFrame:
    """A row for each event, a day apart."""
    users, length = item.shape
    return pl.DataFrame(
        {
            USER: np.repeat([f"u{n:06}" for n in range(users)], length),
            ITEM: [f"i{code:04}" for code in item.ravel()],
            TIME: np.tile([START + timedelta(n) for n in range(length)], users).tolist(),
        }
    ).with_columns(pl.lit("view").alias(KIND))


def measure(width: int, users: int, *, seed: int) -> dict:
    """One fit: its size, its cost, and the loss of fresh users' last events by it, in nats."""
    import interestkit as ik

    known, judged = world(users, seed=seed), world(JUDGED, seed=1_000 + seed)
    events = events_of(known.item).cast({TIME: pl.Datetime("us", "UTC")})
    settings = {"min_item_events": 1, "num_snapshots": 0, "scales_days": (1.0, 4.0, 16.0)}
    items = pl.DataFrame(schema=ITEM_COLUMNS)
    features = ik.fit_features(events, items, **settings)
    config = ik.TrainingConfig(**TRAINING)
    shape = {"encoder": "transformer", "item_dim": width, "layer_dim": width, "hidden": (32,)}
    shape |= {"dropout": 0.0, "event_dropout": 0.0, "layer_dropout": 0.0, "history_length": LENGTH}
    began = time.process_time()
    log = features.histories(events)
    result = ik.fit(features, log, config=config, seed=seed, progress=False, **shape)
    case = case_of(result.model.config, config, events=len(events), users=users)
    asked = features.histories(
        events_of(judged.item[:, :-1]), moments=START + timedelta(LENGTH - 1)
    )
    codes = features.codes(pl.Series([f"i{code:04}" for code in judged.item[:, -1]]))
    said = ik.Predictor(features=features, model=result.model).score(asked, codes[:, None])
    step = sum(flops(case).values())
    return {
        **{"width": width, "users": users, "seed": seed, "events": len(events)},
        **{"parameters": parameters(case), "cpu_seconds": time.process_time() - began},
        "loss": -float(said.mean()),
        "floor": -float(np.log(judged.probability[:, -1]).mean()),
        "floor_of_draws": -float(np.log(known.probability).mean()),  # of moments drawn in training
        "curve": result.curve["loss_new"].to_list(),
        "flop": [step * config.steps * n for n in range(1, config.epochs + 1)],
    }


def case_of(shape, config, *, events: int, users: int) -> Case:
    """The sizes of a fit, for the formulas."""
    return Case(
        **{"users": users, "items": shape.num_items, "events": events, "devices": 1, "model": 1},
        **{"batch": config.batch_size, "sampled": shape.num_items, "dim": shape.item_dim},
        **{"hidden": shape.hidden[0], "content": shape.content_dim, "steps": config.steps},
        **{"interests": shape.num_interests, "scales": len(shape.scales_days), "snapshots": 1},
        **{"history": shape.history_length, "repeats": shape.repeat_length},
        **{"targets": config.num_targets, "shards": 1, "shards_at_once": 1},
        **{"layers": shape.num_layers, "width": shape.layer_dim, "heads": shape.num_heads},
        window=shape.num_window,
    )


class Law(NamedTuple):
    """excess = factor * size ** -exponent, by least squares on logarithms."""

    factor: float
    exponent: float
    interval: tuple[float, float]  # of the exponent, 95 %

    @property
    def words(self) -> str:
        """Exponent and interval."""
        return f"{self.exponent:.2f} [{self.interval[0]:.2f}, {self.interval[1]:.2f}]"


def law(sizes: Iterable[float], excess: Iterable[float]) -> Law:
    """The power law through points.

    Example:
        >>> found = law([1, 2, 4, 8], [3, 3 / 2**0.5, 3 / 2, 3 / 8**0.5])
        >>> print(f"{found.factor:.3f} {found.exponent:.3f}")
        3.000 0.500
    """
    x, y = np.log(list(sizes)), np.log(list(excess))
    line = stats.linregress(x, y)
    reach = stats.t.ppf(0.975, len(x) - 2) * line.stderr
    ends = (-line.slope - reach, -line.slope + reach)
    return Law(float(np.exp(line.intercept)), float(-line.slope), tuple(map(float, ends)))


def points(rows: list[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """Sizes and excess: by parameters at most data, by data at one width, best by compute.

    By compute the loss is that of training, of the moments that an epoch draws, which at most data
    has met few of them before; what counts is the best of all widths for as much.
    """
    most = [row for row in rows if row["users"] == LARGEST]
    middle = [row for row in rows if row["width"] == MIDDLE]
    runs = [
        (flop, loss - row["floor_of_draws"])
        for row in most
        for flop, loss in zip(row["flop"], row["curve"], strict=True)
    ]
    runs.sort()
    best = list(accumulate((excess for _, excess in runs), min))
    front = [(flop, own) for (flop, own), low in zip(runs, best, strict=True) if own == low]
    return {
        "parameters": (
            [row["parameters"] for row in most],
            [row["loss"] - row["floor"] for row in most],
        ),
        "events": (
            [row["events"] for row in middle],
            [row["loss"] - row["floor"] for row in middle],
        ),
        "FLOP": tuple(map(list, zip(*front, strict=True))),
    }


def figure(rows: list[dict]):
    """Excess loss by parameters, data and compute, with the power law of each."""
    import matplotlib.pyplot as plt

    from interestkit import plots

    plots.use_style()
    drawn, axes = plt.subplots(1, 3, figsize=(9.5, 3.4), sharey=True, layout="constrained")
    for ax, (name, (sizes, excess)) in zip(axes, points(rows).items(), strict=True):
        found = law(sizes, excess)
        if name == "FLOP":
            for row in (row for row in rows if row["users"] == LARGEST):
                curve = np.array(row["curve"]) - row["floor_of_draws"]
                ax.plot(row["flop"], curve, color="0.75", linewidth=1)
        ax.plot(sizes, excess, "o", markersize=4)
        ends = np.array([min(sizes), max(sizes)], float)
        ax.plot(ends, found.factor * ends**-found.exponent, "--", color="black", linewidth=1)
        ax.set(xscale="log", yscale="log", xlabel=name)
        ax.xaxis.set_minor_formatter("")
        if name != "FLOP":
            ax.set_xticks(sizes, [f"{size / 1000:.0f}k" for size in sizes])
        ax.set_title(f"exponent {found.words}", fontsize="small", loc="left")
    axes[0].set_ylabel("loss above the best there can be (nats)")
    return drawn


def table(rows: list[dict]) -> str:
    """Markdown: all fits, and the three laws."""
    head = ["width", "parameters", "events", "seed", "loss", "floor", "excess", "CPU-seconds"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [f"{row['width']}", f"{row['parameters']:,}", f"{row['events']:,}"]
        cells += [f"{row['seed']}", f"{row['loss']:.3f}", f"{row['floor']:.3f}"]
        cells += [f"{row['loss'] - row['floor']:.3f}", f"{row['cpu_seconds']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| excess falls with | exponent [95 %] | points |", "|---|---|---|"]
    for name, (sizes, excess) in points(rows).items():
        lines.append(f"| {name} | {law(sizes, excess).words} | {len(sizes)} |")
    return "\n".join(lines)


PAGE = """# How loss falls with parameters, data and compute

Made by `python benchmarks/scaling_study.py --page` with Transformers of two layers on a made-up log
whose best loss (*floor*) is known; *excess* is what a model loses more, at the last event of
{judged:,} users whom it never saw. Widths of item vectors and layers grow together. Exponents are
slopes of straight lines through logarithms; their intervals say how well a line fits so few points,
not what happens beyond them. The grey lines are the courses of the fits with most data; their loss
is that of training, above the floor of the moments drawn, of which most come for the first time.

![Excess loss against parameters, events and compute](images/scaling_study.png)

"""


def main() -> None:
    """Fit all sizes, print the table, write JSON, figure and page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="no fits: those of the last run")
    parser.add_argument("--page", action="store_true", help="write docs/scaling_study.md")
    asked = parser.parse_args()
    path = RUNS / "scaling_study.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if asked.again else []
    sizes = [(width, LARGEST) for width in WIDTHS]
    sizes += [(MIDDLE, users) for users in USERS if users != LARGEST]
    for seed in range(0 if asked.again else asked.seeds):
        for width, users in sizes:
            rows.append(measure(width, users, seed=seed))
            print({k: v for k, v in rows[-1].items() if k != "flop"}, flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"machine": machine(), "rows": rows}) + "\n", "utf-8")
    print(table(rows))
    figure(rows).savefig(path.with_suffix(".png"), dpi=120)
    if asked.page:
        figure(rows).savefig(ROOT / "docs" / "images" / "scaling_study.png", dpi=120)
        page = PAGE.format(judged=JUDGED) + table(rows) + "\n"
        (ROOT / "docs" / "scaling_study.md").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
