"""Ours and a peer's work, run by turns in processes of their own: seconds, memory, ratios.

A benchmark is a script that holds both sides. Without `--side` it calls itself once for each side
and repeat, ours and the peer's by turns, so that a slow minute of the machine hits both:

    def ours(size): ...; return {"fit_seconds": ...}
    if __name__ == "__main__":
        peer = Side(work=keras, environment=PEERS / "tensorflow")
        main("article", __doc__, {"ours": Side(work=ours), "Keras": peer})

What a side returns (numbers) is printed by its process as the last line, with its largest memory;
wall seconds of the whole process are added by the one that started it. A curve, a list of pairs
(seconds, value), may stand among the numbers: it is drawn and kept in the JSON, and `finish` may
make numbers of it, such as the seconds to a level that depends on all sides.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "benchmarks" / ".peers"  # made by peers/environment.sh
RUNS = ROOT / "runs" / "benchmarks"
# The 5-core of papers: logs are cut down to it before they are split, as they are there.
FIVE_CORE = {"min_user_events": 5, "min_item_events": 5}


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of those who are compared.

    Args:
        work: What is measured; it takes the options of the benchmark and returns numbers by name.
        environment: Virtual environment that it runs in; None takes the one of this process.
        variables: Environment variables that it runs with.
    """

    work: Callable[..., Mapping[str, float]]
    environment: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """Its interpreter.

        Raises:
            FileNotFoundError: If the environment is not there; the message says how it is made.
        """
        if self.environment is None:
            return Path(sys.executable)
        python = self.environment / "bin" / "python"
        if not python.exists():
            how = f"sh benchmarks/peers/environment.sh {self.environment.name}"
            raise FileNotFoundError(f"no environment {self.environment}; make it: {how}")
        return python


def main(
    name: str,
    description: str,
    sides: Mapping[str, Side],
    *,
    options: Mapping[str, object] | None = None,
    repeats: int = 5,
    shown: Iterable[str] = ("wall_seconds",),
    finish: Callable[[dict], None] | None = None,
) -> None:
    """Run a benchmark from the command line: print its table, write JSON and a figure.

    Args:
        name: Names the files in runs/benchmarks/.
        description: Shown by --help; its first line is the title.
        sides: Who is compared, ours first.
        options: Numbers handed to each side; each becomes an option of the command line.
        repeats: How often each side runs.
        shown: Measures of which the figure is made.
        finish: Adds measures that depend on all sides to side -> measure -> value of each repeat.
    """
    options = dict(options or {})
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=repeats, help=f"default {repeats}")
    parser.add_argument("--only", nargs="+", choices=list(sides), help="sides to run")
    parser.add_argument("--side", choices=list(sides), help="run one side here and print JSON")
    for option, value in options.items():
        flag = "--" + option.replace("_", "-")
        parser.add_argument(flag, type=type(value), default=value, help=f"default {value}")
    given = vars(parser.parse_args())
    options = {option: given[option] for option in options}
    if given["side"]:
        found = dict(sides[given["side"]].work(**options))
        print(json.dumps(found | {"peak_gigabytes": peak_gigabytes()}), flush=True)
        return
    chosen = {side: sides[side] for side in given["only"] or sides}
    measures = _by_turns(chosen, options, given["repeats"])
    if finish:
        finish(measures)
    record = {
        "name": name,
        "title": description.strip().splitlines()[0].rstrip("."),
        "machine": machine(),
        "options": options,
        "measures": measures,
    }
    print(table(record))
    save(record, shown)


def _by_turns(sides: Mapping[str, Side], options: Mapping, repeats: int) -> dict:
    """Side -> measure -> one number for each repeat."""
    pythons = {name: side.python for name, side in sides.items()}  # all there before one runs
    measures: dict[str, dict[str, list[float]]] = {name: {} for name in sides}
    for repeat in range(repeats):
        for name, side in sides.items():
            found = in_process(pythons[name], name, options, side.variables)
            print(f"{repeat + 1}/{repeats} {name}: {_line(found)}", file=sys.stderr, flush=True)
            for measure, value in found.items():
                measures[name].setdefault(measure, []).append(value)
    return measures


def apart(work: Callable, *arguments: object):
    """What a function returns, called in another process: the memory that it takes stays there."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        return other.submit(work, *arguments).result()


def in_process(
    python: Path, side: str, options: Mapping, variables: Mapping | None = None
) -> dict[str, float]:
    """Numbers that one side prints from a process of its own, its wall seconds and peak memory.

    Raises:
        RuntimeError: If the process fails; the message ends as its errors end.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [str(python), sys.argv[0], "--side", side, *flags]
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict(variables or {}),
    )
    output, errors = process.communicate()
    seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"{side} failed with {process.returncode}:\n{errors[-3000:]}")
    return json.loads(output.strip().splitlines()[-1]) | {"wall_seconds": seconds}


def peak_gigabytes() -> float:
    """Largest memory that this process has had so far, in units of 10^9 bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the process that started this one too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def machine() -> dict[str, object]:
    """Where it was measured."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(record: Mapping) -> str:
    """Markdown: medians and their spread (lowest..highest), and ratios to ours, the first side."""
    measures = record["measures"]
    ours = next(iter(measures))
    lines = ["| measure | side | median | lowest..highest | times ours |", "|---|---|---|---|---|"]
    for measure in dict.fromkeys(m for side in measures.values() for m in side):
        for side, found in measures.items():
            if measure not in found:
                continue
            values = found[measure]
            if _is_curve(values[0]):
                continue
            own = measures[ours].get(measure)
            mine = statistics.median(own) if own else 0.0
            ratio = statistics.median(values) / mine if mine else float("nan")
            cells = [measure, side, f"{statistics.median(values):.4g}"]
            cells += [f"{min(values):.4g}..{max(values):.4g}", f"{ratio:.2f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return f"**{record['title']}** ({_line(record['options'])})\n\n" + "\n".join(lines)


def save(record: Mapping, shown: Iterable[str]) -> None:
    """Write runs/benchmarks/NAME.json and NAME.png."""
    RUNS.mkdir(parents=True, exist_ok=True)
    path = RUNS / f"{record['name']}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    figure(record, list(shown)).savefig(path.with_suffix(".png"), dpi=120, bbox_inches="tight")
    print(f"\nwritten: {path} and {path.with_suffix('.png')}")


def figure(record: Mapping, shown: list[str]):
    """One panel per measure: a bar for the median of each side, a dot for each repeat."""
    import matplotlib.pyplot as plt

    from interestkit import plots

    plots.use_style()
    sides = list(record["measures"])
    height = 1 + 0.45 * len(sides)
    drawn, panels = plt.subplots(
        len(shown), squeeze=False, figsize=(7, height * len(shown)), layout="constrained"
    )
    for panel, measure in zip(panels[:, 0], shown, strict=True):
        found = {side: record["measures"][side].get(measure, []) for side in sides}
        if any(values and _is_curve(values[0]) for values in found.values()):
            _draw_curves(panel, measure, found)
            continue
        medians = [statistics.median(values) if values else 0 for values in found.values()]
        own = sides[0].split(",")[0]  # "ours, cold" and "ours, warm" are both ours
        colours = ["C0" if side.split(",")[0] == own else "C1" for side in sides]
        panel.barh(sides, medians, color=colours, height=0.6)
        for side, values in found.items():
            panel.plot(values, [side] * len(values), "o", color="black", markersize=3)
        panel.invert_yaxis()
        panel.set(xlabel=f"{measure.replace('_', ' ')} (bar: median, dots: runs)")
    panels[0, 0].set_title(record["title"], loc="left", wrap=True)
    return drawn


def seconds_to(level: float, curve: Iterable[tuple[float, float]]) -> float:
    """First seconds at which a curve of pairs (seconds, value) is at the level; NaN if it never is.

    Example:
        >>> seconds_to(0.2, [(1.0, 0.1), (2.0, 0.3), (3.0, 0.25)])
        2.0
    """
    return next((seconds for seconds, value in curve if value >= level), float("nan"))


def _is_curve(value: object) -> bool:
    return isinstance(value, list)


def _draw_curves(panel, measure: str, found: Mapping[str, list]) -> None:
    """One line for each repeat, one colour for each side."""
    for number, (side, curves) in enumerate(found.items()):
        for repeat, curve in enumerate(curves):
            seconds, values = zip(*curve, strict=True)
            label = side if repeat == 0 else None
            panel.plot(seconds, values, color=f"C{number}", marker=".", label=label)
    panel.set(xlabel="seconds", ylabel=measure.replace("_", " "), xscale="log")
    panel.legend()


def _line(numbers: Mapping) -> str:
    shown = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in numbers.items()
        if not _is_curve(value)
    )
    return ", ".join(shown)
