"""Full-catalogue ranking and six metrics per user: ours, torch, ranx and RecTools.

User vectors times item vectors give scores of all items; each user's best k are listed and judged:
NDCG, recall, precision, MAP, MRR and hit rate at k. `seconds` is all of that, after one call that
compiles and warms up (`cold_seconds`). `metrics_seconds` goes from lists as arrays to the metrics,
with `objects_seconds` in it: what it takes to bring arrays into the form that ranx and RecTools ask
for. `arrays_seconds` is ranx given arrays of numbers, without its Qrels and Run. RecTools gives
means over users. `top_k_users_per_second` is top-k of scores that are there already.

    sh benchmarks/peers/environment.sh metrics
    python benchmarks/ranking.py                # or --num-users 10000 --repeats 2
"""

import time

import numpy as np
from timing import PEERS, Side, main, peak_gigabytes

NUM_RELEVANT = 10  # held-out items drawn for each user; drawn twice, they count once
BLOCK = 128  # users at a time: `top_k` is fastest so
TORCH_BLOCKS = (64, 128, 256, 512, 1024, 2048)
OPTIONS = {"num_users": 100_000, "num_items": 20_000, "dim": 64, "k": 20}
METRICS = ("ndcg", "recall", "precision", "map", "mrr", "hit_rate")


def world(num_users: int, num_items: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of users and items, and relevant items of each user, padded with -1.

    Popular items have higher scores and are more often relevant, so that lists hit some.
    """
    rng = np.random.default_rng(0)
    users = rng.standard_normal((num_users, dim), np.float32)
    items = rng.standard_normal((num_items, dim), np.float32)
    share = 1 / np.arange(1, num_items + 1) ** 0.8
    users[:, 0] = 2.0
    items[:, 0] = 2 * np.log(share[rng.permutation(num_items)])
    share = np.exp(items[:, 0].astype(float) / 2)
    relevant = rng.choice(num_items, (num_users, NUM_RELEVANT), p=share / share.sum())
    relevant = np.sort(relevant, axis=1)
    relevant[:, 1:][relevant[:, 1:] == relevant[:, :-1]] = -1
    return users, items, -np.sort(-relevant, axis=1).astype(np.int32)


def timed(work, *arguments) -> tuple[object, float]:
    """What the work returns, and its seconds."""
    began = time.perf_counter()
    found = work(*arguments)
    return found, time.perf_counter() - began


def best_of(times: int, work, *arguments) -> float:
    """Seconds of the fastest of some calls."""
    return min(timed(work, *arguments)[1] for _ in range(times))


def figures(num_users: int, cold: float, seconds: float, values: dict) -> dict[str, float]:
    """Measures of a side that ranks and judges."""
    means = {metric: float(np.mean(values[metric], dtype=float)) for metric in METRICS}
    speed = {"seconds": seconds, "users_per_second": num_users / seconds, "cold_seconds": cold}
    return speed | {"mean_ndcg": means["ndcg"], "mean_map": means["map"]}


def kit_values(codes, relevant, k: int) -> dict:
    """The six metrics from the functions of the kit."""
    from interestkit import metrics

    hits = (codes[:, :, None] == relevant[:, None, :]).any(axis=2)
    judged = {"hits": hits, "num_relevant": (relevant >= 0).sum(axis=1), "k": k}
    return {
        "ndcg": metrics.ndcg_at_k(**judged),
        "recall": metrics.recall_at_k(**judged),
        "precision": metrics.precision_at_k(**judged),
        "map": metrics.average_precision_at_k(**judged, truncated=False),
        "mrr": metrics.reciprocal_rank_at_k(**judged),
        "hit_rate": metrics.hit_rate_at_k(**judged),
    }


def in_blocks(array: np.ndarray, empty: float) -> np.ndarray:
    """The rows in blocks of users, the last one filled up."""
    missing = -len(array) % BLOCK
    rows = np.pad(array, ((0, missing), (0, 0)), constant_values=empty)
    return rows.reshape(-1, BLOCK, array.shape[1])


def ours(num_users: int, num_items: int, dim: int, k: int) -> dict[str, float]:
    """One compiled program over blocks of users, made of functions of the kit."""
    import jax
    import jax.numpy as jnp

    imported = peak_gigabytes()
    from interestkit import metrics

    @jax.jit
    def rank_and_judge(users, items, relevant):
        def block(part):
            codes = metrics.top_k(part[0] @ items.T, k)[1]
            return codes, kit_values(codes, part[1], k)

        return jax.lax.map(block, (users, relevant))

    users, items, relevant = world(num_users, num_items, dim)
    blocks = (in_blocks(users, 0), items, in_blocks(relevant, -1))

    def whole():
        found = jax.tree.map(np.asarray, rank_and_judge(*blocks))
        return jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:])[:num_users], found)

    (codes, values), cold = timed(whole)
    seconds = best_of(2, whole)
    judge = jax.jit(kit_values, static_argnums=2)
    alone = best_of(4, lambda: jax.tree.map(np.asarray, judge(codes, relevant, k)))
    scores, rank = jnp.asarray(users[:BLOCK] @ items.T), jax.jit(metrics.top_k, static_argnums=1)
    times = max(num_users // BLOCK // 4, 1)
    ranked = best_of(3, lambda: [jax.block_until_ready(rank(scores, k)) for _ in range(times)])
    return figures(num_users, cold, seconds, values) | {
        "metrics_seconds": alone,
        "top_k_users_per_second": BLOCK * times / ranked,
        "above_import_gigabytes": peak_gigabytes() - imported,
    }


def torch_values(codes, relevant, k: int) -> dict:
    """The six metrics in plain torch: hits by comparison, sums over ranks."""
    import torch

    hits = (codes[:, :, None] == relevant[:, None, :]).any(dim=2).float()
    count = (relevant >= 0).sum(dim=1)
    ranks = torch.arange(1, k + 1, dtype=torch.float32)
    discount = 1 / torch.log2(ranks + 1)
    best = torch.cumsum(discount, 0)[count.clamp(max=k) - 1]
    precision = hits.cumsum(dim=1) / ranks
    return {
        "ndcg": hits @ discount / best,
        "recall": hits.sum(dim=1) / count,
        "precision": hits.mean(dim=1),
        "map": (hits * precision).sum(dim=1) / count,
        "mrr": (hits / ranks).amax(dim=1),
        "hit_rate": hits.amax(dim=1),
    }


def torch_side(num_users: int, num_items: int, dim: int, k: int) -> dict[str, float]:
    """torch.topk on blocks of scores in buffers used again, with the block size that is fastest."""
    import torch

    imported = peak_gigabytes()
    users, items, relevant = map(torch.from_numpy, world(num_users, num_items, dim))

    def rank(block: int, users):
        codes = torch.empty(len(users), k, dtype=torch.int64)
        scores, best = torch.empty(block, num_items), torch.empty(block, k)
        for first in range(0, len(users), block):
            own = users[first : first + block]
            part = torch.mm(own, items.T, out=scores[: len(own)])
            torch.topk(part, k, dim=1, out=(best[: len(own)], codes[first : first + block]))
        return codes

    def rank_and_judge(block: int):
        codes = rank(block, users)
        return codes, torch_values(codes, relevant, k)

    with torch.inference_mode():
        few = users[: max(TORCH_BLOCKS) * 2]
        block = min(TORCH_BLOCKS, key=lambda block: best_of(3, rank, block, few))
        (codes, values), cold = timed(rank_and_judge, block)
        seconds = best_of(2, rank_and_judge, block)
        alone = best_of(3, torch_values, codes, relevant, k)
        scores = users[:block] @ items.T
        times = max(num_users // block // 4, 1)
        ranked = best_of(2, lambda: [torch.topk(scores, k, dim=1) for _ in range(times)])
    values = {metric: array.numpy() for metric, array in values.items()}
    return figures(num_users, cold, seconds, values) | {
        "metrics_seconds": alone,
        "top_k_users_per_second": block * times / ranked,
        "above_import_gigabytes": peak_gigabytes() - imported,
        "block": block,
    }


def lists(num_users: int, num_items: int, dim: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of each user's best items, and the relevant ones, as arrays."""
    users, items, relevant = world(num_users, num_items, dim)
    codes = np.empty((num_users, k), np.int32)
    for first in range(0, num_users, BLOCK):
        scores = users[first : first + BLOCK] @ items.T
        best = np.argpartition(-scores, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
        codes[first : first + BLOCK] = np.take_along_axis(best, order, 1)
    return codes, relevant


def judged_by_others(judge, make) -> tuple[dict, dict[str, float]]:
    """Values, and seconds: of the first call, then of making objects and of judging them."""
    _, cold = timed(lambda: judge(*make()))
    found, objects = timed(make)
    values, seconds = timed(judge, *found)
    took = {"metrics_seconds": objects + seconds, "objects_seconds": objects}
    return values, took | {"judging_seconds": seconds, "metrics_cold_seconds": cold}


def ranx_side(num_users: int, num_items: int, dim: int, k: int) -> dict[str, float]:
    """ranx on the same lists: Qrels and Run from dictionaries of text, and arrays of numbers."""
    import ranx

    codes, relevant = lists(num_users, num_items, dim, k)
    asked = [f"{metric}@{k}" for metric in METRICS]
    falling = list(range(k, 0, -1))
    names = {code: str(code) for code in range(num_items)}
    users = [f"{user:09}" for user in range(num_users)]

    def make():
        listed = [dict(zip(map(names.get, row), falling, strict=True)) for row in codes.tolist()]
        wanted = [{names[code]: 1 for code in row if code >= 0} for row in relevant.tolist()]
        run = ranx.Run(dict(zip(users, listed, strict=True)))
        return ranx.Qrels(dict(zip(users, wanted, strict=True))), run

    def make_arrays():
        rank = np.broadcast_to(np.arange(k, 0, -1), codes.shape)
        grade = (relevant >= 0).astype(float)
        return np.stack([relevant, grade], axis=2), np.stack([codes, rank], axis=2).astype(float)

    def judge(qrels, run):
        return ranx.evaluate(qrels, run, asked, return_mean=False)

    values, took = judged_by_others(judge, make)
    of_arrays, took_arrays = judged_by_others(judge, make_arrays)
    took["arrays_seconds"] = took_arrays["metrics_seconds"]
    took["arrays_mean_ndcg"] = float(of_arrays[f"ndcg@{k}"].mean())
    return took | {f"mean_{name}": float(values[f"{name}@{k}"].mean()) for name in ("ndcg", "map")}


def rectools_side(num_users: int, num_items: int, dim: int, k: int) -> dict[str, float]:
    """RecTools on the same lists: two tables, of which `calc_metrics` gives means over users."""
    import pandas as pd
    from rectools import Columns, metrics

    codes, relevant = lists(num_users, num_items, dim, k)
    asked = {"ndcg": metrics.NDCG(k, divide_by_achievable=True), "recall": metrics.Recall(k)}
    asked |= {"precision": metrics.Precision(k), "map": metrics.MAP(k)}
    asked |= {"mrr": metrics.MRR(k), "hit_rate": metrics.HitRate(k)}

    def make():
        users, ranks = np.indices(codes.shape)
        listed = {Columns.User: users.ravel(), Columns.Item: codes.ravel()}
        user, place = np.nonzero(relevant >= 0)
        wanted = {Columns.User: user, Columns.Item: relevant[user, place]}
        return pd.DataFrame(listed | {Columns.Rank: ranks.ravel() + 1}), pd.DataFrame(wanted)

    def judge(listed, wanted):
        return metrics.calc_metrics(asked, listed, wanted)

    values, took = judged_by_others(judge, make)
    return took | {f"mean_{name}": float(values[name]) for name in ("ndcg", "map")}


if __name__ == "__main__":
    environment = PEERS / "metrics"
    main(
        "ranking",
        __doc__,
        {
            "ours": Side(work=ours),
            "torch": Side(work=torch_side, environment=environment),
            "ranx": Side(work=ranx_side, environment=environment),
            "RecTools": Side(work=rectools_side, environment=environment),
        },
        options=OPTIONS,
        repeats=3,
        shown=("seconds", "metrics_seconds"),
    )
