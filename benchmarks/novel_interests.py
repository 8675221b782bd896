"""Interests that users have not touched but will: the model beside tuned baselines, on test.

    INTERESTKIT_DATA=FOLDER python benchmarks/novel_interests.py --page docs/novel_interests.md

`--data online-retail` takes one data set; "departments" are the groceries by coarser interests.
Settings of baselines and the model's penalty are chosen on the validation part. The fit has no
chance in it: what is uncertain are the users, who are resampled. For the simulated log, "planted"
ranks by the interests that were planted in each user: nobody can know more, so that its lead is the
most that can be had.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from timing import FIVE_CORE

import interestkit as ik
from interestkit.exploration.counting import BASELINES
from interestkit.exploration.crowd import labels_touched
from interestkit.exploration.judged import TARGET, judge_novel, tune_novel
from interestkit.exploration.novel import fit_novel

DATA = {
    "complete-journey": ("complete-journey", {}),
    "departments": ("complete-journey", {"interests": "department"}),
    "online-retail": ("online-retail", {}),
    "simulated": ("simulated", {}),
}
PENALTIES = (1e-3, 1e-2, 1e-1)
NAMED = ("similar users", "co-occurrence")  # the better of these is what is to be beaten
RESAMPLES = 2_000


class Planted:
    """Ranks untouched interests by the weights that the simulation gave each user."""

    def __init__(self, features) -> None:
        self.features = features
        planted = ik.planted_interests().pivot("interest", index="user", values="end")
        self.weights = {row.pop("user"): row for row in planted.to_dicts()}

    def novelty(self, histories):
        """Planted weights at the end of the log, of what is untouched."""
        rows = [self.weights[user] for user in histories.users]
        scores = np.array([[row[name] for name in self.features.interests] for row in rows])
        return np.where(labels_touched(self.features, histories), -np.inf, scores)


def parts_of(split, part):
    """Features, histories and held-out users of a part."""
    features = ik.fit_features(split.before(part), split.items)
    return features, features.histories(split.before(part)), ik.held_out(features, split, part)


def days_of(split) -> float:
    """Length of the validation period, which is what the test period is taken to be."""
    times = split.validation["time"]
    return (times.max() - times.min()).total_seconds() / 86_400


def ndcg(evaluation, name, metric="NDCG@3"):
    """Values of all users, in one order."""
    return evaluation.per_user.filter(model=name, metric=metric)["value"].to_numpy()


def ratio(ours, theirs):
    """Ratio of two means over the same users, with its 95 % bootstrap interval."""
    known = ~np.isnan(ours)
    ours, theirs = ours[known], theirs[known]
    draws = np.random.default_rng(0).integers(len(ours), size=(RESAMPLES, len(ours)))
    ratios = ours[draws].mean(axis=1) / theirs[draws].mean(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(ours.mean() / theirs.mean()), float(low), float(high)


def measure(data: str) -> dict:
    """Everything about one data set."""
    name, options = DATA[data]
    log, _ = ik.clean(ik.load(name, **options), **FIVE_CORE)
    split, known = ik.temporal_split(log), {}
    days = days_of(split)
    features, histories, validation = parts_of(split, "validation")
    best = tune_novel(features, histories, validation, progress=False)
    for penalty in PENALTIES:
        model = fit_novel(features, histories, days=days, penalty=penalty, progress=False)
        values = ndcg(judge_novel({"model": model}, validation, features), "model")
        known[penalty] = float(np.nanmean(values))
    penalty = max(known, key=known.get)
    features, histories, truth = parts_of(split, "test")
    model = fit_novel(features, histories, days=days, penalty=penalty, progress=False)
    rankers = {"model": model}
    for name, settings in best.items():
        rankers[name] = BASELINES[name][0](features=features, log=histories, **settings)
    if data == "simulated":
        rankers["planted"] = Planted(features)
    evaluation = judge_novel(rankers, truth, features)
    found = {name: ndcg(evaluation, name) for name in rankers}
    better = max(NAMED, key=lambda name: np.nanmean(found[name]))
    over = {name: ratio(found["model"], found[name]) for name in found if name != "model"}
    table = evaluation.table().filter(pl.col("target") == TARGET)
    return {
        "data": data,
        "interests": features.num_interests,
        "users": int((~np.isnan(found["model"])).sum()),
        "better": better,
        "settings": best,
        "penalty": known,
        "table": table.to_dicts(),
        "ratio": over,
    }


HEAD = """# Interests that somebody has not touched yet

Made by `python benchmarks/novel_interests.py --page docs/novel_interests.md`: the interests that
users touch in the test period and never did before, ranked among all that they had not touched.
Settings of all rankers are chosen on the validation part. [ ] are 95 % intervals over users; the
last column is the mean of the model over that of the row. Users and items with fewer than five
events in the whole log, test period included, are left out, as in the 5-core of papers.

"""
NOTE = """
**What this says.** Of the groceries' 288 interests the model finds 7 % more of the novel ones than
the better named baseline, and 30 % more than a ranking that is the same for everybody. On the shop
it is ahead of both named baselines, but no better than what others lately took up: there, new
interests follow the season more than the person. By the groceries' few departments nobody is ahead,
and by the simulator, whose interests are independent of each other, nobody can be but who knows
what was planted. The aim was 1.3 times the better named baseline. It is missed; an MLP, bilinear
factors, and the trained model's own scores found no more.
"""


def table_of(found: dict) -> str:
    """Markdown of one data set."""
    lines = [f"**{found['data']}** ({found['users']:,} users, {found['interests']} interests)", ""]
    lines.append("| ranker | NDCG@3 | recall@3 | interest coverage@3 | model over it |")
    lines.append("|---|---|---|---|---|")
    for row in found["table"]:
        if row["metric"] == "NDCG@3":
            rest = {r["metric"]: r["value"] for r in found["table"] if r["model"] == row["model"]}
            times = found["ratio"].get(row["model"])
            said = "" if times is None else "{:.2f} [{:.2f}, {:.2f}]".format(*times)
            ndcg = f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
            parts = [ndcg, f"{rest['recall@3']:.4f}", f"{rest['interest coverage@3']:.2f}", said]
            lines.append(f"| {row['model']} | " + " | ".join(parts) + " |")
    return "\n".join([*lines, "", f"The better named baseline is {found['better']}.", ""])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--page", type=Path, help="write the tables to this Markdown file too")
    options = parser.parse_args()
    tables = []
    for data in options.data:
        tables.append(table_of(measure(data)))
        print(tables[-1], flush=True)
    if options.page:
        options.page.write_text(HEAD + "\n".join(tables) + NOTE, encoding="utf-8")


if __name__ == "__main__":
    main()
