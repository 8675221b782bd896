"""What content is worth for items that training never saw, and what a missing modality costs.

    python benchmarks/multimodal.py --seeds 3 --page docs/multimodal.md
    python benchmarks/multimodal.py --data complete-journey online-retail --seeds 1 --only cold
    python benchmarks/multimodal.py --again --page docs/multimodal.md

The log is cut in time. A tenth of the items, drawn anew for each seed, is *cold*: none of their
events is left in training or in a history. Models are fitted on the rest and given the cold items
afterwards (`with_new_items`), then asked for the test part.

    cold     users who come to have a cold item: recall@10 of these, ranked among all items that
             are new to the user, and among the cold ones alone
    absent   all judged users, items of training: NDCG@10 where the model is asked without one of
             its modalities, beside a model that was never given it

Modalities are the text of titles (WordLlama, 128 dimensions) and a planted "picture": interest
labels, randomly rotated, half of it noise, of 70 % of the items. Words and labels are content that
every model has, but for "no content". `--only cold` leaves out what only the second part needs.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from timing import FIVE_CORE, RUNS, machine

import interestkit as ik
from interestkit.colditems import without
from interestkit.comparison import bootstrap_interval, paired_statistics
from interestkit.features import Features
from interestkit.heldout import HeldOut
from interestkit.metrics import ndcg_at_k, recall_at_k

DATA = {"complete-journey": 200, "online-retail": None, "movietweetings-40k": None}  # users drawn
COLD = 0.1  # share of items
GIVEN = {  # modalities of each model; None: no content at all
    "no content": None,
    "words and labels": (),
    "words, labels, text": ("text",),
    "words, labels, picture": ("picture",),
    "all": ("text", "picture"),
}
ABSENT = {"text": "words, labels, picture", "picture": "words, labels, text"}
FOR_COLD = ("no content", "words and labels", "words, labels, text")
K = 10
LIFT = 1.0  # of new items, where they are to be seen among all


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """A split whose cold items are left out of all that is known before the test."""

    split: ik.Split
    cold: pl.DataFrame
    modalities: dict[str, ik.Modality]

    @cached_property
    def known(self) -> pl.DataFrame:
        """Events before the test, without cold items."""
        return self.split.before("test")

    def features(self, given: tuple[str, ...] | None) -> Features:
        """Features with some of the modalities, or with no content at all."""
        chosen = [self.modalities[name] for name in given or ()]
        features = ik.fit_features(self.known, self.split.items, modalities=chosen)
        if given is None:
            nothing = np.zeros((features.num_items, 0), np.float32)
            return replace(features, content=nothing, interest_source="behaviour")
        return features


def world_of(name: str, num_users: int | None, seed: int) -> World:
    """The data set, or so many of its users; which items are cold depends on the seed."""
    log, _ = ik.clean(ik.load(name), **FIVE_CORE)
    if num_users:
        users = log.events["user"].unique().sort().sample(num_users, seed=0)
        events = log.events.filter(pl.col("user").is_in(users.implode()))
        log = replace(log, events=events)
    split = ik.temporal_split(log, min_judged=0)
    frequent = split.before("test")["item"].value_counts().filter(pl.col("count") >= 5)["item"]
    names = frequent.sort().sample(fraction=COLD, seed=seed)
    is_cold = pl.col("item").is_in(names.implode())
    kept = {part: getattr(split, part).filter(~is_cold) for part in ("train", "validation")}
    return World(
        split=replace(split, **kept),
        cold=split.items.filter(is_cold),
        modalities={
            "text": ik.text_vectors(split.items, progress=False),
            "picture": planted(split.items),
        },
    )


def planted(items: pl.DataFrame, *, dim: int = 64) -> ik.Modality:
    """Vectors of what an item is about (labels, or words of the title), and as much noise."""
    rng = np.random.default_rng(0)
    labels = items["interests"].to_list()
    if not any(labels):
        labels = [title.lower().split() if title else [] for title in items["title"]]
    direction = {}
    for name in sorted({label for row in labels for label in row}):
        direction[name] = rng.normal(size=dim) / np.sqrt(dim)
    clean = np.array([sum((direction[name] for name in row), np.zeros(dim)) for row in labels])
    length = np.maximum(np.linalg.norm(clean, axis=1, keepdims=True), 1e-6)
    vectors = clean / length + rng.normal(size=clean.shape) / np.sqrt(dim)
    there = (rng.random(len(items)) < 0.7) & (length[:, 0] > 1e-3)
    return ik.Modality(
        name="picture", items=items["item"].filter(there), vectors=vectors[there], encoder="planted"
    )


def run(world: World, names: list[str], seed: int) -> list[dict]:
    """Rows of one seed: for each model and measure the value of each user."""
    rows, began = [], time.process_time()
    for name in names:
        given = GIVEN[name]
        features = world.features(given)
        histories = features.histories(world.known)
        fit = ik.fit(features, histories, stop_after=8, seed=seed, progress=False)
        model = ik.Predictor(features=features, model=fit.model)
        truth = ik.held_out(features, world.split)
        rows += absent_rows(name, model, truth, given or ())
        modalities = [world.modalities[each] for each in given or ()]
        rows += cold_rows(name, model, world, modalities)
        print(name, seed, f"{time.process_time() - began:.0f} CPU-seconds", flush=True)
    return [row | {"seed": seed} for row in rows]


def absent_rows(name: str, model: ik.Predictor, truth: HeldOut, given: tuple) -> list[dict]:
    """NDCG of all judged users with everything, and without each modality."""
    asked = {"nothing absent": model}
    for each in given if len(given) > 1 else ():
        asked[f"{each} absent"] = replace(model, features=without(model.features, each))
    rows = []
    for how, one in asked.items():
        for what, is_new in (("items", False), ("new items", True)):
            codes, _ = one.rank(truth.histories, k=K, exclude_seen=is_new)
            relevant = truth.num_relevant(new_only=is_new)
            values = ndcg_at_k(truth.hits(0, codes, new_only=is_new), relevant, k=K)
            rows.append({"model": name, "how": how, "measure": f"NDCG@{K}, {what}"})
            rows[-1]["users"] = np.asarray(values)[relevant > 0].tolist()
    return rows


def cold_rows(name: str, model: ik.Predictor, world: World, modalities: list) -> list[dict]:
    """Recall of cold items by users who come to have one."""
    ways = {"hybrid": 0.0, f"hybrid, lift {LIFT:g}": LIFT, "content": 0.0}
    if GIVEN[name] is None:
        ways = {"hybrid": 0.0}
    larger = ik.with_new_items(model, world.cold, modalities=modalities)
    truth = ik.held_out(larger.features, world.split)
    first = model.features.num_items
    relevant = truth.relevant.filter(pl.col("code") >= first)
    truth = replace(truth, relevant=relevant)
    number = truth.num_relevant()
    cold = np.arange(first, larger.features.num_items)
    rows = []
    for how, lift in ways.items():
        one = ik.with_new_items(model, world.cold, modalities=modalities, lift=lift)
        one = one.in_mode(how.split(",")[0])
        among_all, _ = one.rank(truth.histories, k=K)
        scores = one.score(truth.histories, np.tile(cold, (len(truth), 1)))
        scores = scores.astype(float)  # in float32 such small numbers would be lost
        scores += 1e-6 * np.random.default_rng(0).random(scores.shape)  # ties by chance
        among_cold = cold[np.argsort(-scores, axis=1)[:, :K]]
        for where, codes in (("all items", among_all), ("cold items", among_cold)):
            values = np.asarray(recall_at_k(truth.hits(0, codes), number, k=K))[number > 0]
            rows.append({"model": name, "how": how, "measure": f"recall@{K} among {where}"})
            rows[-1] |= {"users": values.tolist(), "cold": len(cold)}
    return rows


def cold_table(rows: list[dict]) -> list[str]:
    """Recall of each model on each data set, all users of all seeds."""
    lines = ["| data | model, mode | among | recall@10 | gain |", "|---" * 5 + "|"]
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data and "cold" in row]
        for measure in dict.fromkeys(row["measure"] for row in own):
            same = [row for row in own if row["measure"] == measure]
            nothing = _pooled(same, "no content", "hybrid")
            for model, how in dict.fromkeys((row["model"], row["how"]) for row in same):
                if model not in FOR_COLD:
                    continue
                values = _pooled(same, model, how)
                low, high = bootstrap_interval(values)
                base = nothing.mean()
                if "cold items" in measure:  # what a list in random order finds
                    base = np.mean([K / row["cold"] for row in same])
                times = f"{values.mean() / base:.1f} times" if base else "from nothing"
                where = measure.split("among ")[1]
                cells = f"{values.mean():.4f} [{low:.4f}, {high:.4f}] | {times}"
                lines.append(f"| {data} | {model}, {how} | {where} | {cells} |")
    return lines


def absent_table(rows: list[dict]) -> list[str]:
    """What a modality that is absent costs, against a model that was never given it."""
    head = "| data | absent | measure | never given | given, absent | change | given, there |"
    lines = [head, "|---" * 7 + "|"]
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data and "cold" not in row]
        for name, never in ABSENT.items():
            for measure in dict.fromkeys(row["measure"] for row in own):
                same = [row for row in own if row["measure"] == measure]
                seeds = sorted({row["seed"] for row in same if row["model"] == "all"})
                if not seeds:
                    continue
                without_it = _by_user(same, never, "nothing absent")
                absent = _by_user(same, "all", f"{name} absent")
                there = _by_user(same, "all", "nothing absent").mean()
                gain = paired_statistics((absent - without_it)[:, None], flips=99).row(0)
                change = [f"{100 * value / without_it.mean():+.1f} %" for value in gain[:3]]
                cells = [f"{value:.4f}" for value in (without_it.mean(), absent.mean())]
                cells += [f"{change[0]} [{change[1]}, {change[2]}]", f"{there:.4f}"]
                lines.append(f"| {data} | {name} | {measure} | {' | '.join(cells)} |")
    return lines


def _of(rows: list[dict], model: str, how: str) -> list[np.ndarray]:
    found = [np.array(r["users"]) for r in rows if (r["model"], r["how"]) == (model, how)]
    return found or [np.full(1, np.nan)]


def _pooled(rows: list[dict], model: str, how: str) -> np.ndarray:
    """Values of the users of all seeds: each has other cold items."""
    return np.concatenate(_of(rows, model, how))


def _by_user(rows: list[dict], model: str, how: str) -> np.ndarray:
    """Mean over seeds of the value of each user; those judged in each seed differ a little."""
    values = _of(rows, model, how)
    size = min(map(len, values))
    same = len({len(each) for each in values}) == 1
    return np.mean(values, axis=0) if same else np.concatenate([each[:size] for each in values])


HEAD = """# Several modalities

Made by `python benchmarks/multimodal.py --page docs/multimodal.md`; [ ] are 95 % intervals over
users. A tenth of the items is left out of training altogether, another tenth for each seed, and
given to the model afterwards. *Gain* is, among cold items, that over a list of them in random
order, which is what one has without any content (the model without content gives all cold items one
score, so that what it is above or below 1.0 is luck); among all items that over the model without
content, which finds none. *Given, absent* is the model that was trained with a modality whose
vectors are then gone, *never given* one trained without it. Users and items with fewer than five
events in the whole log, test period included, are left out, as in the 5-core of papers.

"""


def page(rows: list[dict]) -> str:
    """Both tables in Markdown."""
    seeds, users = len({row["seed"] for row in rows}), {row["data"]: 0 for row in rows}
    for row in rows:
        users[row["data"]] = len(row["users"]) if "cold" not in row else users[row["data"]]
    said = ", ".join(f"{name} {number:,} judged users" for name, number in users.items())
    parts = [f"{seeds} seeds; {said}.", "## Items that training never saw", ""]
    parts += [*cold_table(rows), "", "## A modality that is absent", "", *absent_table(rows)]
    return HEAD + "\n".join(parts) + "\n"


def main() -> None:
    """Fit what was asked for, and print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", type=int, nargs="?", default=3)
    parser.add_argument("--only", choices=["cold"], help="leave out what only `absent` needs")
    parser.add_argument("--out", type=Path, default=RUNS / "multimodal.rows")
    parser.add_argument("--again", action="store_true", help="the tables of what is in --out")
    parser.add_argument("--page", type=Path, help="write the tables to this Markdown file too")
    asked = parser.parse_args()
    rows = json.loads(asked.out.read_text("utf-8"))["rows"] if asked.out.exists() else []
    if not asked.again:
        rows = [row for row in rows if row["data"] not in asked.data]
        for data in asked.data:
            for seed in range(asked.seeds):
                world = world_of(data, DATA[data], seed)
                names = list(FOR_COLD) if asked.only else list(GIVEN)
                rows += [row | {"data": data} for row in run(world, names, seed)]
                asked.out.parent.mkdir(parents=True, exist_ok=True)
                record = {"machine": machine(), "rows": rows}
                asked.out.write_text(json.dumps(record) + "\n", "utf-8")
    print(page(rows))
    if asked.page:
        asked.page.write_text(page(rows), "utf-8")


if __name__ == "__main__":
    main()
