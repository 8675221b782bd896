"""Published protocols, reproduced: our model beside the published numbers, with several seeds.

    python benchmarks/accuracy.py --table docs/accuracy.md   # every protocol, three seeds
    python benchmarks/accuracy.py --only beauty --seeds 1
    python benchmarks/accuracy.py --again runs/accuracy.json --table docs/accuracy.md
    python benchmarks/accuracy.py --sequences FILE --attributes FILE --protocol last-item

The third line writes the table of an earlier run again; the last one tries the settings on data
that they were not chosen on. Data comes from the folder INTERESTKIT_DATA. Settings were chosen on
validation parts alone (`SETTINGS`, `OWN`).
"""

import argparse
import json
import os
import platform
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import polars as pl
from protocols import PROTOCOLS, Protocol, last_item

from interestkit import metrics
from interestkit.baselines import Popular
from interestkit.examples import TrainingConfig
from interestkit.heldout import HeldOut, held_out
from interestkit.histories import Histories
from interestkit.linear import add_linear_part, tune_linear_part
from interestkit.prediction import Predictor
from interestkit.schema import ITEM, USER
from interestkit.training import fit

# One set for logs with an order, one for logs without. An epoch of "next" is one pass:
# `examples_per_epoch` is the number of moments.
SETTINGS = {
    "next": {
        "training": {
            "draw": "moments",
            "epochs": 6,
            "batch_size": 512,
            "learning_rate": 2e-3,
            "num_targets": 1,
            "interest_weight": 0.1,
            "single_part_share": 0.0,
            "patience": 3,
        },
        "shape": {
            "item_dim": 128,
            "hidden": (256,),
            "history_length": 64,
            "repeat_length": 64,
        },
    },
    "hidden": {
        "training": {
            "epochs": 20,
            "examples_per_epoch": 12_800,
            "learning_rate": 2e-3,
            "weight_decay": 0.5,
            "single_part_share": 0.0,
            "patience": 40,  # scores dip before the learning rate falls: all epochs are trained
        },
        "shape": {
            "item_dim": 128,
            "hidden": (256,),
            "history_length": 1024,
            "repeat_length": 1024,
        },
    },
}
LINEAR = {
    "weights": (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0),
    "regularisations": (300.0, 800.0),
    "dropouts": (0.0,),
}
# Ten times as many events as ML-100k bear longer training in larger steps and more said by long
# histories; on its validation part the last epoch was the best one for items, so that none is
# chosen. ML-100k was better without these, on its own validation part.
OWN = {
    "ml-1m-ncf": {
        "training": {
            "epochs": 40,
            "batch_size": 256,
            "learning_rate": 4e-3,
            "weight_decay": 0.3,
        },
        "shape": {"pool_power": 0.5},
        "linear": {"dropouts": (0.0, 0.3, 0.5)},
    }
}
ALONE = 1e4  # a weight of the linear part beside which the MLP says nothing
LONGEST = 20  # the longest list that any protocol judges
OTHERS = np.arange(100)[None, :] > 0  # all candidates but the held-out item
HEAD = """# Accuracy beside published numbers

Made by `python benchmarks/accuracy.py --table docs/accuracy.md`; ± is the standard deviation
between seeds. Settings were chosen on validation parts; a run looks at the test part once, at
its end. Minutes are those of two cores, which did other work beside.

"""
METRICS = {
    "HR@10": lambda hits, n: metrics.hit_rate_at_k(hits, n, k=10),
    "NDCG@10": lambda hits, n: metrics.ndcg_at_k(hits, n, k=10),
    "HR@20": lambda hits, n: metrics.hit_rate_at_k(hits, n, k=20),
    "NDCG@20": lambda hits, n: metrics.ndcg_at_k(hits, n, k=20),
    "recall@10": lambda hits, n: metrics.recall_at_k(hits, n, k=10),
    "precision@10": lambda hits, n: metrics.precision_at_k(hits, n, k=10),
    "MAP@10 (over n)": lambda hits, n: metrics.average_precision_at_k(
        hits, n, k=10, truncated=False
    ),
}


def run(protocol: Protocol, *, seeds: int) -> dict:
    """Our numbers, popularity and what others published, as one JSON-ready record."""
    began = time.perf_counter()
    rows = [_one_seed(protocol, seed) for seed in range(seeds)]
    values = np.array([row["test"] for row in rows])
    return {
        "protocol": protocol.name,
        "title": protocol.title,
        "metrics": list(protocol.metrics),
        "mean": values.mean(axis=0).tolist(),
        "spread": (values.std(axis=0, ddof=1) if seeds > 1 else 0 * values[0]).tolist(),
        "seeds": rows,
        "users": rows[0]["users"],
        "popularity": popularity(protocol),
        "published": {name: list(numbers) for name, numbers in protocol.published.items()},
        "published_popularity": list(protocol.popularity),
        "must_reach": list(protocol.must_reach),
        "source": protocol.source,
        "settings": settings(protocol),
        "minutes": (time.perf_counter() - began) / 60,
    }


def _one_seed(protocol: Protocol, seed: int) -> dict:
    """Settings are chosen on validation; the test part is looked at once, at the end."""
    features = protocol.features(protocol.split.train)
    log = features.histories(protocol.split.train)
    validation = held_out(features, protocol.split, "validation")
    shape, config = settings(protocol)["shape"], training_config(protocol, log)
    judged = None if protocol.name in OWN else validation
    result = fit(features, log, validation=judged, config=config, seed=seed, **shape)
    model = Predictor(features=features, model=result.model)
    linear = {"weight": 0.0}
    if protocol.task == "hidden":
        score = partial(_candidate_score, protocol, validation) if protocol.candidates else None
        linear = tune_linear_part(
            model, log, validation, score=score, **settings(protocol)["linear"]
        )
    if protocol.refit:
        known = protocol.split.before("test")
        features = protocol.features(known)
        log = features.histories(known)
        again = fit(features, log, config=config, stop_after=result.best_epoch, seed=seed, **shape)
        model = Predictor(features=features, model=again.model)
    truth = protocol.test(features)
    alone = add_linear_part(model, log, **(linear | {"weight": min(linear["weight"], 1) * ALONE}))
    return {
        "seed": seed,
        "test": _measure(protocol, truth, add_linear_part(model, log, **linear)),
        "test_without_linear_part": _measure(protocol, truth, model),
        "test_linear_part_alone": _measure(protocol, truth, alone),
        "best_epoch": result.best_epoch,
        "linear_part": linear,
        "users": int((truth.num_relevant() > 0).sum()),
        "seconds": result.seconds,
    }


def settings(protocol: Protocol) -> dict[str, dict]:
    """Settings of training, shape and linear part: those of the protocol's task and its own."""
    own = OWN.get(protocol.name, {})
    both = SETTINGS[protocol.task] | {"linear": LINEAR}
    return {part: values | own.get(part, {}) for part, values in both.items()}


def training_config(protocol: Protocol, log: Histories) -> TrainingConfig:
    """Settings of training; where the order counts an epoch is one pass."""
    training = settings(protocol)["training"]
    if protocol.task == "next":
        training["examples_per_epoch"] = int((log.lengths - 1).clip(0).sum())
    return TrainingConfig(task=protocol.task, **training)


def _candidate_score(protocol: Protocol, validation: HeldOut, model: Predictor) -> float:
    """Mean of the published metrics, of each user's validation item among 99 never had."""
    pairs = validation.relevant.filter(pl.col("code") >= 0).unique("user_code", keep="first")
    users, own = pairs.sort("user_code").select("user_code", "code").to_numpy().T
    seen = np.zeros((len(validation), model.features.num_items), bool)
    seen[validation.histories.user, validation.histories.item] = True
    seen[users, own] = True
    order = np.random.default_rng(0).random(seen.shape, np.float32) + seen
    others = np.argpartition(order, 99, axis=1)[:, :99]
    codes = np.zeros((len(validation), 100), np.int64)
    codes[:, 1:], codes[users, 0] = others, own
    hits = _hits_of_first(model.score(validation.histories, codes)[users])
    one = np.ones(len(users), int)
    return float(np.mean([METRICS[name](hits, one).mean() for name in protocol.metrics]))


def popularity(protocol: Protocol) -> list[float]:
    """The same numbers for popularity, counted as the publication counts it."""
    protocol = protocol.popularity_of or protocol
    split = protocol.split
    parts = {"train": [split.train], "known": [split.train, split.validation]}
    parts["all"] = [*parts["known"], split.test]
    events = pl.concat(parts[protocol.popularity_counts])
    features = protocol.features(events)
    popular = Popular(features=features, log=features.histories(events))
    return _measure(protocol, protocol.test(features), popular)


def _measure(protocol: Protocol, truth: HeldOut, ranker) -> list[float]:
    """Mean of each published metric over the users who have something to find."""
    relevant = truth.num_relevant()
    hits = _hits_among_candidates if protocol.candidates else _hits_among_all
    found = hits(protocol, truth, ranker)
    return [float(np.nanmean(METRICS[name](found, relevant))) for name in protocol.metrics]


def _hits_among_all(protocol: Protocol, truth: HeldOut, ranker) -> np.ndarray:
    """True where one of the 20 best new items is relevant; validation items are passed over."""
    if not protocol.hides_validation:
        return truth.hits(0, ranker.rank(truth.histories, k=LONGEST)[0])
    features, users = ranker.features, pl.Series(truth.histories.users)
    passed = protocol.split.validation.filter(pl.col(USER).is_in(users.implode()))
    row = pl.DataFrame({USER: users}).with_row_index("row")
    rows = passed.join(row, on=USER, maintain_order="left")["row"].to_numpy()
    is_passed = np.zeros((len(users), features.num_items + 1), bool)
    is_passed[rows, features.codes(passed[ITEM])] = True  # -1 falls on the last column
    k = min(LONGEST + int(is_passed.sum(axis=1).max()), features.num_items)
    codes, _ = ranker.rank(truth.histories, k=k)
    order = np.argsort(np.take_along_axis(is_passed, codes, axis=1), axis=1, kind="stable")
    return truth.hits(0, np.take_along_axis(codes, order, axis=1)[:, :LONGEST])


def _hits_among_candidates(protocol: Protocol, truth: HeldOut, ranker) -> np.ndarray:
    """True at the rank of the held-out item; ties and copies of it do not push it down."""
    names = [protocol.candidates[user] for user in truth.histories.users]
    codes = ranker.features.codes(pl.Series([name for row in names for name in row]))
    codes = codes.reshape(len(names), -1)
    if isinstance(ranker, Popular):
        scores = ranker.counts[codes]
    else:
        scores = ranker.score(truth.histories, np.maximum(codes, 0))
    scores = np.where((codes < 0) | ((codes == codes[:, :1]) & OTHERS), -np.inf, scores)
    return _hits_of_first(scores)


def _hits_of_first(scores: np.ndarray) -> np.ndarray:
    """True at the rank of the first candidate of each row; ties do not push it down."""
    rank = (scores[:, 1:] > scores[:, :1]).sum(axis=1)
    return np.arange(LONGEST)[None, :] == rank[:, None]


def summary(records: list[dict]) -> str:
    """Markdown: for each number that is to be reached ours, the best published, popularity."""
    head = ["data, protocol", "metric", "model", "best published", "popularity"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for record in records:
        for place, metric in enumerate(record["metrics"][: len(record["must_reach"])]):
            published = {name: values[place] for name, values in record["published"].items()}
            best = max(published, key=published.get)
            mean, spread = record["mean"][place], record["spread"][place]
            is_ahead = mean > published[best]
            ours = f"**{mean:.4f}** ± {spread:.4f}" if is_ahead else f"{mean:.4f} ± {spread:.4f}"
            theirs = f"{published[best]:.4g}" if is_ahead else f"**{published[best]:.4g}**"
            cells = [record["title"] if place == 0 else "", metric, ours, f"{theirs} ({best})"]
            lines.append("| " + " | ".join([*cells, f"{record['popularity'][place]:.4f}"]) + " |")
    return "\n".join(lines)


def table(records: list[dict]) -> str:
    """Markdown: for each protocol ours, what is to be reached, and what others published."""
    blocks = []
    for record in records:
        names = record["metrics"]
        lines = [
            f"**{record['title']}** ({record['users']:,} users, {len(record['seeds'])} seeds, "
            f"{record['minutes']:.0f} min)",
            "",
            "| | " + " | ".join(names) + " |",
            "|---" * (len(names) + 1) + "|",
        ]
        ours = zip(record["mean"], record["spread"], strict=True)
        lines.append("| interestkit | " + " | ".join(f"{m:.4f} ± {s:.4f}" for m, s in ours) + " |")
        if any(row["linear_part"]["weight"] for row in record["seeds"]):
            for part in ("without linear part", "linear part alone"):
                key = f"test_{part.replace(' ', '_')}"
                mean = np.mean([row[key] for row in record["seeds"]], axis=0)
                lines.append(_row(f"the same, {part}", mean, len(names)))
        lines.append(_row("popularity, here", record["popularity"], len(names)))
        lines += [_row(f"{n}, published", v, len(names)) for n, v in record["published"].items()]
        if tuple(record["published_popularity"]) not in map(tuple, record["published"].values()):
            lines.append(_row("popularity, published", record["published_popularity"], len(names)))
        lines.append(_row("our aim", record["must_reach"], len(names)))
        blocks.append("\n".join([line for line in lines if line is not None]))
        blocks += [f"Published: {record['source']}."] if record["source"] else []
    return "\n\n".join(blocks)


def _row(name: str, values, width: int) -> str | None:
    if not len(values):
        return None
    cells = [f"{value:.4f}" for value in values] + [""] * (width - len(values))
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Run what was asked for, print the table, and write it as JSON after each protocol."""
    arguments = _arguments()
    machine = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
    }
    records = []
    if arguments.again:
        records = json.loads(arguments.again.read_text("utf-8"))["protocols"]
        print(table(records))
    elif arguments.out.exists():
        aside = arguments.out.with_suffix(".earlier.json")
        print(f"{arguments.out} is kept as {arguments.out.replace(aside)}")
    for protocol in [] if arguments.again else _chosen(arguments):
        records.append(run(protocol, seeds=arguments.seeds))
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": machine, "protocols": records}, indent=1)
        arguments.out.write_text(text + "\n", "utf-8")
        print(table(records[-1:]), end="\n\n", flush=True)
    if arguments.table:
        text = f"{HEAD}{summary(records)}\n\n{table(records)}\n"
        arguments.table.write_text(text, "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=PROTOCOLS, nargs="+", help="protocols to run")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each protocol (default 3)")
    parser.add_argument("--sequences", type=Path, help="lines `user item item ...`, oldest first")
    parser.add_argument("--attributes", type=Path, help="JSON: item -> list of attributes")
    parser.add_argument("--protocol", choices=["last-item"], default="last-item")
    parser.add_argument("--again", type=Path, help="JSON of an earlier run: nothing is trained")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy.json"), help="JSON")
    parser.add_argument("--table", type=Path, help="write the table to this Markdown file too")
    return parser.parse_args()


def _chosen(arguments) -> list[Protocol]:
    if arguments.sequences:
        return [last_item(arguments.sequences, arguments.attributes)]
    return [PROTOCOLS[name]() for name in arguments.only or PROTOCOLS]


if __name__ == "__main__":
    main()
