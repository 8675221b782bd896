"""What faults and attacks in the training part do to a model, and what of it is held back.

    python benchmarks/faults.py                       # both logs, two seeds: an hour on two cores
    python benchmarks/faults.py --data movietweetings-40k --only "20 % missing"
    python benchmarks/faults.py --table docs/faults.md

Faults are put into the events before the test period, which itself stays as it is; then the log is
cleaned as always, and features and model are fitted. The users are those who are judged on the
clean log, whatever is left of their history. Shilling adds fake users, 5 % of the real ones, who
all have the same five items besides what hides them:

    random       items at random
    average      items as popular as those of real users
    bandwagon    the most popular items
    copied       the items of a real user
    aged copies  the same at the times of that user, so that the account is as old

All but the last register and act within the last twelfth of the log. Exposure is the share of real
users who have one of the five in their ten new items, as a mean over the five. "with cap" is
`interestkit.without_bursts`. Intervals are 95 % bootstrap intervals over users, of means over
seeds.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from perturbing import FAULTS, KINDS, Study
from timing import FIVE_CORE, RUNS, machine

NUM_TARGETS = 5
DATA = {"movietweetings-40k": None, "complete-journey": 200}  # users that are drawn of it
STORE = RUNS / "faults.json"
KNOWN = (0, 1, 2, 3, 5)  # newest events of a user of whom no more is known
CAPPED = ["clean", *(f"shilling, {kind}" for kind in KINDS)]
CASES = [(name, cap) for name in FAULTS for cap in ((False, True) if name in CAPPED else (False,))]
HEAD = """# Faults and attacks in the training part

![Change of NDCG@10 and exposure of pushed items for each fault](images/faults.png)

Measured by `python benchmarks/faults.py`, whose first lines say what each attack is
(`benchmarks/perturbing.py`: each other fault), and written by
`python benchmarks/faults.py --table docs/faults.md`. The test period stays as it is, and so do the
users who are judged. In brackets: change against the clean log, 95 % bootstrap interval over
users. *Exposure* is the share of real users who have a pushed item in their ten new items, as a
mean over the five that all fake users (5 % of the real ones) have. *with cap*: learned from
`interestkit.without_bursts(events)`. The groceries are those of 200 households drawn at random, by
`--data complete-journey --epochs 3`. Users and items with fewer than five events in the whole log,
test period included, are left out, as in the 5-core of papers: of the films' 842 users 96 would not
be judged but for what they did in the test period.

Why `without_bursts` is a call and no rule of `clean`: `clean` sees the whole log before it is cut,
and what is judged must neither lose events nor decide, from the future, which events of the past
go. A real hit that new users come for looks like an attack, so the cap takes part of both (the rows
*clean, with cap*); how new is new, and whom to trust, is for whoever knows the log to say.

In the row *cold users* a third of the users have lost all but their newest event. In the last table
all judged users have all but their newest events hidden. The model has hardly seen
such short histories where people have long ones. *model or popular* is `interestkit.ColdStart` with
the number of events that `interestkit.cold_start` chose on validation, as notebook 03 chooses it
and notebook 04 recommends. That choice is about lists with repeats: among new items alone, what a
user is hidden to have had already counts as new, and popularity may be ahead for longer.
"""
METRICS = ("items: NDCG@10", "interests: NDCG@3", "exposure")


def study_of(name: str, num_users: int | None) -> Study:
    """The study of a data set, or of so many of its users."""
    import interestkit as ik

    log, _ = ik.clean(ik.load(name), **FIVE_CORE)
    if num_users:
        users = log.events["user"].unique().sort().sample(num_users, seed=0)
        some = log.events.filter(pl.col("user").is_in(users.implode()))
        log, _ = ik.clean(replace(log, events=some), **FIVE_CORE)
    split = ik.temporal_split(log)
    events = split.before("test")
    features = ik.fit_features(events, split.items)
    truth = ik.held_out(features, split, "test")
    ranked = features.items["item"]
    targets = ranked[20:120].sample(NUM_TARGETS, seed=1).to_list()
    return Study(
        log=log, split=split, events=events, features=features, truth=truth, targets=targets
    )


def fitted(study: Study, events: pl.DataFrame, *, cap: bool, epochs: int, seeds: int):
    """Per-user values of `METRICS`, one row per seed, of a model trained on these events."""
    import interestkit as ik

    log, _ = ik.clean(replace(study.log, events=events), kcore=False)
    learned = log.events.sort("user", "time", "item", "kind", maintain_order=True)
    if cap:
        learned, _ = ik.without_bursts(learned)
    features = ik.fit_features(learned, study.split.items, until=study.split.cut("test"))
    truth = _recoded(study, features, log.events)
    histories = features.histories(learned)
    config = ik.TrainingConfig(epochs=epochs)
    found = []
    for seed in range(seeds):
        fit = ik.fit(features, histories, config=config, seed=seed, progress=False)
        model = ik.Predictor(features=features, model=fit.model)
        found.append(judged(study, model, truth, features))
    return {name: np.stack([row[name] for row in found]) for name in found[0]}


def _recoded(study: Study, features, events: pl.DataFrame):
    """The judged users of the clean log, with the histories and codes of other features."""
    users = study.truth.histories.users
    moments = study.split.moments_test.filter(pl.col("user").is_in(users.tolist()))
    moments = pl.DataFrame({"user": users}).join(moments, on="user", maintain_order="left")
    names = pl.concat([study.features.items["item"], pl.Series("item", [None], pl.String)])
    codes = features.codes(names)  # the last stands for code -1
    old = study.truth.relevant["code"].to_numpy()
    relevant = study.truth.relevant.with_columns(code=pl.Series(codes[old], dtype=pl.Int32))
    place = {name: number for number, name in enumerate(study.features.interests)}
    columns = [place[name] for name in features.interests]
    return replace(
        study.truth,
        histories=features.histories(events, moments=moments),
        relevant=relevant,
        interest_shares=study.truth.interest_shares[:, columns],
        next_interests=study.truth.next_interests[:, columns],
    )


def judged(study: Study, ranker, truth, features) -> dict[str, np.ndarray]:
    """One value per user of each of `METRICS`."""
    from interestkit import metrics

    codes, _ = ranker.rank(truth.histories, k=10, exclude_seen=False)
    new, _ = ranker.rank(truth.histories, k=10, exclude_seen=True)
    best = np.argsort(-ranker.interests(truth.histories), axis=1, kind="stable")[:, :3]
    shares = study.truth.interest_shares
    gains = np.take_along_axis(truth.interest_shares, best, axis=1)
    pushed = features.codes(pl.Series("item", study.targets))
    values = (
        metrics.ndcg_at_k(truth.hits(0, codes), truth.num_relevant(), k=10),
        metrics.graded_ndcg_at_k(gains, shares, k=3),
        np.mean([(new == code).any(axis=1) for code in pushed], axis=0),
    )
    return {name: np.asarray(v, float) for name, v in zip(METRICS, values, strict=True)}


def cold(study: Study, epochs: int, seeds: int) -> dict[str, dict[str, np.ndarray]]:
    """NDCG@10 of model and popularity for users of whom only `KNOWN` newest events are known."""
    import interestkit as ik
    from interestkit.coldstart import ColdStart

    features, histories = study.features, study.features.histories(study.events)
    rankers = {
        "popular": [ik.Popular(features=features, log=histories)],
        "popular of late": [
            ik.Popular(features=features, log=histories, days=features.scales_days[1])
        ],
    }
    config = ik.TrainingConfig(epochs=epochs)
    fits = [
        ik.fit(features, histories, config=config, seed=seed, progress=False)
        for seed in range(seeds)
    ]
    rankers["model"] = [ik.Predictor(features=features, model=fit.model) for fit in fits]
    min_events = _min_events(study, config)
    rankers["model or popular"] = [
        ColdStart(model=model, fallback=rankers["popular"][0], min_events=min_events)
        for model in rankers["model"]
    ]
    found = {}
    for known in KNOWN:
        truth = replace(study.truth, histories=study.truth.histories.newest(known))
        found[str(known)] = {
            name: np.stack([judged(study, ranker, truth, features)[METRICS[0]] for ranker in each])
            for name, each in rankers.items()
        }
    return found


def _min_events(study: Study, config) -> int:
    """From which number of events on the model serves validation users better than popularity."""
    import interestkit as ik

    before = study.split.before("validation")
    features = ik.fit_features(before, study.split.items)
    histories = features.histories(before)
    fit = ik.fit(features, histories, config=config, progress=False)
    model = ik.Predictor(features=features, model=fit.model)
    popular = ik.Popular(features=features, log=histories)
    return ik.cold_start(
        model, popular, ik.held_out(features, study.split, "validation")
    ).min_events


def unchanged(study: Study) -> dict[str, bool]:
    """Whether exact copies and the order of rows leave all features and histories bit-identical."""
    import interestkit as ik

    def prints(log) -> list[bytes]:
        split = ik.temporal_split(ik.clean(log, **FIVE_CORE)[0])
        events = split.before("test")
        features = ik.fit_features(events, split.items.sort("item"))
        own = features.histories(events)
        arrays = (features.popularity, features.content, features.item_interests)
        arrays += (own.offsets, own.item, own.seconds, own.weight, own.moment)
        return [np.ascontiguousarray(array).tobytes() for array in arrays]

    events, before = study.log.events, prints(study.log)
    copied = pl.concat([events, events.sample(fraction=0.1, seed=3)])
    mixed = events.sample(fraction=1, shuffle=True, seed=4)
    return {
        "a tenth of the rows twice": prints(replace(study.log, events=copied)) == before,
        "rows in another order": prints(replace(study.log, events=mixed)) == before,
    }


def measure(name: str, only: list[str], epochs: int, seeds: int) -> dict:
    """All cases of a data set; each is stored as soon as it is known."""
    from interestkit.comparison import bootstrap_interval
    from interestkit.progress import progress_bar

    study = study_of(name, DATA[name])
    stored = {"users": len(study.truth), "epochs": epochs, "seeds": seeds}
    stored["cases"] = _known_cases(name, stored)
    stored["unchanged"] = unchanged(study)
    stored["cold"] = {}
    for known, each in cold(study, epochs, seeds).items():
        stored["cold"][known] = {}
        for who, values in each.items():
            gain = values.mean(axis=0) - each["popular"].mean(axis=0)
            row = {"gain": np.nanmean(gain), "ends": bootstrap_interval(gain)}
            stored["cold"][known][who] = row | {"value": np.nanmean(values)}
    cases = [(case, cap) for case, cap in CASES if not only or case in ("clean", *only)]
    clean = None
    for case, cap in progress_bar(cases, label=name, unit="case"):
        events = FAULTS[case](study, np.random.default_rng(7))
        values = fitted(study, events, cap=cap, epochs=epochs, seeds=seeds)
        clean = values if clean is None else clean
        row = {}
        for metric, own in values.items():
            mean, base = own.mean(axis=0), clean[metric].mean(axis=0)
            ends = bootstrap_interval(mean - base)
            row[metric] = {"value": np.nanmean(mean), "difference": np.nanmean(mean - base)}
            row[metric] |= {"low": ends[0], "high": ends[1], "seeds": np.nanmean(own, 1).tolist()}
        stored["cases"][case + (", with cap" if cap else "")] = row
        store(name, stored)
    return stored


def _known_cases(name: str, facts: Mapping) -> dict:
    """Cases that are stored already, if they were measured with the same users and settings."""
    path = STORE.with_stem(f"faults-{name}")
    old = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return old["cases"] if old and all(old.get(key) == facts[key] for key in facts) else {}


def store(name: str, found: Mapping) -> None:
    """Put what is known of a data set beside that of others."""
    path = STORE.with_stem(f"faults-{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), **found}, indent=1, default=float)
    path.write_text(text + "\n", "utf-8")


def page(results: Mapping[str, Mapping]) -> str:
    """The results as tables of Markdown."""
    lines = []
    for name, found in results.items():
        base = found["cases"]["clean"]
        lines += [f"\n**{name}**: {found['users']:,} users, {_facts(found)}\n"]
        lines += [
            "| training part | NDCG@10 of items | NDCG@3 of interests | exposure of the five |"
        ]
        lines += ["|---|---|---|---|"]
        for case, row in found["cases"].items():
            cells = [f"{row[m]['value']:.4f} {_change(row[m], base[m])}" for m in METRICS[:2]]
            shown = row["exposure"]
            times = shown["value"] / max(base["exposure"]["value"], 1e-9)
            cells += [f"{shown['value']:.2%} ({times:.2g} times)"]
            lines += [f"| {case} | " + " | ".join(cells) + " |"]
        lines += [""]
        for what, same in found["unchanged"].items():
            lines += [
                f"{what}: features and histories are {'bit-identical' if same else 'OTHERS'}."
            ]
        whos = list(next(iter(found["cold"].values())))
        lines += [
            "",
            f"| newest events known | {' | '.join(whos)} |",
            "|---" * (len(whos) + 1) + "|",
        ]
        for known, row in found["cold"].items():
            cells = [_beside(row[who], is_base=who == "popular") for who in whos]
            lines += [f"| {known} | {' | '.join(cells)} |"]
    return "\n".join(lines) + "\n"


def draw(results: Mapping[str, Mapping]):
    """A figure: change of NDCG@10 and exposure of the pushed items, a row of panels per log."""
    import matplotlib.pyplot as plt

    from interestkit import plots

    plots.use_style()
    heights = [len(found["cases"]) + 2 for found in results.values()]
    figure, axes = plt.subplots(
        len(results),
        2,
        squeeze=False,
        layout="constrained",
        height_ratios=heights,
        figsize=(9, 0.6 + 0.27 * sum(heights)),
    )
    for (left, right), (name, found) in zip(axes, results.items(), strict=True):
        cases, base = found["cases"], found["cases"]["clean"]
        rows = {case: number for number, case in enumerate(list(cases)[::-1])}
        for case, row in cases.items():
            colour = "C0" if case.endswith("with cap") else "C1"
            items, of = row[METRICS[0]], base[METRICS[0]]["value"] / 100
            ends = [items["low"] / of, items["high"] / of]
            left.plot(ends, [rows[case]] * 2, color=colour, linewidth=2)
            left.plot(items["difference"] / of, rows[case], "o", color=colour)
            right.plot(100 * row["exposure"]["value"], rows[case], "o", color=colour)
        left.axvline(0, color="black", linewidth=1)
        twice = 200 * base["exposure"]["value"]
        right.axvline(twice, color="black", linewidth=1, linestyle=":")
        for ax, labels in ((left, list(rows)), (right, [""] * len(rows))):
            ax.set_yticks(list(rows.values()), labels)
            ax.set_ylim(-0.7, len(rows) - 0.3)
        right.set_xlim(left=0)
        left.set(title=name, xlabel="change of NDCG@10 in %, 95 % interval")
        what = "users who are shown a pushed item, in %"
        right.set(title="dotted: twice that of the clean log", xlabel=what)
    return figure


def _facts(found: Mapping) -> str:
    return ", ".join(f"{found[name]} {name}" for name in ("seeds", "epochs"))


def _beside(own: Mapping, *, is_base: bool) -> str:
    """NDCG@10 of a ranker for cold users, and how far it is ahead of popularity."""
    low, high = own["ends"]
    ahead = "" if is_base else f" ({own['gain']:+.4f} [{low:+.4f}, {high:+.4f}])"
    return f"{own['value']:.4f}{ahead}"


def _change(row: Mapping, base: Mapping) -> str:
    if not row["difference"]:
        return ""
    low, high = (row[end] / base["value"] for end in ("low", "high"))
    return f"({row['difference'] / base['value']:+.1%} [{low:+.1%}, {high:+.1%}])"


def main() -> int:
    """Measure, or write the page of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=[])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--table", type=Path, help="write what is stored, with a figure beside")
    options = parser.parse_args()
    if options.table:
        paths = {name: STORE.with_stem(f"faults-{name}") for name in options.data}
        results = {name: json.loads(path.read_text("utf-8")) for name, path in paths.items()}
        options.table.write_text(HEAD + page(results), "utf-8")
        image = options.table.parent / "images" / "faults.png"
        image.parent.mkdir(exist_ok=True)
        draw(results).savefig(image, dpi=120)
        return 0
    for name in options.data:
        found = measure(name, options.only, options.epochs, options.seeds)
        print(page({name: found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
