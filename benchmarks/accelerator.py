"""Speed on the device that JAX finds: a small classifier, training and lists of a large catalogue.

    python benchmarks/accelerator.py                                       on a GPU or TPU
    python benchmarks/accelerator.py --users 2000 --items 500 --epochs 2   on a processor, to try it

The classifier is the published case of 1,000 users, 10 features, two hidden layers of 100, batches
of 32 and 200 epochs. Then the interest model is trained on `--users` x `--items` simulated events,
and gives each user the ten best items. Arithmetic is what the compiler counts in one step.
"""

import argparse
import json
import re
import time
from datetime import UTC, datetime

import jax
import numpy as np
import polars as pl
from timing import RUNS, machine, peak_gigabytes

# Peak of dense float32 products, 10^12 per second, as the makers state it (TF32 on NVIDIA's tensor
# cores, without sparsity; bfloat16 on TPUs, in which they multiply float32 by default).
PEAKS = {"A100": 156, "H100": 494, "H200": 494, "L4": 60, "V100": 15.7, "T4": 8.1}
PEAKS |= {"TPU v4": 275, "TPU v5 lite": 197, "TPU v5p": 459, "TPU v6 lite": 918}


def classifier(users: int = 1000, epochs: int = 200) -> dict[str, float]:
    """Seconds of the published case, with and without compiling."""
    from interestkit.classifier import fit_classifier

    random = np.random.default_rng(0)
    features = random.normal(size=(users, 10)).astype(np.float32)
    labels = (random.random((users, 5)) < 0.3).astype(np.float32)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        model = fit_classifier(features, labels, epochs=epochs, batch_size=32)
        jax.block_until_ready(jax.tree.leaves(model))
        seconds.append(time.perf_counter() - began)
    return {"classifier_first_seconds": seconds[0], "classifier_seconds": min(seconds[1:])}


def world(users: int, items: int, events_per_user: int):
    """Features and histories of a log at random; item n is as likely as n^(-2/3)."""
    import interestkit as ik
    from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS

    random, num = np.random.default_rng(0), users * events_per_user
    began = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    seconds = began + np.sort(random.integers(0, 90 * 86_400, num))
    events = pl.DataFrame(
        {
            "user": pl.Series(random.integers(0, users, num)).cast(pl.String),
            "item": pl.Series((items * random.random(num) ** 3).astype(int)).cast(pl.String),
            "time": pl.Series(seconds * 1_000_000).cast(EVENT_COLUMNS["time"]),
        }
    ).with_columns(kind=pl.lit("view"))
    table = pl.DataFrame({"item": [str(n) for n in range(items)]}).with_columns(
        title=pl.lit(None, pl.String),
        interests=pl.concat_list(pl.format("genre {}", pl.int_range(pl.len()) % 20)),
    )
    chosen = {"content_dim": 0, "min_item_events": 1}
    features = ik.fit_features(events, table.select(*ITEM_COLUMNS), **chosen)
    return features, features.histories(events)


def large(users, items, events_per_user, epochs, examples, batch, peak) -> dict[str, float]:
    """Examples per second in training, users per second in lists, share of the peak."""
    import interestkit as ik
    from interestkit import training

    features, histories = world(users, items, events_per_user)
    config = ik.TrainingConfig(
        **{"epochs": epochs, "examples_per_epoch": examples, "batch_size": batch}, patience=epochs
    )
    counted, program = [], training.train_epoch

    def spy(*arguments):
        if not counted:
            counted.append(program.lower(*arguments).compile().cost_analysis()["flops"])
        return program(*arguments)

    training.train_epoch = spy
    result = ik.fit(features, histories, config=config, progress=False)
    training.train_epoch = program
    curve = result.curve["seconds"]
    rate = (epochs - 1) * config.steps * batch / (curve[-1] - curve[0])
    found = {"first_epoch_seconds": curve[0], "examples_per_second": rate}
    found["flops_per_step"] = counted[0]  # a loop's body is counted once
    found["teraflops_per_second"] = counted[0] * rate / batch / 1e12
    if peak:
        found["share_of_peak"] = found["teraflops_per_second"] / peak
    predictor = ik.Predictor(features=features, model=result.model)
    for name in ("lists_first_seconds", "lists_seconds"):
        began = time.perf_counter()
        predictor.rank(histories, k=10)
        found[name] = time.perf_counter() - began
    return found | {"lists_users_per_second": len(histories) / found["lists_seconds"]}


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"users": 100_000, "items": 20_000, "events_per_user": 50, "epochs": 6}
    sizes |= {"examples": 262_144, "batch": 1024}
    for name, value in sizes.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    parser.add_argument("--peak", type=float, help="10^12 operations per second of the device")
    given = vars(parser.parse_args())
    kind = jax.devices()[0].device_kind
    known = [value for name, value in PEAKS.items() if re.search(rf"\b{name}\b", kind)]
    given["peak"] = given["peak"] or (known[0] if known else None)
    found = {"device": kind, "platform": jax.default_backend(), "jax": jax.__version__}
    found |= classifier() | large(**given) | {"peak_host_gigabytes": peak_gigabytes()}
    print("| measure | value |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value if isinstance(value, str) else f'{value:.4g}'} |")
    if not given["peak"]:
        print("\nno peak is known of this device, so no share of it: --peak says it")
    RUNS.mkdir(parents=True, exist_ok=True)
    path = RUNS / "accelerator.json"
    record = {"name": "accelerator", "machine": machine(), "options": given, "measures": found}
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
