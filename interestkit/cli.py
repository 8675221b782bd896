"""The command line: run the numbered notebooks, list the data sets, open JupyterLab."""

import argparse
import ast
import importlib.util
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from interestkit import __version__
from interestkit.files import check_new
from interestkit.running import (
    Failure,
    Notebook,
    RunError,
    check_parameters,
    choose,
    find_notebooks,
    list_notebooks,
    new_run_folder,
    newest_run,
    run_notebooks,
)

STOPPED = 130  # what a shell gives for a command that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after the command's name; None for those of this process.

    Returns:
        The exit code: 0 done, 1 a notebook failed, 2 a mistake in the command, 130 stopped.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command is not _lab:
        parser.error(f"unknown argument {rest[0]}")
    options.rest = rest
    try:
        return options.command(options)
    except RunError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        _complain("stopped")
        return STOPPED


class _Parser(argparse.ArgumentParser):
    """A parser that answers a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{message} (try {self.prog} --help)")
        raise SystemExit(2)


def _parser() -> _Parser:
    parser = _Parser(prog="interestkit", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"interestkit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="{run,data,lab}")
    _add_run(commands)
    data = commands.add_parser("data", help="list the data sets", allow_abbrev=False)
    data.set_defaults(command=_data)
    lab = commands.add_parser(
        "lab",
        help="open JupyterLab on the notebooks",
        description="Open JupyterLab on the notebooks. Other options go to JupyterLab.",
        allow_abbrev=False,
    )
    lab.set_defaults(command=_lab)
    lab.add_argument("--notebooks", metavar="FOLDER", help="default: notebooks/")
    return parser


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="execute the numbered notebooks in order",
        description="Execute the numbered notebooks in order and write runs/<time>-<data>/: the "
        "executed notebooks, report.html, results.json and metrics.parquet.",
        allow_abbrev=False,
    )
    run.set_defaults(command=_run)
    add = run.add_argument
    add("--data", metavar="NAME_OR_FILE", help="a data set (see interestkit data) or a log file")
    pairs = {"nargs": "+", "action": "extend"}
    add("--columns", **pairs, metavar="OURS=THEIRS", help="such as user=personId item=contentId")
    add("--kinds", **pairs, metavar="THEIRS=OURS", help="such as VIEW=view BUY=purchase")
    add(
        *("-p", "--parameter"),
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter in each notebook that has it; a run does not remember it",
    )
    part = run.add_mutually_exclusive_group()
    part.add_argument("--only", metavar="NUMBER", help="run one notebook again, in an earlier run")
    part.add_argument("--from", dest="first", metavar="NUMBER", help="run again from here on")
    add("--out", metavar="FOLDER", help="the run folder; default: a new one, or the newest run")
    add("--notebooks", metavar="FOLDER", help="default: notebooks/")


def _run(options: argparse.Namespace) -> int:
    """Check everything, run, report, and say where to look."""
    from interestkit.report import write_report

    notebooks_folder = find_notebooks(options.notebooks)
    known = list_notebooks(notebooks_folder)
    everything, chosen = choose(known), choose(known, only=options.only, first=options.first)
    parameters = _parameters(options)
    check_parameters(chosen, parameters)
    folder = _run_folder(options, notebooks_folder, everything, again=chosen != everything)
    say = partial(print, flush=True)
    failure = run_notebooks(chosen, folder, parameters=parameters, say=say)
    report = write_report(folder)
    if failure:
        _complain(failure.text)
        _say_how_to_go_on(options, folder, failure, chosen)
    else:
        _say_results(folder)
    print(f"report     {_short(report)}\nnotebooks  {_short(folder)}")
    return (STOPPED if failure.stopped else 1) if failure else 0


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The parameters that the command line sets, name -> value."""
    parameters: dict[str, Any] = {}
    for name, text in options.parameter:
        if name in ("RUN", "DATA", "COLUMNS", "KINDS"):
            instead = {"RUN": "--out"}.get(name, f"--{name.lower()}")
            raise RunError(f"set {name} with {instead}, not with -p")
        parameters[name] = _value(text)
    if options.data is not None:
        parameters["DATA"] = _data_source(options.data)
    if options.columns:
        from interestkit import schema

        ours = (*schema.EVENT_COLUMNS, *schema.ITEM_COLUMNS)
        parameters["COLUMNS"] = _pairs("--columns", options.columns)
        _check_words("--columns", parameters["COLUMNS"], dict.fromkeys(ours))
    if options.kinds:
        from interestkit import schema

        parameters["KINDS"] = _pairs("--kinds", options.kinds)
        _check_words("--kinds", parameters["KINDS"].values(), schema.KINDS)
    return parameters


def _value(text: str) -> Any:
    """The text as a Python literal that a notebook can take, else the text itself."""
    try:
        return json.loads(json.dumps(ast.literal_eval(text)))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _data_source(data: str) -> str:
    """The name of a known data set, or the absolute path of a file that is there."""
    path = Path(data).expanduser()
    if path.is_file():
        return str(path.resolve())
    if path.suffix or len(path.parts) > 1:
        raise RunError(f"--data: there is no file {data}")
    from interestkit.datasets import list_datasets

    _check_words("--data", [data], list_datasets()["name"].to_list())
    return data


def _pairs(option: str, words: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not (name and sign and value):
            raise RunError(f"{option} takes pairs such as a=b, got {word!r}")
        if name in pairs:
            raise RunError(f"{option} names {name} twice")
        pairs[name] = value
    return pairs


def _check_words(option: str, words: Iterable[str], known: Iterable[str]) -> None:
    from interestkit.schema import did_you_mean

    for word in words:
        if word not in known:
            hint = did_you_mean(word, known)
            raise RunError(f"{option} takes {', '.join(known)}, got {word!r}{hint}")


def _run_folder(
    options: argparse.Namespace, notebooks: Path, everything: Sequence[Notebook], *, again: bool
) -> Path:
    """The folder to run in: --out, or the newest run, or a new one; says which."""
    if options.out == "":
        raise RunError("--out takes a folder, got an empty name")
    here = Path.cwd()
    runs = (notebooks.parent if here.is_relative_to(notebooks) else here) / "runs"
    out = None if options.out is None else Path(options.out).resolve()
    if again:
        if out and not out.is_dir():
            raise RunError(f"--out: there is no run {options.out} to go on in")
        folder = out or newest_run(runs)
        which = "--out" if out else "the newest run"
        print(f"again in {_short(folder)} ({which})", flush=True)
        return folder
    try:
        if out:
            check_new(out)
            out.mkdir(parents=True, exist_ok=True)
        else:
            defaults = [n.defaults["DATA"] for n in everything if "DATA" in n.defaults]
            name = next((name for name in defaults if isinstance(name, str)), "")
            out = new_run_folder(runs, options.data or name)
    except (ValueError, OSError) as error:
        raise RunError(f"--out: {error}") from error
    print(f"{len(everything)} notebooks, into {_short(out)}", flush=True)
    return out


def _say_how_to_go_on(
    options: argparse.Namespace, folder: Path, failure: Failure, chosen: Sequence[Notebook]
) -> None:
    """Print the command that runs the rest of a failed run, when the start of it is done."""
    if failure.notebook == chosen[0].number and not (options.only or options.first):
        return
    command = ["interestkit", "run", "--only" if options.only else "--from", failure.notebook]
    command += ["--out", _short(folder)]
    if options.notebooks:
        command += ["--notebooks", options.notebooks]
    left = {name for n in chosen if n.number >= failure.notebook for name in n.defaults}
    for name, text in options.parameter:
        command += ["-p", name, text] if name in left else []
    print(f"go on with {shlex.join(command)}")


def _say_results(folder: Path) -> None:
    """Print the results table, and whether some notebooks are out of date."""
    from interestkit.report import outdated_note, read_results, results_text

    try:
        results = read_results(folder)
    except ValueError as error:
        _complain(str(error))
        results = None
    if results:
        print(f"\n{results_text(results)}\n")
    if note := outdated_note(folder):
        print(note)


def _data(_: argparse.Namespace) -> int:
    """List the data sets as a table or, where that is wider than the terminal, as blocks."""
    from interestkit.datasets import list_datasets
    from interestkit.report import align

    table = list_datasets()
    rows = [[_shown(cell) for cell in row] for row in table.rows()]
    text = align([table.columns, *rows])
    longest = max(map(len, text.split("\n")))
    if sys.stdout.isatty() and longest > shutil.get_terminal_size().columns:
        width = max(map(len, table.columns)) + 2
        blocks = [zip(table.columns, row, strict=True) for row in rows]
        lines = [[f"{name:{width}}{cell}" for name, cell in block if cell] for block in blocks]
        text = "\n\n".join("\n".join(block) for block in lines)
    print(text)
    return 0


def _shown(cell: Any) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return "" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell)


def _lab(options: argparse.Namespace) -> int:
    """Become JupyterLab, on this machine alone, with the kernel of this interpreter."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise RunError("JupyterLab is not installed in this environment")
    folder = find_notebooks(options.notebooks)
    settings = [f"--ServerApp.root_dir={folder}", "--ServerApp.ip=127.0.0.1"]
    if (folder / "README.md").is_file():
        settings.append("--LabApp.default_url=/lab/tree/README.md")
    command = [sys.executable, "-m", "jupyterlab", *settings, *options.rest]
    ours = str(Path(__file__).with_name("lab"))  # defaults that the user's own settings go before
    places = [os.environ.get("JUPYTER_CONFIG_PATH"), ours]
    environment = {"JUPYTER_PREFER_ENV_PATH": "1"} | os.environ  # kernels of this environment first
    environment["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, places))
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)
    return 0


def _short(path: Path) -> str:
    """The path from the current folder where it lies below, else in full."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _complain(text: str) -> None:
    print(f"interestkit: {text}", file=sys.stderr)
