"""The files that say what to install, and which version this is, agree with each other."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import interestkit

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))


def requirements_to_lock():
    """The core, the extras `data` and `test`, and what builds the package."""
    extras = PROJECT["optional-dependencies"]
    build = [
        line
        for line in (ROOT / "build.in").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    return [
        Requirement(r) for r in PROJECT["dependencies"] + extras["data"] + extras["test"] + build
    ]


def pins_and_faults(lock):
    """The pinned requirements of a lock file, and the entries without a pin or a hash."""
    pins, faults = {}, []
    for entry in re.split(r"\n(?=\S)", lock.strip()):
        pin, *hashes = re.split(r"[\s\\]+--hash=", entry)
        pin = Requirement(pin)
        pins.setdefault(canonicalize_name(pin.name), []).append(pin)
        if not re.fullmatch(r"==[^,*]+", str(pin.specifier)):
            faults.append(f"{pin.name} is not pinned")
        if not hashes or not all(h.startswith("sha256:") for h in hashes):
            faults.append(f"{pin.name} has no hash")
    return pins, faults


def faults_in_lock(lock, requirements, pythons):
    """What keeps `lock` from installing the `requirements` on each of the `pythons`."""
    if "://" in lock or lock.startswith("-"):
        return ["names an address"]
    pins, faults = pins_and_faults(lock)
    for python in pythons:
        here = {"python_version": python, "python_full_version": f"{python}.0"}
        for wanted in requirements:
            found = pins.get(canonicalize_name(wanted.name), [])
            chosen = [pin for pin in found if pin.marker is None or pin.marker.evaluate(here)]
            if len(chosen) != 1:
                faults.append(f"{wanted.name} has {len(chosen)} pins on Python {python}")
            elif not wanted.specifier.contains(str(chosen[0].specifier).strip("=")):
                faults.append(f"{chosen[0]} is outside {wanted} on Python {python}")
    return faults


def test_lock_holds_what_pyproject_asks_for_on_every_python():
    assert faults_in_lock(LOCK, requirements_to_lock(), PYTHONS) == []


GOOD = "tool==1.5 \\\n    --hash=sha256:ab"


@pytest.mark.parametrize(
    ("lock", "fault"),
    [
        pytest.param(f"{GOOD}\nother==1", "other has no hash", id="no-hash"),
        pytest.param(GOOD.replace("==1.5", ">=1.5"), "tool is not pinned", id="no-pin"),
        pytest.param(f"--index-url https://host/simple\n{GOOD}", "names an address", id="address"),
        pytest.param(
            GOOD.replace("1.5", "1.4"),
            "tool==1.4 is outside tool>=1.5 on Python 3.12",
            id="too-old",
        ),
        pytest.param(
            GOOD.replace("1.5", "1.5 ; python_version < '3.12'"),
            "tool has 0 pins on Python 3.12",
            id="another-python",
        ),
    ],
)
def test_a_fault_in_the_lock_is_found(lock, fault):
    wanted = [Requirement("tool>=1.5")]
    assert faults_in_lock(GOOD, wanted, ["3.12"]) == []
    assert fault in faults_in_lock(lock, wanted, ["3.12"])


def imported_packages(source):
    """The top-level names that Python code imports, relative imports left out."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names}


def test_every_imported_package_is_declared():
    code = "\n".join(path.read_text() for path in (ROOT / "interestkit").glob("*.py"))
    extras = [
        r for name, e in PROJECT["optional-dependencies"].items() if name != "test" for r in e
    ]
    declared = {canonicalize_name(Requirement(r).name) for r in PROJECT["dependencies"] + extras}
    providers = packages_distributions()
    undeclared = {
        name
        for name in imported_packages(code) - sys.stdlib_module_names - {"interestkit"}
        if not declared & {canonicalize_name(p) for p in providers.get(name, [name])}
    }
    assert undeclared == set()


def test_environment_file_installs_this_project_with_its_extras():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, from_pip = environment["dependencies"]
    (editable,) = from_pip["pip"]
    extras = re.fullmatch(r"-e \.\[([a-z,]+)\]", editable).group(1).split(",")
    assert environment["name"] == PROJECT["name"]
    assert pip == "pip"
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    allowed = SpecifierSet(Requirement(python.replace(" ", "")).specifier)
    declared = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{n}" for n in range(8, 30) if f"3.{n}" in allowed] == PYTHONS
    assert [p for p in PYTHONS if p in declared] == PYTHONS
    assert "3.10" not in declared


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[(\d[^]]*)\]", changelog, flags=re.MULTILINE).group(1)
    assert [citation["version"], newest] == [interestkit.__version__] * 2
    assert str(Version(interestkit.__version__)) == interestkit.__version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"


def test_no_module_is_longer_than_400_lines():
    lengths = {
        path.name: len(path.read_text().splitlines())
        for path in (ROOT / "interestkit").rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_import_loads_no_large_package():
    program = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport interestkit\n"
        "large = 'jax flax numpy pandas polars matplotlib seaborn IPython ipywidgets jupyterlab'\n"
        "sys.exit(str(set(large.split()) & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == ""
