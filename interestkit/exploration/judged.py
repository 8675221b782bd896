"""Who names best the interests that were new to held-out users, and came."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from interestkit import metrics
from interestkit.evaluation import Evaluation, gather, runs_of
from interestkit.exploration.counting import BASELINES, NovelRanker
from interestkit.exploration.crowd import labels_touched
from interestkit.features import Features
from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.limits import check_counts, check_up_to
from interestkit.progress import progress_bar

TARGET = "novel interests"


def tune_novel(
    features: Features,
    log: Histories,
    validation: HeldOut,
    *,
    k: int = 3,
    num_trials: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, dict[str, object]]:
    """The settings of each baseline with the best NDCG at k on validation users.

    Args:
        features: Features fitted on training events.
        log: Histories of all training users.
        validation: Held-out validation users.
        k: Length of the lists.
        num_trials: Settings to try for each baseline, drawn from its grid in `BASELINES`; None
            tries all.
        seed: Seed of the draw.
        progress: Show a progress bar for each baseline.

    Returns:
        Name of the baseline -> its settings.

    Raises:
        ValueError: If `validation` is the test part or has no user to whom something new came, or
            `num_trials` is below 1.
    """
    validation.check_may_choose()
    if not (validation.interest_shares > 0)[~labels_touched(features, validation.histories)].any():
        raise ValueError("validation must hold a user to whom something new came, got none")
    if num_trials is not None:
        check_counts(1, num_trials=num_trials)
    best = {}
    for name, (kind, grid) in BASELINES.items():
        tried = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        if num_trials is not None and num_trials < len(tried):
            drawn = np.random.default_rng(seed).permutation(len(tried))[:num_trials]
            tried = [tried[n] for n in drawn]
        scores = []
        for settings in progress_bar(tried, label=name, unit="fit", enabled=progress):
            ranker = kind(features=features, log=log, **settings)
            values = _judged(ranker, validation, features, k)
            scores.append(np.nanmean(values[f"NDCG@{k}"]))
        best[name] = tried[int(np.argmax(scores))]
    return best


def make_novel_baselines(
    features: Features, log: Histories, settings: Mapping[str, Mapping[str, object]]
) -> dict[str, NovelRanker]:
    """Baselines with settings that `tune_novel` found, for a log that goes further.

    Raises:
        ValueError: If a name is none of `counting.BASELINES`.
    """
    if unknown := [name for name in settings if name not in BASELINES]:
        raise ValueError(f"names must be among {list(BASELINES)}, got {unknown}")
    return {
        name: BASELINES[name][0](features=features, log=log, **own)
        for name, own in settings.items()
    }


def judge_novel(
    rankers: Mapping[str, NovelRanker | Sequence[NovelRanker]],
    truth: HeldOut,
    features: Features,
    *,
    k: int = 3,
) -> Evaluation:
    """How well each ranker names the interests that were new to held-out users, and came.

    Args:
        rankers: Name -> ranker, or one per seed.
        truth: The held-out users; those to whom nothing new came are undefined (NaN).
        features: The catalogue.
        k: Length of the lists, in 1..interests.

    Returns:
        An `Evaluation` with the target "novel interests": NDCG, recall and hit rate at k for each
        user, and the coverage of the interests by all lists. `table`, `gains` and `compare` work
        as for others.

    Raises:
        ValueError: If `k` is outside its limits, or a name has no ranker, or there is none.
    """
    check_up_to(features.num_interests, "the interests", k=k)

    def judge(ranker: NovelRanker, **_: str):
        found = _judged(ranker, truth, features, k)
        return [(TARGET, metric, value) for metric, value in found.items()], None

    return gather(runs_of(rankers), judge, truth, k=k, interest_k=k)


def _judged(ranker: NovelRanker, truth: HeldOut, features: Features, k: int) -> dict:
    before = labels_touched(features, truth.histories)
    scores = np.where(before, -np.inf, ranker.novelty(truth.histories))
    best, labels = (np.asarray(part) for part in metrics.top_k(scores.astype(np.float32), k))
    labels = np.where(best > -np.inf, labels, -1)
    hits, count = metrics.novel_hits(labels, before, truth.interest_shares > 0)
    named = {
        "NDCG": metrics.ndcg_at_k(hits, count, k=k),
        "recall": metrics.recall_at_k(hits, count, k=k),
        "hit rate": metrics.hit_rate_at_k(hits, count, k=k),
        "interest coverage": metrics.interest_coverage(
            labels, num_interests=features.num_interests
        ),
    }
    return {f"{name}@{k}": np.asarray(value, float) for name, value in named.items()}
