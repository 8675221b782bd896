"""Seconds of training to RecBole's best validation NDCG@10 on ML-100k.

All train on the same interactions and are judged on the same held-out ones, those of RecBole's own
random split (80/10/10 of each user, seed 2020), by full ranking. The level to reach is the best of
RecBole's MultiVAE in this very call. RecBole runs with its own settings of each model and its own
early stopping, on NDCG@10 after each epoch; nothing is saved while its clock runs. Its default
block of 4,096 scores holds two users, so that most of its time goes into validation; "in one block"
validates all users at once, the faster way. Seconds count from the start of training, with the
making of the model and compilation; loading and splitting are left out on all sides. "cold" has an
empty compilation cache, "warm" the one that the cold run before it filled. Ours trains the MLP for
two epochs, adds the linear part, with the weight that `accuracy.py` finds on this validation part,
and is judged once, by the clock too: the MLP alone does not reach the level in so few.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from timing import PEERS, RUNS, Side, main, seconds_to

DATA, CACHE = RUNS / "ml100k-data", RUNS / "ml100k-cache"
ONE_BLOCK = 2_000_000  # scores: all users at once
TRAINING = {
    "task": "hidden",
    "epochs": 2,
    "examples_per_epoch": 6_400,
    "learning_rate": 4e-3,
    "weight_decay": 0.5,
    "single_part_share": 0.0,
}
SHAPE = {
    "item_dim": 64,
    "hidden": (100, 100),
    "history_length": 256,
    "repeat_length": 256,
    "pool_power": 0.5,
}
LINEAR = {"weight": 10.0, "regularisation": 300.0}


def write_atomic_files() -> None:
    """The three parts of the split as RecBole reads them."""
    from protocols import recbole

    split = recbole().split
    folder = DATA / "ml100k"
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "validation", "test"):
        pairs = getattr(split, part).select("user", "item")
        pairs.columns = ["user_id:token", "item_id:token"]
        pairs.write_csv(folder / f"ml100k.{part}.inter", separator="\t")


def ours(*, cache: str, seed: int) -> dict:
    """The kit's model, in a process without compiled programs or with those of an earlier one."""
    if cache == "cold":
        shutil.rmtree(CACHE, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"  # as `fit` sets it by itself
    from jax import jit
    from protocols import recbole

    from interestkit.examples import TrainingConfig
    from interestkit.heldout import held_out
    from interestkit.linear import add_linear_part
    from interestkit.metrics import ndcg_at_k
    from interestkit.prediction import Predictor
    from interestkit.training import fit

    protocol = recbole()
    features = protocol.features(protocol.split.train)
    log = features.histories(protocol.split.train)
    validation = held_out(features, protocol.split, "validation")
    config = TrainingConfig(**TRAINING)
    result = fit(features, log, config=config, seed=seed, progress=False, **SHAPE)
    began = time.perf_counter()
    model = Predictor(features=features, model=result.model)
    codes, _ = add_linear_part(model, log, **LINEAR).rank(validation.histories, k=10)
    hits, wanted = validation.hits(0, codes), validation.num_relevant()
    whole = float(np.nanmean(jit(partial(ndcg_at_k, k=10))(hits, wanted)))
    seconds = result.seconds + time.perf_counter() - began
    return _found([(seconds, whole)])


def recbole_model(name: str, *, seed: int, eval_batch_size: int = 4096) -> dict:
    """A model of RecBole with its own settings, on the same files."""
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    sys.argv = sys.argv[:1]  # it reads the command line too
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    settings = {
        "data_path": str(DATA),
        "benchmark_filename": ["train", "validation", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "train_neg_sample_args": None,
        "valid_metric": "NDCG@10",
        "eval_batch_size": eval_batch_size,
        "seed": 2020 + seed,
        "show_progress": False,
        "state": "ERROR",
    }
    config = Config(model=name, dataset="ml100k", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, validation, _ = data_preparation(config, dataset)
    curve = []
    began = time.perf_counter()
    model = get_model(name)(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    trainer.fit(
        train,
        validation,
        verbose=False,
        saved=False,
        callback_fn=lambda _, score: curve.append((time.perf_counter() - began, score)),
    )
    return _found(curve)


def _found(curve: list[tuple[float, float]]) -> dict:
    best = max(score for _, score in curve)
    seconds = {"seconds_to_own_best": seconds_to(best, curve), "seconds_per_epoch": _mean(curve)}
    return {"ndcg@10": curve, "best_ndcg@10": best, "epochs": len(curve)} | seconds


def _mean(curve: list[tuple[float, float]]) -> float:
    """Seconds of an epoch, but for the first one, which compiles."""
    return (curve[-1][0] - curve[0][0]) / max(len(curve) - 1, 1)


def add_seconds_to_level(measures: dict) -> None:
    """Seconds of each run to the best level of MultiVAE; the median of its runs is taken."""
    runs = [side["best_ndcg@10"] for name, side in measures.items() if "MultiVAE" in name]
    level = statistics.median(score for scores in runs for score in scores) if runs else 0.0
    print(f"level: NDCG@10 {level:.4f}", file=sys.stderr)
    for side in measures.values():
        side["seconds_to_level"] = [seconds_to(level, curve) for curve in side["ndcg@10"]]


if __name__ == "__main__":
    if "--side" not in sys.argv:
        write_atomic_files()
    peer = PEERS / "recbole"
    one_block = {"eval_batch_size": ONE_BLOCK}
    main(
        "ml100k",
        __doc__,
        {
            "interestkit, cold": Side(work=partial(ours, cache="cold")),
            "interestkit, warm": Side(work=partial(ours, cache="warm")),
            "MultiVAE": Side(work=partial(recbole_model, "MultiVAE"), environment=peer),
            "MultiVAE in one block": Side(
                work=partial(recbole_model, "MultiVAE", **one_block), environment=peer
            ),
            "MultiDAE": Side(work=partial(recbole_model, "MultiDAE"), environment=peer),
            "MultiDAE in one block": Side(
                work=partial(recbole_model, "MultiDAE", **one_block), environment=peer
            ),
        },
        options={"seed": 0},
        repeats=3,
        shown=("ndcg@10", "seconds_to_level"),
        finish=add_seconds_to_level,
    )
