"""What the speed benchmarks of this machine found, on one page.

    python benchmarks/summary.py --page docs/speed.md

It reads what the other scripts wrote to runs/benchmarks/ and says of each what was aimed at, what
came, and how it is measured again. A benchmark that has not run here is left out.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from timing import RUNS, table

HEAD = """# Speed beside others

Made by `python benchmarks/summary.py --page docs/speed.md` from what `make bench` measured. Each
script runs ours and the other by turns in processes of their own; medians are shown, with the
lowest and the highest: where both are the same, there was one run. "Times ours" is the other's
median divided by that of the first row. On ML-100k ours is the MLP with EASE beside it, whose
settings were found beforehand on the same validation part; EASE alone would reach the level too.

"""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """One number that is aimed at.

    Args:
        benchmark: Name of the file in runs/benchmarks/.
        what: In words.
        number: From the medians, side -> measure -> number.
        at_least: It is to be this or more; None where `at_most` says otherwise.
        at_most: It is to be this or less.
    """

    benchmark: str
    what: str
    number: Callable[[Mapping[str, Mapping[str, float]]], float]
    at_least: float | None = None
    at_most: float | None = None

    def row(self, found: float) -> str:
        """A row of the table: what, aim, what came, whether it is reached."""
        if self.at_most is None:
            aim, is_there = f"at least {self.at_least:g}", found >= self.at_least
        else:
            aim, is_there = f"at most {self.at_most:g}", found <= self.at_most
        return f"| {self.what} | {aim} | {found:.3g} | {'reached' if is_there else 'missed'} |"


def ratio(measure: str, other: str, ours: str) -> Callable[[Mapping], float]:
    """The other's number divided by ours."""
    return lambda medians: medians[other][measure] / medians[ours][measure]


def of(measure: str, side: str) -> Callable[[Mapping], float]:
    """The number of one side."""
    return lambda medians: medians[side][measure]


AIMS = (
    *(
        Aim(
            benchmark="article",
            what=f"small MLP, Keras / ours, {what}",
            number=ratio(measure, "Keras", ours),
            at_least=aim,
        )
        for what, measure, ours, aim in (
            ("seconds of the fit, cold", "fit_seconds", "ours, cold", 7),
            ("seconds of the process, cold", "wall_seconds", "ours, cold", 5.5),
            ("seconds of the fit, programs on disk", "fit_seconds", "ours, warm cache", 20),
        )
    ),
    Aim(
        benchmark="native",
        what="small MLP compiled, ours / C by hand, seconds of the fit",
        number=ratio("fit_seconds", "ours", "C by hand"),
        at_most=1.2,
    ),
    Aim(
        benchmark="import_time",
        what="import interestkit, which loads nothing yet, seconds",
        number=of("import_seconds", "ours"),
        at_most=1,
    ),
    Aim(
        benchmark="throughput",
        what="training on 100k x 20k, ours / dense autoencoder, examples per second",
        number=ratio("examples_per_second", "interestkit", "dense autoencoder"),
        at_least=8,
    ),
    Aim(
        benchmark="throughput",
        what="training on 100k x 20k, GB at the peak",
        number=of("peak_gigabytes", "interestkit"),
        at_most=1,
    ),
    Aim(
        benchmark="against_als",
        what="100k x 20k, ALS / ours, seconds to equal NDCG@10",
        number=ratio("seconds_to_level", "ALS (implicit)", "interestkit"),
        at_least=1,
    ),
    Aim(
        benchmark="ranking",
        what="top 20 and metrics of 100k x 20k, torch / ours, seconds",
        number=ratio("seconds", "torch", "ours"),
        at_least=1.3,
    ),
    Aim(
        benchmark="ranking",
        what="metrics of 100k lists, ranx / ours, seconds",
        number=ratio("metrics_seconds", "ranx", "ours"),
        at_least=30,
    ),
    Aim(
        benchmark="ranking",
        what="top 20 and metrics, ours, users per second",
        number=of("users_per_second", "ours"),
        at_least=25_000,
    ),
    Aim(
        benchmark="preprocessing",
        what="preprocessing, pandas / ours, seconds",
        number=ratio("seconds", "pandas", "ours"),
        at_least=3.5,
    ),
    Aim(
        benchmark="preprocessing",
        what="preprocessing 10M events, GB at the peak",
        number=of("peak_gigabytes", "ours"),
        at_most=3,
    ),
    Aim(
        benchmark="shards",
        what="training from shards, share of the time waited for data",
        number=of("waited_share", "shards"),
        at_most=0.1,
    ),
    *(
        Aim(
            benchmark="ml100k",
            what=f"ML-100k to MultiVAE's best validation NDCG@10, MultiVAE / ours, {ours}",
            number=ratio("seconds_to_level", "MultiVAE in one block", f"interestkit, {ours}"),
            at_least=aim,
        )
        for ours, aim in (("cold", 3), ("warm", 6))
    ),
)


def medians(record: Mapping) -> dict[str, dict[str, float]]:
    """Side -> measure -> median of the repeats; curves are left out."""
    return {
        side: {
            name: statistics.median(values)
            for name, values in found.items()
            if not isinstance(values[0], list)
        }
        for side, found in record["measures"].items()
    }


def page(records: Mapping[str, Mapping]) -> str:
    """The page in Markdown."""
    lines = ["| what | aim | here | |", "|---|---|---|---|"]
    lines += [
        aim.row(aim.number(medians(records[aim.benchmark])))
        for aim in AIMS
        if aim.benchmark in records
    ]
    return HEAD + "\n".join(lines) + "\n\n" + "\n\n".join(_blocks(records)) + "\n"


def _blocks(records: Mapping[str, Mapping]) -> Iterator[str]:
    machine = next(iter(records.values()))["machine"]
    python = machine["python"]
    yield f"Measured on {machine['cores']} cores ({machine['processor']}), Python {python}."
    for name, record in records.items():
        yield f"{table(record)}\n\n`python benchmarks/{name}.py`"


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--page", type=Path, help="file to write; without it the page is printed")
    given = parser.parse_args()
    records = [json.loads(path.read_text("utf-8")) for path in sorted(RUNS.glob("*.json"))]
    there = {record["name"]: record for record in records if "measures" in record}
    if not there:
        parser.error(f"nothing in {RUNS}: run `make bench` first")
    if given.page:
        given.page.write_text(page(there), "utf-8")
    else:
        print(page(there))


if __name__ == "__main__":
    main()
