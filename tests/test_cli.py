"""The command line: what it accepts, what it prints, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import nbformat
import polars as pl
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import interestkit
from interestkit.cli import main
from interestkit.running import Failure

ROOT = Path(interestkit.__file__).resolve().parents[1]
WRITE_RESULTS = """
import json
from pathlib import Path
row = dict(target="items", model="popular", metric=f"ndcg@{TOP_K}", value=0.25, low=0.23, high=0.27)
results = dict(data=Path(RUN, "data.txt").read_text(), split="temporal", table=[row])
Path(RUN, "results.json").write_text(json.dumps(results))
Path(RUN, "metrics.parquet").touch()
"""


def write_notebook(folder, name, parameters, *cells):
    tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    code = [new_code_cell(source) for source in cells]
    folder.mkdir(exist_ok=True)
    nbformat.write(
        new_notebook(cells=[new_markdown_cell(f"# {name}"), tagged, *code]),
        folder / f"{name}.ipynb",
    )


def write_notebooks(folder, *, middle="1"):
    """Three stages: 01 keeps the name of the data, 03 may fail, 05 writes the results."""
    first = "RUN = 'x'\nDATA = 'tiny'\nCOLUMNS = None\nKINDS = None"
    keep = "open(RUN + '/data.txt', 'w').write(str([DATA, COLUMNS, KINDS]))"
    write_notebook(folder, "01_first", first, keep)
    write_notebook(folder, "03_middle", "RUN = 'x'\nSEED = 0", middle)
    write_notebook(folder, "05_evaluation", "RUN = 'x'\nTOP_K = 10", WRITE_RESULTS)


def call(*words):
    """The exit code of the command line, also where the parser ends it."""
    try:
        return main(words)
    except SystemExit as end:
        return end.code


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty current folder with three notebooks and a list of data sets."""
    write_notebooks(tmp_path / "notebooks")
    (tmp_path / "log.csv").write_text("personId\n1\n")
    monkeypatch.chdir(tmp_path)
    table = pl.DataFrame(
        {
            "name": ["tiny", "complete-journey"],
            "events": [12, 1_469_307],
            "licence": ["CC0", None],
            "available": [True, False],
        }
    )
    fake = types.SimpleNamespace(list_datasets=lambda: table)
    monkeypatch.setitem(sys.modules, "interestkit.datasets", fake)
    return tmp_path


@pytest.mark.notebooks
def test_run_again_and_repair_share_one_run(project, capsys):
    options = ["--columns", "user=personId", "--kinds", "a b=view", "--data", "log.csv"]
    assert call("run", *options, "-p", "TOP_K", "20") == 0
    out = capsys.readouterr().out
    (run,) = (project / "runs").iterdir()
    assert run.name.endswith("-log")
    assert out.startswith(f"3 notebooks, into runs/{run.name}\n")
    assert "\nitems\nmetric         popular\nndcg@20  0.250 ± 0.020\n" in out
    assert f"report     runs/{run.name}/report.html\n" in out
    data = json.loads((run / "results.json").read_text())["data"]
    assert data == str([str(project / "log.csv"), {"user": "personId"}, {"a b": "view"}])

    assert call("run", "--only", "3", "-p", "SEED", "5") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"again in runs/{run.name} (the newest run)\n")
    assert "note: 05_evaluation ran before the newest run" in out
    executed = nbformat.read(run / "03_middle.ipynb", as_version=4)
    assert executed.metadata.papermill.parameters == {"SEED": 5, "RUN": str(run)}

    write_notebooks(project / "notebooks", middle="raise KeyError('<lost>')")
    assert call("run", "--from", "03", "--out", str(run), "-p", "TOP_K", "7") == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(f"again in runs/{run.name} (--out)\n")
    assert printed.err.startswith("interestkit: 03_middle.ipynb failed after ")
    assert "KeyError: '<lost>'" in printed.err
    assert f"go on with interestkit run --from 03 --out runs/{run.name} -p TOP_K 7\n" in printed.out
    assert "KeyError: &#x27;&lt;lost&gt;&#x27;" in (run / "report.html").read_text()
    assert len(list((project / "runs").iterdir())) == 1
    assert sorted(path.name for path in (project / "notebooks").iterdir()) == [
        "01_first.ipynb",
        "03_middle.ipynb",
        "05_evaluation.ipynb",
    ]


@pytest.mark.notebooks
def test_ctrl_c_ends_cleanly_and_keeps_what_was_done(tmp_path):
    wait = "open(RUN + '/started', 'w').close()\nimport time\ntime.sleep(100)"
    write_notebook(tmp_path / "notebooks", "01_first", "RUN = 'x'")
    write_notebook(tmp_path / "notebooks", "02_waits", "RUN = 'x'", wait)
    program = "import sys; from interestkit.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run", "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if (tmp_path / "out" / "started").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("interestkit: 02_waits.ipynb was stopped in cell 3 (In [3]):")
    assert "Traceback" not in err
    assert "go on with interestkit run --from 02 --out out\n" in out
    assert {"01_first.ipynb", "02_waits.ipynb", "report.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param([], "the following arguments are required", id="no-command"),
        pytest.param(["fly"], "invalid choice: 'fly'", id="command"),
        pytest.param(["run", "--dat", "x"], "unknown argument --dat", id="no-abbreviation"),
        pytest.param(["run", "more"], "unknown argument more", id="more-words"),
        pytest.param(["run", "-p", "TOPK", "1"], "did you mean 'TOP_K'?", id="parameter"),
        pytest.param(["run", "-p", "SEED", "one"], "SEED takes a number such as 0", id="type"),
        pytest.param(["run", "-p", "RUN", "x"], "set RUN with --out", id="run"),
        pytest.param(["run", "-p", "DATA", "x"], "set DATA with --data", id="data-as-parameter"),
        pytest.param(["run", "--only", "2"], "no notebook has the number 2", id="number"),
        pytest.param(["run", "--only", "1", "--from", "1"], "not allowed with", id="only-and-from"),
        pytest.param(["run", "--only", "3"], "no earlier run in ", id="no-run-yet"),
        pytest.param(["run", "--only", "3", "--out", "x"], "there is no run x", id="no-such-run"),
        pytest.param(["run", "--only", "3", "--data", "tiny"], "a parameter DATA", id="not-for-3"),
        pytest.param(
            ["run", "--out", "notebooks"],
            "must be new or empty, got a folder with",
            id="full-folder",
        ),
        pytest.param(["run", "--data", "no.csv"], "there is no file no.csv", id="no-file"),
        pytest.param(["run", "--data", "tinny"], "did you mean 'tiny'?", id="no-data-set"),
        pytest.param(["run", "--columns", "user"], "pairs such as a=b, got 'user'", id="pair"),
        pytest.param(["run", "--columns", "user=a", "user=b"], "names user twice", id="twice"),
        pytest.param(["run", "--columns", "usr=a"], "did you mean 'user'?", id="column"),
        pytest.param(["run", "--kinds", "BUY=bought"], "got 'bought'", id="kind"),
        pytest.param(
            ["run", "--columns", "user=a", "--columns", "item=b", "user=c"],
            "names user twice",
            id="columns-add-up",
        ),
        pytest.param(["run", "--kinds", "A=b", "--kinds", "B=view"], "got 'b'", id="kinds-add-up"),
        pytest.param(["run", "--only", ""], "the number (empty)", id="no-number"),
        pytest.param(["run", "--from", ""], "the number (empty)", id="from-no-number"),
        pytest.param(["run", "--data", ""], "--data takes tiny, complete-journey", id="empty-data"),
        pytest.param(["run", "--out", ""], "--out takes a folder, got an empty", id="empty-out"),
        pytest.param(["run", "--only", "1", "--out", ""], "--out takes a", id="empty-out-again"),
        pytest.param(["run", "--out", "log.csv/sub"], "--out: [Errno 20] Not a", id="below-a-file"),
        pytest.param(["run", "--out", "/proc/x"], "--out: [Errno", id="no-place"),
        pytest.param(["run", "--notebooks", "away"], "in away: give --notebooks", id="notebooks"),
        pytest.param(["lab", "--notebooks", "away"], "in away: give --notebooks", id="lab"),
    ],
)
def test_mistake_is_one_line_and_starts_nothing(project, capsys, words, message):
    assert call(*words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("interestkit: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("20", 20, id="int"),
        pytest.param("-0.5", -0.5, id="negative"),
        pytest.param("True", True, id="bool"),
        pytest.param("None", None, id="none"),
        pytest.param("(100, 100)", [100, 100], id="tuple-as-list"),
        pytest.param("{'a': [1]}", {"a": [1]}, id="dict"),
        pytest.param("'5'", "5", id="quoted"),
        pytest.param("ease", "ease", id="word"),
        pytest.param("a b=c", "a b=c", id="no-literal"),
        pytest.param("{1, 2}", "{1, 2}", id="set-stays-text"),
        pytest.param("", "", id="empty"),
    ],
)
def test_parameter_value_is_a_literal_else_text(project, monkeypatch, text, value):
    given = {}

    def fake_run(*_, parameters, **__):
        given.update(parameters)

    write_notebook(project / "notebooks", "04_any", "RUN = 'x'\nANY = None")
    monkeypatch.setattr("interestkit.cli.run_notebooks", fake_run)
    assert call("run", "-p", "ANY", text) == 0
    assert given == {"ANY": value}
    assert type(given["ANY"]) is type(value)


def end_run_with(monkeypatch, **failure):
    end = Failure(text="it failed", **failure)
    monkeypatch.setattr("interestkit.cli.run_notebooks", lambda *_, **__: end)


@pytest.mark.usefixtures("project")
def test_way_to_go_on_names_the_parameters_that_are_still_needed(monkeypatch, capsys):
    end_run_with(monkeypatch, notebook="05")
    assert call("run", "--out", "a b", "-p", "SEED", "1", "-p", "TOP_K", "7") == 1
    printed = capsys.readouterr()
    assert printed.err == "interestkit: it failed\n"
    assert "go on with interestkit run --from 05 --out 'a b' -p TOP_K 7\n" in printed.out


@pytest.mark.usefixtures("project")
def test_failure_of_the_first_notebook_offers_nothing_to_go_on_from(monkeypatch, capsys):
    end_run_with(monkeypatch, notebook="01")
    assert call("run") == 1
    assert "go on" not in capsys.readouterr().out


@pytest.mark.usefixtures("project")
def test_ctrl_c_between_notebooks_is_one_line(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("interestkit.cli.run_notebooks", stop)
    assert call("run") == 130
    assert capsys.readouterr().err == "interestkit: stopped\n"


def test_run_from_within_the_notebooks_folder_writes_beside_it(project, monkeypatch, capsys):
    monkeypatch.setattr("interestkit.cli.run_notebooks", lambda *_, **__: None)
    monkeypatch.chdir(project / "notebooks")
    assert call("run", "--notebooks", ".") == 0
    (run,) = (project / "runs").iterdir()
    assert run.name.endswith("-tiny")  # the default of notebook 01
    assert f"into {run}\n" in capsys.readouterr().out
    assert not (project / "notebooks" / "runs").exists()


@pytest.mark.usefixtures("project")
def test_data_lists_the_data_sets_in_columns(capsys):
    assert call("data") == 0
    assert capsys.readouterr().out == (
        "name                 events  licence  available\n"
        "tiny                     12  CC0      yes\n"
        "complete-journey  1,469,307           no\n"
    )


@pytest.mark.usefixtures("project")
def test_data_lists_blocks_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    assert call("data") == 0
    first, second = capsys.readouterr().out.strip().split("\n\n")
    assert first.split("\n")[:2] == ["name       tiny", "events     12"]
    assert "licence" not in second  # an empty cell has no line


def lab_command(monkeypatch, *words):
    """The program, words and environment that `interestkit lab` turns into."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *words: calls.append(words))
    assert call("lab", *words) == 0
    (found,) = calls
    return found


def test_lab_opens_the_notebooks_on_this_machine_alone(project, monkeypatch):
    program, words, _ = lab_command(monkeypatch, "--port=9999", "--no-browser")
    assert program == sys.executable
    assert words[1:3] == ["-m", "jupyterlab"]
    assert words[3:] == [
        f"--ServerApp.root_dir={project / 'notebooks'}",
        "--ServerApp.ip=127.0.0.1",
        "--port=9999",
        "--no-browser",
    ]


def test_lab_starts_with_the_readme_of_the_folder_where_there_is_one(project, monkeypatch):
    (project / "notebooks" / "README.md").write_text("# Order")
    assert "--LabApp.default_url=/lab/tree/README.md" in lab_command(monkeypatch)[1]


@pytest.mark.usefixtures("project")
def test_lab_takes_the_kernels_of_this_environment_and_the_settings_of_the_kit(monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/mine")
    environment = lab_command(monkeypatch)[2]
    assert environment["JUPYTER_PREFER_ENV_PATH"] == "1"
    first, ours = environment["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    assert first == "/mine"  # what the user has set goes before
    settings = Path(ours, "labconfig", "default_setting_overrides.json").read_text()
    assert '"markdown": "Markdown Preview"' in settings


def test_version_is_that_of_the_package(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"interestkit {interestkit.__version__}\n"


def test_help_loads_nothing_heavy():
    program = (
        "import sys\nfrom interestkit.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'jax', 'polars', 'pandas', 'numpy', 'papermill', 'nbformat', 'IPython', 'tqdm'}\n"
        "sys.exit(str(heavy & set(sys.modules) or ''))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert "run the numbered notebooks" in done.stdout.lower()
    assert done.stderr.strip() == ""
