"""What it costs to be able to forget: accuracy of a model in parts, and time of one forgetting.

    python benchmarks/forgetting.py
    python benchmarks/forgetting.py --users 5000 --parts 8

The log is simulated. Seconds are of the processor, compiling included (no program is taken from the
disk): one forgetting trains one part, and the alternative is to train the whole model again. It is
measured twice: where the parts were just trained, and where nothing is compiled yet.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime

import jax
from timing import FIVE_CORE, RUNS, machine

import interestkit as ik
from interestkit.privacy.forgetting import train_parts
from interestkit.privacy.tracing import find_traces

KEY = b"the key of a benchmark"


def timed(work):
    """What the work returns, and processor seconds."""
    began = time.process_time()
    return work(), time.process_time() - began


def measure(
    users: int, items: int, parts: int, epochs: int, seed: int, accuracy: bool
) -> dict[str, float]:
    """Accuracy and processor seconds of a model in parts and of a whole one."""
    log = ik.simulate(num_users=users, num_items=items, num_bots=0, faults=0, seed=seed)
    split = ik.temporal_split(ik.clean(log, **FIVE_CORE)[0])
    known, until = split.before("test"), split.cut("test")
    period = {"since": datetime(2024, 1, 1, tzinfo=UTC), "until": until}
    config = ik.TrainingConfig(epochs=epochs, examples_per_epoch=3_200)
    settings = {"config": config, "seed": seed, "key": KEY, "progress": False, **period}
    folders = {name: tempfile.mkdtemp() for name in ("whole", "parted")}
    made, found = {}, {}
    for name, number in {"whole": 1, "parted": parts}.items():
        made[name], found[f"{name}_seconds"] = timed(
            lambda n=number, f=folders[name]: train_parts(
                known, split.items, f, num_parts=n, **settings
            )
        )
    if accuracy:
        found |= judged(made, split)
    user = known["user"][0]
    found["traces_before"] = len(find_traces(folders["parted"], user))
    _, found["forget_seconds"] = timed(lambda: made["parted"].forget(user, key=KEY))
    found["traces_after"] = len(find_traces(folders["parted"], user))
    other = next(name for name in known["user"][1:] if name != user)
    jax.clear_caches()
    _, found["forget_compiling_seconds"] = timed(lambda: made["parted"].forget(other, key=KEY))
    for name in ("forget", "forget_compiling"):
        found[f"{name}_of_whole"] = found[f"{name}_seconds"] / found["whole_seconds"]
    return found


def judged(made: dict, split) -> dict[str, float]:
    """Accuracy of both models."""
    found, features = {}, made["whole"].features
    truth = ik.held_out(features, split, "test")
    table = ik.evaluate(made, truth, features, progress=False).table()
    for target, metric in (("items", "NDCG@10"), ("new items", "NDCG@10"), ("interests", "NDCG@3")):
        rows = table.filter(target=target, metric=metric).select("model", "value").rows()
        found |= {f"{model} {target} {metric}": value for model, value in rows}
    return found


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"users": 1_000, "items": 300, "parts": 4, "epochs": 4, "seed": 0}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--accuracy", action=argparse.BooleanOptionalAction, default=True)
    given = vars(parser.parse_args())
    jax.config.update("jax_enable_compilation_cache", False)
    found = measure(**given)
    for name, value in found.items():
        print(f"{name}: {value:.4g}")
    RUNS.mkdir(parents=True, exist_ok=True)
    record = {"name": "forgetting", "machine": machine(), "options": given, "measures": found}
    (RUNS / "forgetting.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
