"""What training on a large log takes: memory, arithmetic, network and reading, from formulas.

    python benchmarks/capacity.py                  the plan, checked at small sizes on this machine
    python benchmarks/capacity.py --items 1000000 --devices 8 --model 8
    python benchmarks/capacity.py --page           writes docs/capacity.md too

The formulas are those of this model and of how it is divided over devices (`interestkit.devices`);
speeds of devices, links and hosts are options. Times are lower bounds, as if each part ran alone at
full speed. `capacity_check.py` holds the formulas against compiled programs.
"""

import argparse
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import capacity_check
from capacity_model import Case, flops, hbm_bytes, host, largest, memory, network, parameters
from timing import ROOT, RUNS, machine

GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the accelerators, their links and their hosts can do.

    Args:
        hbm_gigabytes: Memory of one device.
        hbm_gigabytes_per_second: Its bandwidth.
        teraflops: Arithmetic of one device, in float32 as the model computes (10^12 per second).
        link_gigabytes_per_second: Between devices, per device.
        host_link_gigabytes_per_second: From the host to one device.
        events_per_second: What one host reads and counts of a shard.
        devices_per_host: Devices that share a host.
    """

    hbm_gigabytes: float = 80.0
    hbm_gigabytes_per_second: float = 3000.0
    teraflops: float = 60.0
    link_gigabytes_per_second: float = 50.0
    host_link_gigabytes_per_second: float = 25.0
    events_per_second: float = 1e6
    devices_per_host: int = 8


def times(case: Case, hardware: Hardware) -> dict[str, float]:
    """Seconds of one step by part, and of reading and sending what one epoch brings in new."""
    read = host(case)
    return {
        "arithmetic": sum(flops(case).values()) / (hardware.teraflops * 1e12),
        "device memory": sum(hbm_bytes(case).values()) / (hardware.hbm_gigabytes_per_second * GIGA),
        "network": sum(network(case).values()) / (hardware.link_gigabytes_per_second * GIGA),
        "reading, per epoch": read["events"] / hardware.events_per_second,
        "sending to devices, per epoch": hardware.devices_per_host
        * read["bytes to each device"]
        / (hardware.host_link_gigabytes_per_second * GIGA),
    }


def report(case: Case, hardware: Hardware, checked: list[dict]) -> str:
    """The plan as Markdown."""
    parts, seconds = memory(case), times(case, hardware)
    step = max(seconds[name] for name in ("arithmetic", "device memory", "network"))
    rate = case.batch / step
    size = f"{case.users:.3g} users, {case.items:.3g} items, {case.events:.3g} events"
    fits = "fits" if sum(parts.values()) < hardware.hbm_gigabytes * GIGA else "does not fit"
    epoch = case.steps * step
    lines = [
        f"{size}; {case.data} x {case.model} devices (data x model), batch {case.batch:,}, "
        f"{case.sampled:,} sampled items, {parameters(case):.3g} parameters.",
        "",
        "| memory of each device | GB |",
        "|---|---|",
        *(f"| {name} | {size / GIGA:.3g} |" for name, size in parts.items()),
        f"| **all** ({fits} in {hardware.hbm_gigabytes:g}) | {sum(parts.values()) / GIGA:.3g} |",
        "",
        "| at least | seconds |",
        "|---|---|",
        *(f"| {name} | {value:.3g} |" for name, value in seconds.items()),
        f"| one step, the slowest part alone | {step:.3g} |",
        f"| one epoch of {case.steps:,} steps | {epoch:.3g} |",
        f"| as many examples as the log has events | {case.events / rate:.3g} |",
        "",
        "| of one step | GFLOP | | network of each device | GB |",
        "|---|---|---|---|---|",
    ]
    left = [(name, f"{value / GIGA:.3g}") for name, value in flops(case).items()]
    right = [(name, f"{value / GIGA:.3g}") for name, value in network(case).items()]
    for n in range(max(len(left), len(right))):
        cells = [side[n] if n < len(side) else ("", "") for side in (left, right)]
        lines.append(f"| {cells[0][0]} | {cells[0][1]} | | {cells[1][0]} | {cells[1][1]} |")
    reads = seconds["reading, per epoch"]
    waits = "does not wait" if reads < epoch else "waits"
    lines += [
        "",
        f"The device {waits} for its data: an epoch takes {epoch:.3g} s, reading what is ",
    ]
    lines[-1] += f"new in it {seconds['reading, per epoch']:.3g} s."
    parts = ["\n".join(lines), layers_table(case, hardware), capacity_check.table(checked)]
    return "\n\n".join(parts)


def layers_table(case: Case, hardware: Hardware) -> str:
    """The largest Transformer that each number of devices holds, with a tenth of memory left."""
    lines = [
        "The largest Transformer (`capacity_model.largest`) that fits in "
        f"{hardware.hbm_gigabytes:g} GB a device with a million items whose vectors are as wide as "
        f"the layers, and 32 windows of {case.window} events a device in a step. "
        "`tests/test_capacity.py` holds numbers of parameters, on all devices and on each, against "
        "the shapes of the model, from 1e5 to 1e9.",
        "",
        "| devices | data x model | layers x width | parameters | GB a device | TFLOP of a step |",
        "|---|---|---|---|---|---|",
    ]
    fixed = {"items": 1_000_000, "users": 10_000_000, "events": 1_000_000_000}
    fixed |= {
        "history": case.history,
        "window": case.window,
        "snapshots": 1,
        "content": 0,
        "interests": 64,
    }
    for devices in (1, 8, 64, 512):
        own, needed = largest(devices, hardware.hbm_gigabytes, **fixed)
        total = sum(flops(own).values()) * devices / 1e12
        lines.append(
            f"| {devices} | {own.data} x {own.model} | {own.layers} x {own.width:,} | "
            f"{parameters(own):.2g} | {needed / GIGA:.3g} | {total:.3g} |"
        )
    return "\n".join(lines)


PAGE = """# What a large log takes

Written by `python benchmarks/capacity.py --page`, from formulas: nothing here was run at this size.
What was run is at the end: small programs. The formulas predict their sizes, and their arithmetic
within a fifth for the MLP; with layers they say 2.8 times what the compiler counts. Times are lower
bounds, each part at the full speed that the options of the script say.

"""


def figure(case: Case, hardware: Hardware, path: Path) -> None:
    """Memory of each device by part, against the number of devices on the model axis."""
    import matplotlib.pyplot as plt

    from interestkit import plots

    plots.use_style()
    counts = [2**n for n in range(11) if 2**n <= max(case.devices, 8)]
    found = [memory(replace(case, devices=n, model=n)) for n in counts]
    drawn, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    bottom = [0.0] * len(counts)
    for name in found[0]:
        sizes = [parts[name] / GIGA for parts in found]
        ax.bar([str(n) for n in counts], sizes, bottom=bottom, label=name)
        bottom = [a + b for a, b in zip(bottom, sizes, strict=True)]
    ax.axhline(hardware.hbm_gigabytes, color="black", linewidth=1)
    ax.set(
        xlabel="devices, all on the model axis", ylabel="memory of each device, GB (line: limit)"
    )
    ax.legend(fontsize="small")
    drawn.savefig(path, dpi=120)


def main() -> None:
    """Options, the check, the table, JSON and the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for kind in (Case, Hardware):
        for field in fields(kind):
            flag = "--" + field.name.replace("_", "-")
            parse = (lambda text: int(float(text))) if field.type is int else float
            parser.add_argument(flag, type=parse, default=field.default, help=f"{field.default:g}")
    parser.add_argument("--page", action="store_true", help="write docs/capacity.md")
    parser.add_argument("--no-check", action="store_true", help="formulas only")
    given = vars(parser.parse_args())
    case, hardware = (
        kind(**{f.name: given[f.name] for f in fields(kind)}) for kind in (Case, Hardware)
    )
    checked = [] if given["no_check"] else [capacity_check.check(**one) for one in SIZES]
    text = report(case, hardware, checked)
    print(text)
    RUNS.mkdir(parents=True, exist_ok=True)
    found = {"memory": memory(case), "flops": flops(case), "network": network(case)}
    found |= {"host": host(case), "seconds": times(case, hardware), "checked": checked}
    options = {f.name: given[f.name] for kind in (Case, Hardware) for f in fields(kind)}
    record = {"name": "capacity", "machine": machine(), "options": options, **found}
    path = RUNS / "capacity.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    figure(case, hardware, path.with_suffix(".png"))
    print(f"\nwritten: {path} and {path.with_suffix('.png')}")
    if given["page"]:
        (ROOT / "docs" / "capacity.md").write_text(PAGE + text + "\n", "utf-8")


SIZES = (
    {"items": 1_000, "dim": 32, "batch": 64, "sampled": 256},
    {"items": 4_000, "dim": 32, "batch": 64, "sampled": 256},
    {"items": 4_000, "dim": 64, "batch": 256, "sampled": 1024},
    {"items": 4_000, "dim": 32, "batch": 64, "sampled": 256, "layers": 4, "width": 64, "heads": 2},
)

if __name__ == "__main__":
    main()
