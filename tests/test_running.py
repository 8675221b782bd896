"""Running notebooks: what is chosen, which parameters are allowed, and what is kept."""

import json
import os
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from interestkit.running import (
    RunError,
    check_parameters,
    choose,
    find_notebooks,
    list_notebooks,
    new_run_folder,
    newest_run,
    run_notebooks,
)


def write_notebook(folder, name, parameters, *cells):
    """A notebook with a title, a parameters cell and the given code cells, without a kernel."""
    tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    code = [new_code_cell(source) for source in cells]
    folder.mkdir(exist_ok=True)
    nbformat.write(
        new_notebook(cells=[new_markdown_cell(f"# {name}"), tagged, *code]),
        folder / f"{name}.ipynb",
    )


@pytest.fixture
def notebooks(tmp_path):
    folder = tmp_path / "notebooks"
    write_notebook(
        folder, "01_first", 'RUN = "x"\nDATA = "tiny"\nSIZE = 3\nFAST = True\nNAME = "a"'
    )
    write_notebook(folder, "02_second", "RUN = 'x'\nSIZE: float = 0.5\nWHERE = str(1)\nNONE = None")
    write_notebook(folder, "gallery", "LOST = 1")
    return folder


def run(folder, out, **parameters):
    lines = []
    chosen = list_notebooks(folder)
    out.mkdir(exist_ok=True)
    return run_notebooks(chosen, out, parameters=parameters, say=lines.append), lines


def code_of(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_only_numbered_notebooks_are_listed_in_order(notebooks):
    assert [nb.path.name for nb in list_notebooks(notebooks)] == [
        "01_first.ipynb",
        "02_second.ipynb",
    ]


def test_defaults_are_those_that_the_parameters_cell_sets(notebooks):
    first, second = list_notebooks(notebooks)
    assert first.defaults == {"RUN": "x", "DATA": "tiny", "SIZE": 3, "FAST": True, "NAME": "a"}
    assert list(second.defaults) == ["RUN", "SIZE", "WHERE", "NONE"]
    assert second.defaults["SIZE"] == 0.5


@pytest.mark.parametrize(
    "content",
    [
        "not JSON",
        json.dumps(
            {"nbformat": 4, "nbformat_minor": 2, "metadata": {}}
            | {"cells": [{"cell_type": "raw", "source": "", "metadata": {"tags": 5}}]}
        ),
    ],
    ids=["text", "strange tags"],
)
def test_file_that_is_no_notebook_is_named(tmp_path, content):
    (tmp_path / "01_bad.ipynb").write_text(content)
    with pytest.raises(RunError, match=r"01_bad\.ipynb: damaged, or saved"):
        list_notebooks(tmp_path)


def test_parameters_cell_must_be_plain_python(tmp_path):
    write_notebook(tmp_path, "01_magic", "%time RUN = 1")
    with pytest.raises(RunError, match=r"01_magic\.ipynb: the parameters cell is not plain"):
        list_notebooks(tmp_path)


def test_notebooks_are_found_in_the_current_folder_or_where_told(notebooks, monkeypatch):
    monkeypatch.chdir(notebooks.parent)
    assert find_notebooks() == notebooks
    assert find_notebooks(str(notebooks)) == notebooks
    with pytest.raises(RunError, match=r"no numbered notebook .* in elsewhere: give --notebooks"):
        find_notebooks("elsewhere")


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        pytest.param({}, ["01", "02"], id="all"),
        pytest.param({"only": "1"}, ["01"], id="only-short-number"),
        pytest.param({"only": "02"}, ["02"], id="only"),
        pytest.param({"first": "02"}, ["02"], id="from-last"),
        pytest.param({"first": "1"}, ["01", "02"], id="from-first"),
    ],
)
def test_choice_is_by_number(notebooks, options, numbers):
    assert [nb.number for nb in choose(list_notebooks(notebooks), **options)] == numbers


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        pytest.param({}, ["01", "02"], id="all"),
        pytest.param({"first": "02"}, ["02"], id="from"),
        pytest.param({"only": "12"}, ["12"], id="only"),
    ],
)
def test_notebook_without_a_run_folder_runs_only_when_asked_for(notebooks, options, numbers):
    write_notebook(notebooks, "12_apart", "EPOCHS = 3")
    assert [nb.number for nb in choose(list_notebooks(notebooks), **options)] == numbers


@pytest.mark.parametrize("option", ["only", "first"])
def test_unknown_number_lists_the_numbers(notebooks, option):
    with pytest.raises(RunError, match="no notebook has the number 7; there are 01, 02"):
        choose(list_notebooks(notebooks), **{option: "7"})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        pytest.param({"SIZES": 1}, "SIZES; there are DATA, .* mean 'SIZE'", id="near"),
        pytest.param({"size": 1}, "size; .*; did you mean 'SIZE'", id="small-letters"),
        pytest.param({"QQQ": 1}, "parameter QQQ; there are DATA, FAST, NAME, NONE, SI", id="far"),
        pytest.param({"RUN": "y"}, "parameter RUN", id="run-folder-is-ours"),
        pytest.param({"LOST": 1}, "parameter LOST", id="unnumbered-notebook"),
        pytest.param({"SIZE": "ten"}, "SIZE takes a number such as 3, got 'ten'", id="number"),
        pytest.param({"SIZE": True}, "SIZE takes a number such as 3, got True", id="no-bool"),
        pytest.param({"FAST": "false"}, "FAST takes True or False, got 'false'", id="bool"),
        pytest.param({"FAST": 0}, "FAST takes True or False, got 0", id="bool-not-zero"),
    ],
)
def test_wrong_parameter_is_refused(notebooks, parameters, message):
    with pytest.raises(RunError, match=message):
        check_parameters(list_notebooks(notebooks), parameters)


def test_fitting_parameters_pass(notebooks):
    values = {"SIZE": 2.5, "FAST": False, "NAME": 7, "WHERE": 1, "NONE": [1], "DATA": "x"}
    check_parameters(list_notebooks(notebooks), values)
    check_parameters(list_notebooks(notebooks), {"SIZE": None})


def test_runs_of_one_second_get_folders_of_their_own(tmp_path):
    folders = [new_run_folder(tmp_path / "runs", "tiny") for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() and folder.is_absolute() for folder in folders)


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        pytest.param("ml-100k", "-ml-100k", id="name"),
        pytest.param("/a/my log (2).csv", "-my-log-2", id="file"),
        pytest.param("../..", "-data", id="nothing-left"),
        pytest.param("", "-data", id="empty"),
    ],
)
def test_run_folder_is_named_after_the_data(tmp_path, data, ending):
    folder = new_run_folder(tmp_path, data)
    assert folder.parent == tmp_path
    assert folder.name[15:] == ending


def test_newest_run_goes_by_the_time_in_the_name(tmp_path):
    for name in ("20260102-000000-b", "20260103-000000-empty", "20260101-000000-a", "other"):
        (tmp_path / name).mkdir()
        if "empty" not in name:
            (tmp_path / name / "01_first.ipynb").touch()
    os.utime(tmp_path / "20260101-000000-a", (4e9, 4e9))  # changed last, but begun first
    assert newest_run(tmp_path).name == "20260102-000000-b"


def test_newest_run_needs_a_run(tmp_path):
    with pytest.raises(RunError, match=r"no earlier run in .*runs: run all notebooks first"):
        newest_run(tmp_path / "runs")


@pytest.fixture(scope="module")
def good_run(tmp_path_factory):
    """Two notebooks with braces in their folder's name, run without a terminal."""
    root = tmp_path_factory.mktemp("{good} run")
    folder = root / "notebooks"
    write_notebook(
        folder,
        "01_write",
        "RUN = 'x'\nCOLUMNS = None\nNAME = 'default'",
        "import os, sys, json",
        "state = dict(columns=COLUMNS, name=NAME, cwd=os.getcwd(), python=sys.executable)",
        "json.dump(state, open(RUN + '/state.json', 'w'))",
    )
    write_notebook(
        folder,
        "02_read",
        "RUN = 'x'",
        "print(open(RUN + '/state.json').read())",
        "'state' in dir()",
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    columns, name = {"user": "person id"}, 'a "quoted" \\ {name} ü'
    failure, lines = run(folder, root / "out", COLUMNS=columns, NAME=name)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    return failure, lines, root / "out", folder


@pytest.mark.notebooks
def test_good_run_ends_without_failure(good_run):
    assert good_run[0] is None


@pytest.mark.notebooks
def test_without_a_terminal_each_notebook_gets_one_line(good_run):
    lines = good_run[1]
    assert [line.split()[0] for line in lines] == ["01_write", "02_read"]
    assert all(line.endswith(" s  ok") for line in lines)


@pytest.mark.notebooks
def test_parameters_reach_the_notebook_unchanged(good_run):
    state = json.loads((good_run[2] / "state.json").read_text())
    assert state["columns"] == {"user": "person id"}
    assert state["name"] == 'a "quoted" \\ {name} ü'


@pytest.mark.notebooks
def test_notebook_runs_in_its_folder_with_this_interpreter(good_run):
    state = json.loads((good_run[2] / "state.json").read_text())
    assert state["cwd"] == str(good_run[3])
    assert state["python"] == sys.executable


@pytest.mark.notebooks
def test_state_passes_through_the_run_folder_and_not_through_the_kernel(good_run):
    *_, printed, seen = code_of(good_run[2] / "02_read.ipynb")
    assert "person id" in printed.outputs[0].text
    assert seen.outputs[0].data["text/plain"] == "False"


@pytest.mark.notebooks
def test_kernel_is_this_interpreter_whatever_is_registered(tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "other", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write_notebook(tmp_path / "notebooks", "01_a", "RUN = 'x'")
    failure, _ = run(tmp_path / "notebooks", tmp_path / "out")
    assert failure is None


LONG = "\n".join(["# long cell", *(f"a{i} = {i}" for i in range(8)), "raise ValueError(text)"])


@pytest.fixture(scope="module")
def bad_run(tmp_path_factory):
    """Three notebooks; the second fails in its last cell but one."""
    root = tmp_path_factory.mktemp("bad")
    folder = root / "notebooks"
    write_notebook(folder, "01_good", "RUN = 'x'", "1")
    text = "text = '\\x1b[31mred\\x1b[0m title ' + 'x' * 2000"
    write_notebook(folder, "02_bad", "RUN = 'x'", text, LONG, "print('never')")
    write_notebook(folder, "03_never", "RUN = 'x'", "1")
    return *run(folder, root / "out"), root / "out"


@pytest.mark.notebooks
def test_failure_names_notebook_cell_source_and_error(bad_run):
    text = bad_run[0].text.split("\n")
    # cells of the file: title, parameters, text, LONG; code cells run: 2 + injected + LONG
    assert text[0].startswith("02_bad.ipynb failed after ")
    assert text[0].endswith(" s in cell 4 (In [4]):")
    assert text[2:9] == [
        "    # long cell",
        *(f"    a{i} = {i}" for i in range(5)),
        "    … 4 more lines",
    ]
    assert text[10].startswith("ValueError: red title xxx")
    assert text[11] == "  at Cell In[4], line 10"


@pytest.mark.notebooks
def test_failure_fits_one_screen_without_colours(bad_run):
    text = bad_run[0].text
    assert "\x1b" not in text
    assert len(text.split("\n")) <= 24
    assert max(map(len, text.split("\n"))) <= 300


@pytest.mark.notebooks
def test_failed_run_stops_and_keeps_what_was_done(bad_run):
    failure, lines, out = bad_run
    assert (failure.notebook, failure.stopped) == ("02", False)
    assert [line.split()[-1] for line in lines] == ["ok", "FAILED"]
    assert sorted(path.name for path in out.iterdir()) == ["01_good.ipynb", "02_bad.ipynb"]


@pytest.mark.notebooks
def test_executed_copy_of_a_failed_notebook_has_the_error(bad_run):
    executed = nbformat.read(bad_run[2] / "02_bad.ipynb", as_version=4)
    errors = [o for c in executed.cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert [error.ename for error in errors] == ["ValueError"]
    assert executed.metadata.interestkit.failure == bad_run[0].text


@pytest.mark.notebooks
def test_kernel_that_dies_is_a_failure_with_its_cell(tmp_path):
    kill = "import os\nos.kill(os.getpid(), 9)"
    write_notebook(tmp_path / "notebooks", "01_dies", "RUN = 'x'", kill)
    failure, _ = run(tmp_path / "notebooks", tmp_path / "out")
    assert "in cell 3 (In [3]):\n\n    import os\n" in failure.text
    assert "The kernel gave up: Kernel died" in failure.text
    assert (tmp_path / "out" / "01_dies.ipynb").is_file()


@pytest.mark.notebooks
def test_evaluation_must_write_its_results(tmp_path):
    write = "open(RUN + '/results.json', 'w').close()"
    write_notebook(tmp_path / "notebooks", "05_evaluation", "RUN = 'x'", write)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.parquet").touch()
    os.utime(tmp_path / "out" / "metrics.parquet", (1e9, 1e9))  # left from an earlier run
    failure, _ = run(tmp_path / "notebooks", tmp_path / "out")
    assert failure.text == (
        "05_evaluation.ipynb ended without writing metrics.parquet to its folder RUN"
    )


class Terminal:
    """Stands in for a terminal: keeps what is written."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


@pytest.mark.notebooks
def test_on_a_terminal_one_bar_counts_the_cells_of_all_notebooks(tmp_path, monkeypatch):
    write_notebook(tmp_path / "notebooks", "01_a", "RUN = 'x'", "1", "", "2")
    write_notebook(tmp_path / "notebooks", "02_b", "RUN = 'x'", "1")
    monkeypatch.setattr(sys, "stderr", Terminal())
    _, lines = run(tmp_path / "notebooks", tmp_path / "out")
    last = sys.stderr.text.split("\r")[-1]
    assert "02_b: 100%" in last
    assert "5/5" in last  # 3 + 2 code cells that are not empty
    assert sys.stderr.text.count("\n") == 1
    assert lines == []
