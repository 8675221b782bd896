"""Run the numbered notebooks in order, each in a fresh kernel, into one folder per run."""

import ast
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

NUMBERED = re.compile(r"\d\d_.+\.ipynb")
RUN_FOLDER = re.compile(r"\d{8}-\d{6}-.+")
EVALUATION = "05"  # the number of the notebook that writes the results
RESULT_FILES = ("results.json", "metrics.parquet")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class RunError(ValueError):
    """A mistake in what was asked for, found before any notebook runs."""


@dataclass(frozen=True, kw_only=True)
class Notebook:
    """One numbered notebook.

    Attributes:
        path: The file in the notebooks folder, absolute.
        defaults: Parameter name -> default in the cell tagged `parameters`, in its order; None
            for one that is computed.
        parameters_at: Position of that cell, counted from 0; -1 when there is none.
        num_cells: Code cells that are not empty.
    """

    path: Path
    defaults: Mapping[str, Any]
    parameters_at: int
    num_cells: int

    @property
    def number(self) -> str:
        """The two digits that the file name starts with."""
        return self.path.name[:2]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a run ended early.

    Attributes:
        notebook: Number of the notebook that was running.
        text: What a person needs on one screen: notebook, cell, source, error.
        stopped: True when the person stopped it (Ctrl-C), False when the notebook failed.
    """

    notebook: str
    text: str
    stopped: bool = False


def find_notebooks(folder: str | Path | None = None) -> Path:
    """The folder of the numbered notebooks, absolute.

    Args:
        folder: The folder, or None for `notebooks/` under the current folder and, where that
            is missing, beside the package.

    Raises:
        RunError: If there is no such folder or it holds no numbered notebook.
    """
    beside_package = Path(__file__).resolve().parents[1] / "notebooks"
    places = [Path("notebooks"), beside_package] if folder is None else [Path(folder)]
    for place in places:
        if place.is_dir() and any(NUMBERED.fullmatch(file.name) for file in place.iterdir()):
            return place.resolve()
    tried = " or ".join(str(place) for place in places)
    raise RunError(f"no numbered notebook (such as 01_name.ipynb) in {tried}: give --notebooks")


def list_notebooks(folder: Path) -> list[Notebook]:
    """The numbered notebooks of a folder, in order, as `read_notebook` reads each."""
    files = sorted(file for file in folder.iterdir() if NUMBERED.fullmatch(file.name))
    return [read_notebook(file) for file in files]


def read_notebook(path: Path) -> Notebook:
    """One notebook and the defaults that its parameters cell sets at its top level.

    Raises:
        RunError: If the file is no notebook, or its parameters cell is not plain Python.
    """
    from interestkit.bounded import load_notebook, read_back

    try:
        cells = load_notebook(path).cells
        with read_back(path):
            tagged = [i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", [])]
            code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    except ValueError as error:
        raise RunError(_one_line(error)) from error
    try:
        defaults = _defaults(cells[tagged[0]].source) if tagged else {}
    except SyntaxError as error:
        raise RunError(f"{path}: the parameters cell is not plain Python: {error}") from error
    return Notebook(
        path=path,
        defaults=defaults,
        parameters_at=tagged[0] if tagged else -1,
        num_cells=len(code),
    )


def choose(
    notebooks: Sequence[Notebook], *, only: str | None = None, first: str | None = None
) -> list[Notebook]:
    """The notebooks to run: all, those numbered `only`, or those from number `first` on.

    One whose parameters lack RUN has no part in the run of the others: it must be asked for.

    Raises:
        RunError: If no notebook has the number.
    """
    if only is None:
        notebooks = [each for each in notebooks if "RUN" in each.defaults or not each.defaults]
    asked = first if only is None else only
    if asked is None:
        return list(notebooks)
    number = asked.zfill(2)
    numbers = list(dict.fromkeys(notebook.number for notebook in notebooks))
    if number not in numbers:
        raise RunError(
            f"no notebook has the number {asked or '(empty)'}; there are {', '.join(numbers)}"
        )
    if only is not None:
        return [notebook for notebook in notebooks if notebook.number == number]
    return [notebook for notebook in notebooks if notebook.number >= number]


def check_parameters(notebooks: Sequence[Notebook], parameters: Mapping[str, Any]) -> None:
    """Check that every name is a parameter of some notebook, and every value of its kind.

    Raises:
        RunError: If no notebook has the name, or a number or a truth value is expected and
            another type came.
    """
    from interestkit.schema import did_you_mean

    names = sorted({name for notebook in notebooks for name in notebook.defaults} - {"RUN"})
    for name, value in parameters.items():
        if name not in names:
            there = f"there are {', '.join(names) or 'none'}{did_you_mean(name.upper(), names)}"
            raise RunError(f"no notebook of this run has a parameter {name}; {there}")
        for notebook in notebooks:
            _check_type(name, notebook.defaults.get(name), value)


def new_run_folder(runs: Path, data: str) -> Path:
    """Make `runs/<local time>-<data>`, with a number at the end where that is taken."""
    source = Path(data)
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", source.stem if source.suffix else data)
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{words.strip('-.')[:40] or 'data'}"
    runs.mkdir(parents=True, exist_ok=True)
    for attempt in count(1):
        folder = runs / (name if attempt == 1 else f"{name}-{attempt}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder.resolve()


def newest_run(runs: Path) -> Path:
    """The youngest run folder that holds an executed notebook.

    Raises:
        RunError: If there is none.
    """
    made = [path for path in runs.glob("*") if RUN_FOLDER.fullmatch(path.name)]
    made = [path for path in made if any(path.glob("[0-9][0-9]_*.ipynb"))]
    if not made:
        raise RunError(f"no earlier run in {runs}: run all notebooks first, or give --out")
    return max(made, key=lambda path: (path.name[:15], path.stat().st_mtime_ns)).resolve()


def run_notebooks(
    notebooks: Sequence[Notebook],
    folder: Path,
    *,
    parameters: Mapping[str, Any],
    say: Callable[[str], None],
) -> Failure | None:
    """Execute notebooks in order and save the executed copies in the run folder.

    One progress bar counts the cells on a terminal; elsewhere `say` gets one line for each
    notebook as it ends. The first notebook that fails ends the run.

    Args:
        notebooks: What to run, in order.
        folder: The run folder, absolute; each notebook gets it as its parameter RUN.
        parameters: Name -> value; each notebook gets those that its parameters cell has.
        say: Takes one line of text.

    Returns:
        None, or why the run ended early; what was done until then is in the folder.
    """
    from tqdm import tqdm

    total = sum(notebook.num_cells for notebook in notebooks)
    with tqdm(total=total, unit="cell", disable=None, dynamic_ncols=True) as bar:
        for notebook in notebooks:
            bar.set_description(notebook.path.stem)
            began = time.time()
            failure = _execute(notebook, folder, parameters, bar.update)
            if bar.disable:
                state = "ok" if failure is None else "stopped" if failure.stopped else "FAILED"
                say(f"{notebook.path.stem:32} {time.time() - began:8.1f} s  {state}")
            if failure:
                return failure
    return None


def _defaults(source: str) -> dict[str, Any]:
    defaults = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            try:
                value = ast.literal_eval(node.value)
            except (ValueError, TypeError):
                value = None  # computed, not written out
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defaults |= {name.id: value for name in targets if isinstance(name, ast.Name)}
    return defaults


def _check_type(name: str, default: Any, value: Any) -> None:
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "True or False"
    elif isinstance(default, int | float):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits, wanted = value is None or is_number, f"a number such as {default}"
    else:
        return
    if not fits:
        raise RunError(f"{name} takes {wanted}, got {value!r}")


def _execute(
    notebook: Notebook, folder: Path, parameters: Mapping[str, Any], on_cell: Callable[[], Any]
) -> Failure | None:
    """Execute one notebook; the executed copy is saved whatever happens."""
    from papermill.exceptions import PapermillExecutionError

    values = {name: value for name, value in parameters.items() if name in notebook.defaults}
    if "RUN" in notebook.defaults:
        values["RUN"] = str(folder)
    seen = {"at": 0, "count": 0, "source": ""}
    began = time.time()
    try:
        with _quiet_papermill():
            _papermill(notebook, folder / notebook.path.name, values, seen, on_cell)
        text = _missing_results(notebook, folder, began)
    except KeyboardInterrupt:
        text = _where(notebook, seen, values, "was stopped")
        return _keep(notebook, folder, Failure(notebook=notebook.number, text=text, stopped=True))
    except (PapermillExecutionError, RuntimeError) as error:  # also a kernel that dies
        head = f"failed after {time.time() - began:.1f} s"
        text = f"{_where(notebook, seen, values, head)}\n\n{_error_text(error)}"
    if text is None:
        return None
    return _keep(notebook, folder, Failure(notebook=notebook.number, text=text))


def _papermill(
    notebook: Notebook,
    target: Path,
    values: Mapping[str, Any],
    seen: dict[str, Any],
    on_cell: Callable[[], Any],
) -> None:
    """Call papermill with a kernel of this interpreter; `seen` follows the current cell."""
    import papermill

    def starts(cell: Any, cell_index: int) -> None:
        seen.update(at=cell_index, count=seen["count"] + 1, source=cell.source)

    def ends(cell: Any, **_: Any) -> None:
        if "injected-parameters" not in cell.metadata.get("tags", []):
            on_cell()

    papermill.execute_notebook(
        _literal(notebook.path),
        _literal(target),
        parameters=dict(values),
        kernel_name="python3",
        language="python",
        progress_bar=False,
        cwd=notebook.path.parent,
        kernel_manager_class=_kernel_manager(),
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        on_cell_execute=starts,
        on_cell_executed=ends,
    )


def _literal(path: Path) -> str:
    """The path as papermill wants it, which fills in {names} of a plain one."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _kernel_manager() -> type:
    """A manager whose kernels run this interpreter, whatever kernels are registered."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class ThisInterpreter(AsyncKernelManager):
        kernel_spec = property(lambda _: KernelSpec(**get_kernel_dict()))

    return ThisInterpreter


@contextmanager
def _quiet_papermill() -> Iterator[None]:
    """Keep papermill's log lines out of the progress bar; failures are told in full later."""
    import logging

    log = logging.getLogger("papermill")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


def _where(notebook: Notebook, seen: Mapping[str, Any], values: Mapping, what: str) -> str:
    """The notebook and the cell, counted as in the notebooks folder, and its first lines."""
    name = notebook.path.name
    if not seen["count"]:
        return f"{name} {what} before its first cell"
    injected = bool(values) and seen["at"] > notebook.parameters_at
    lines = _clean(seen["source"]).strip("\n").split("\n")
    shown = [f"    {line[:100]}" for line in lines[:6]]
    if len(lines) > 6:
        shown.append(f"    … {len(lines) - 6} more lines")
    number = seen["at"] + 1 - injected
    return "\n".join([f"{name} {what} in cell {number} (In [{seen['count']}]):", "", *shown])


def _error_text(error: Exception) -> str:
    """The error and the places it passed through, in at most 14 lines without colours."""
    ename, evalue = getattr(error, "ename", None), getattr(error, "evalue", str(error))
    if ename is None:
        return f"The kernel gave up: {_one_line(error)} (a kernel often dies of too little memory)"
    lines = _clean(f"{ename}: {evalue}").split("\n")
    shown = [line[:300] for line in lines[:8]] + ["…"] * (len(lines) > 8)
    trace = _clean("\n".join(error.traceback)).split("\n")
    places = [line[:160] for line in trace if re.match(r"(Cell In|File )", line)]
    return "\n".join([*shown, *(f"  at {place}" for place in places[-4:])])


def _missing_results(notebook: Notebook, folder: Path, began: float) -> str | None:
    """Say which result file the evaluation notebook did not write just now, if any."""
    if notebook.number != EVALUATION:
        return None
    files = [folder / name for name in RESULT_FILES]
    old = [f.name for f in files if not f.is_file() or f.stat().st_mtime < began - 1]
    if not old:
        return None
    return f"{notebook.path.name} ended without writing {' and '.join(old)} to its folder RUN"


def _keep(notebook: Notebook, folder: Path, failure: Failure) -> Failure:
    """Note the failure in the executed copy, where the report finds it."""
    path = folder / notebook.path.name
    if path.is_file():
        executed = json.loads(path.read_text(encoding="utf-8"))
        executed["metadata"]["interestkit"] = {"failure": failure.text}
        path.write_text(json.dumps(executed, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return failure


def _clean(text: str) -> str:
    """Text without terminal escapes and control characters."""
    return ESCAPES.sub("", text)


def _one_line(error: Exception) -> str:
    return " ".join(_clean(str(error)).split())[:300]
