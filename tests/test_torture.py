"""A short torture of what is saved: `benchmarks/torture.py` is the long one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[1] / "benchmarks" / "torture.py"
NUMBERS = {"kills": 12, "kills_inside": 8, "damages": 300}


@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler, cc"
)
def test_nothing_is_lost_in_kills_damages_and_on_a_full_disk(tmp_path):
    options = NUMBERS | {"training_kills": 0, "training_kills_inside": 0, "overhead": ""}
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, PROGRAM, *flags, "--out", tmp_path / "torture.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found = json.loads((tmp_path / "torture.json").read_text())
    replayed, full, damaged = (found[name] for name in ("replayed", "disk_full", "damaged"))
    assert replayed["kills"] == 20
    assert replayed["inside"] == 8
    assert replayed["saves"] > 20
    assert full["calls"] > 150
    assert full["errors"] > 100
    assert full["errors"] + full["went_on"] == full["calls"]
    assert damaged["damages"] == 300
    assert damaged["refused"] + damaged["older_with_warning"] == 300
    assert len(damaged["kinds"]) == 10
    zero = {"lost", "wrong", "litter", "accepted", "other_errors"}
    for part in (replayed, full, damaged):
        assert not any(part[name] for name in zero & part.keys())
