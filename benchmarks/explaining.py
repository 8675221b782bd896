"""What explanations are worth on data, and how long they take: one line and one JSON a data set.

It reads the folder of a run (`interestkit run --out FOLDER`), in which notebooks 01 to 03 have left
split and models. Planted causes are tried on simulated users instead (`--planted`).

    python benchmarks/explaining.py runs/notebooks                  # or several folders
    python benchmarks/explaining.py --planted
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from timing import FIVE_CORE, RUNS, machine

import interestkit as ik
from interestkit.explanation.calibration import InterestSets

LIMIT = 20  # milliseconds a user


def milliseconds(work, histories, repeats: int = 3) -> dict[str, float]:
    """Wall time and processor time a user, the fastest of some repeats after a first call."""
    taken = []
    for _ in range(repeats + 1):
        began, busy = time.perf_counter(), time.process_time()
        work(histories)
        taken.append((time.perf_counter() - began, time.process_time() - busy))
    wall, cpu = (1000 * min(part) / len(histories) for part in zip(*taken[1:], strict=True))
    return {"wall": wall, "cpu": cpu}


def halves(sets: InterestSets, truth, degree: int, times: int) -> pl.DataFrame:
    """Coverage of half of the users, where the other half chose the threshold."""
    tables = []
    for seed in range(times):
        chosen = np.random.default_rng(seed).random(len(truth)) < 0.5
        one, other = (part_of(truth, rows) for rows in (chosen, ~chosen))
        made = ik.interest_sets(sets.model, one, coverage=sets.coverage, degree=degree, seed=seed)
        tables.append(made.check(other))
    rows = pl.concat(tables).group_by("group", maintain_order=True)
    off = (pl.col("covered") - pl.col("nominal")).pow(2).mean().sqrt()
    return rows.agg(pl.col("covered", "size").mean(), off.alias("off"))


def part_of(truth, chosen):
    """Held-out users of some rows, without their items."""
    histories = truth.histories.only(chosen[truth.histories.user])
    users, ends = np.flatnonzero(chosen), histories.offsets[1:][chosen]
    histories = replace(
        histories,
        users=histories.users[users],
        offsets=np.append(0, ends).astype(np.int32),
        moment=histories.moment[users],
    )
    parts = {name: getattr(truth, name)[users] for name in ("interest_shares", "next_interests")}
    return replace(truth, histories=histories, relevant=truth.relevant.clear(), **parts)


def believed(folder: Path, model, split, truth) -> dict:
    """Calibration error and coverage, from validation and from halves of the validation users."""
    chosen = ik.Predictor.load(folder / "chosen")
    validation = ik.held_out(chosen.features, split, "validation")
    calibrated = ik.calibrate(chosen, validation)
    found = {"temperature": calibrated.temperature, "ECE validation": calibrated.error}
    found["ECE test"] = calibrated.of(model).check(truth).to_dicts()
    for degree in (0, 2):
        sets = ik.interest_sets(calibrated, validation, degree=degree)
        table = sets.of(calibrated.of(model)).check(truth)
        found[f"covered, degree {degree}"] = table.to_dicts()
        found[f"furthest by chance, degree {degree}"] = furthest_by_chance(table)
        again = halves(sets, validation, degree, 10)
        found[f"covered, degree {degree}, halves of validation"] = again.to_dicts()
    return found


def furthest_by_chance(table: pl.DataFrame) -> dict[str, float]:
    """How far the furthest tenth of users would be off if the truth were the promise."""
    tenths = table.filter(pl.col("group") != "all")
    error = (tenths["high"] - tenths["low"]).to_numpy() / (2 * 1.96)
    drawn = abs(np.random.default_rng(0).normal(size=(10_000, len(error))) * error[None, :])
    worst = drawn.max(axis=1)
    return {"mean": float(worst.mean()), "19 of 20 below": float(np.quantile(worst, 0.95))}


def of_run(folder: Path, users: int) -> dict:
    """All that is measured of one run."""
    model = ik.Predictor.load(folder / "models" / "0")
    split = ik.Split.load(folder / "split")
    truth = ik.held_out(model.features, split, "test")
    chosen = np.random.default_rng(0).permutation(len(truth)) < users
    some = part_of(truth, chosen).histories
    found = {
        "data": split.name,
        "users": len(some),
        "median events": float(np.median(truth.histories.lengths)),
    }
    found |= believed(folder, model, split, truth)
    for target in ("interest", "item") if users else ():
        explained = ik.explain(model, some, target=target)
        checks = ik.faithfulness(explained)
        found[target] = {
            "checks": explained.checks,
            "gains": checks.gains.to_dicts(),
            "sanity": checks.sanity.to_dicts(),
            "explain, milliseconds": milliseconds(
                lambda h, t=target: ik.explain(model, h, target=t), some
            ),
        }
        changes = ik.counterfactual(model, some, target=target)
        found[target] |= {
            "counterfactual": changes.told[1],
            "counterfactual, milliseconds": milliseconds(
                lambda h, t=target: ik.counterfactual(model, h, target=t), some, 1
            ),
        }
    probed = ik.probe(model, truth)
    return found | {"probe": {k: getattr(probed, k) for k in ("accuracy", "control", "majority")}}


def planted(num_events: int = 12, trials: int = 2_000) -> dict:
    """How often the events that carry the interest asked about come first, of others that do not.

    A model learns from simulated users with planted interests. Then histories are made: events on
    random items, at random days, of which one (or three) carry an interest and the others carry
    others; the interest is asked about, and its carriers should come first.
    """
    log, _ = ik.clean(ik.simulate(num_users=1_000, seed=1), **FIVE_CORE)
    split = ik.temporal_split(log)
    features = ik.fit_features(split.before("test"), split.items)
    histories = features.histories(split.before("test"))
    result = ik.fit(features, histories, stop_after=4, progress=False)
    model, rng, found = (
        ik.Predictor(features=features, model=result.model),
        np.random.default_rng(0),
        {},
    )
    label = np.where(
        features.item_interests.any(axis=1), features.item_interests.argmax(axis=1), -1
    )
    label[~features.is_candidate] = -1
    for carriers in (1, 3):
        asked = rng.integers(0, features.num_interests, trials)
        item, is_cause = np.zeros((trials, num_events), int), np.zeros((trials, num_events), bool)
        for row, interest in enumerate(asked):
            is_cause[row, rng.choice(num_events, carriers, replace=False)] = True
            own, others = (
                np.flatnonzero(label == interest),
                np.flatnonzero((label != interest) & (label >= 0)),
            )
            item[row] = np.where(
                is_cause[row], rng.choice(own, num_events), rng.choice(others, num_events)
            )
        days = np.sort(rng.uniform(0, 60, (trials, num_events)), axis=1)
        moment = int(features.seconds(pl.Series([features.fitted_until]))[0])
        made = replace(
            histories,
            users=np.array([f"trial {n}" for n in range(trials)], object),
            offsets=(np.arange(trials + 1) * num_events).astype(np.int32),
            item=item.ravel().astype(np.int32),
            seconds=(moment - 86_400 * (60.5 - days)).astype(np.int32).ravel(),
            weight=np.ones(trials * num_events, np.float32),
            moment=np.full(trials, moment, np.int32),
        )
        names = [features.interests[code] for code in asked]
        table = ik.explain(model, made, of=names).table
        for kind in ("without", "gradient"):
            value = table[kind].to_numpy().reshape(trials, num_events)[:, ::-1]  # the oldest first
            first = np.argsort(-value, axis=1)[:, :carriers]
            right = np.take_along_axis(is_cause, first, axis=1)
            found[f"{carriers} of {num_events}, {kind}"] = {
                "first is a cause": float(right[:, 0].mean()),
                "all causes first": float(right.all(axis=1).mean()),
            }
    return {"data": "simulated, planted causes", "trials": trials, "found": found}


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders of runs")
    parser.add_argument("--users", type=int, default=300, help="users explained of each (300)")
    parser.add_argument("--planted", action="store_true", help="planted causes on simulated users")
    options = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    works = [lambda f=folder: of_run(f, options.users) for folder in options.folders]
    for work in works + ([planted] if options.planted else []):
        found = work() | {"machine": machine()}
        text = json.dumps(found, indent=1, default=str)
        name = found["data"].split(",")[0]
        (RUNS / f"explaining-{name}.json").write_text(text + "\n", encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
