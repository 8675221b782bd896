"""JupyterLab as a person meets it: started by `interestkit lab`, opened in Debian's Chromium.

    with start_lab(folder, home) as lab, open_browser() as browser:
        notebook = Notebook.open(browser.new_page(), lab, "01_preprocessing.ipynb")
        notebook.run_all()
        print(notebook.errors())

`home` gets all that JupyterLab writes (settings, workspaces, kernels), so that nothing of the
user's own set-up is read or changed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Browser, Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

CHROMIUM = shutil.which("chromium")
_QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
).split()
_SETTINGS = {  # every cell is drawn, also those that are out of sight
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
_PANEL = "window.jupyterapp.shell.currentWidget"
_STATE = f"""() => {{
  const panel = {_PANEL}, kernel = panel.sessionContext?.session?.kernel;
  const code = Array.from(panel.content.model.cells).filter(
    cell => cell.type === 'code' && cell.sharedModel.getSource().trim());
  const outputs = code.map(cell => cell.outputs.toJSON());
  const failed = outputs.flat().filter(output => output.output_type === 'error');
  const left = code.filter(cell => !cell.executionCount || cell.executionState === 'running');
  return {{status: kernel?.status, kernel: kernel?.name, left: left.length, outputs,
    errors: failed.map(each => each.ename + ': ' + each.evalue)}};
}}"""
_ASK = f"""async code => {{
  const future = {_PANEL}.sessionContext.session.kernel.requestExecute({{code}});
  let text = '';
  future.onIOPub = message => {{ text += message.content.text ?? message.content.evalue ?? ''; }};
  await future.done;
  return text;
}}"""
_HEIGHT = f"""() => {{
  const outer = {_PANEL}.content.node.querySelector('.jp-WindowedPanel-outer');
  outer.scrollTop = 0;
  return outer.scrollHeight;
}}"""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A running JupyterLab.

    Attributes:
        url: What it printed for the person to open: address, start page and token.
        folder: The notebooks.
        seconds: From the command to the address.
    """

    url: str
    folder: Path
    seconds: float

    def address(self, name: str) -> str:
        """Where a file of the folder opens, and nothing that was open before, with the token."""
        return re.sub(r"/lab\b[^?]*", f"/lab/tree/{quote(name)}", self.url) + "&reset"


@contextmanager
def start_lab(
    folder: Path, home: Path, *options: str, variables: Mapping[str, str] | None = None
) -> Iterator[Lab]:
    """JupyterLab on a folder of notebooks, by the command that the README names.

    Args:
        folder: Notebooks; what a person does there is saved there.
        home: A folder for settings and state, made where it is missing.
        options: More words for the command.
        variables: More environment variables, for the kernels.
    """
    environment, log = _environment(home) | (variables or {}), home / "lab.log"
    script = shutil.which("interestkit", path=str(Path(sys.executable).parent)) or "interestkit"
    command = [script, "lab", "--notebooks", str(folder), "--no-browser", "--ServerApp.port=0"]
    command += ["--LabApp.expose_app_in_browser=True", *options]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    began = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        url = _wait_for_address(process, log)
        yield Lab(url=url, folder=folder, seconds=time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait(30)


def _environment(home: Path) -> dict[str, str]:
    """Variables that keep all of Jupyter in `home`, with settings that suit a test."""
    places = "CONFIG_DIR DATA_DIR RUNTIME_DIR".split()
    variables = {f"JUPYTER_{name}": str(home / name.lower()) for name in places}
    variables |= {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    for name, settings in _SETTINGS.items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    return {name: text for name, text in os.environ.items() if name != "JUPYTER_TOKEN"} | variables


def _wait_for_address(process: subprocess.Popen, log: Path) -> str:
    """The address with a token that the server prints once it listens."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+/lab\S*\?token=\S+", log.read_text()):
            return found[0]
        time.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window.

    Raises:
        FileNotFoundError: If there is none.
    """
    if CHROMIUM is None:
        raise FileNotFoundError("no chromium on the PATH (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        yield browser
        browser.close()


@dataclass(frozen=True, kw_only=True)
class Notebook:
    """A notebook that is open in JupyterLab.

    Attributes:
        page: The page of the browser, for clicks, keys and what is to be seen.
    """

    page: Page

    @classmethod
    def open(cls, page: Page, lab: Lab, name: str) -> "Notebook":
        """The notebook in a page, its kernel idle and nothing in the way."""
        page.goto(lab.address(name))
        notebook = cls(page=page)
        notebook.wait_until_open()
        return notebook

    def wait_until_open(self, seconds: float = 60) -> None:
        """Wait for the panel, the splash to go, and the kernel to be idle; also after a reload."""
        self.page.wait_for_selector(".jp-NotebookPanel:visible", timeout=1e3 * seconds)
        self.page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=1e3 * seconds)
        self._wait_for("state.status === 'idle'", seconds)

    def run_all(self, seconds: float = 300) -> list[str]:
        """Run all cells by the menu, wait until all are done or one fails; the errors."""
        self.menu("Run", "Run All Cells")
        self.wait_until_idle(seconds)
        return self.errors()

    def menu(self, name: str, entry: str) -> None:
        """Click on an entry of the menu bar."""
        self.page.locator("#jp-MainMenu").get_by_text(name, exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text(entry, exact=True).click()

    def wait_until_idle(self, seconds: float = 300) -> None:
        """Wait until every code cell has run, or one has failed."""
        self._wait_for("state.status === 'idle' && (!state.left || state.errors.length)", seconds)

    def errors(self) -> list[str]:
        """Such as "ValueError: …", of every cell that failed."""
        return self._state()["errors"]

    def outputs(self) -> list[list[dict]]:
        """What every code cell has shown, as the file has it."""
        return self._state()["outputs"]

    def kernel(self) -> str:
        """Name of the kernel."""
        return self._state()["kernel"]

    def cell(self, text: str) -> Locator:
        """The code cell whose source has the text: its inputs and its outputs."""
        return self.page.locator(".jp-CodeCell:visible").filter(has_text=text)

    def save(self) -> None:
        """Save the notebook with its outputs."""
        self._settled("() => window.jupyterapp.commands.execute('docmanager:save')")

    def ask(self, code: str) -> str:
        """What the kernel prints when it runs the code, beside the cells."""
        return self._settled(_ASK, code)

    def end_kernel(self) -> None:
        """End the kernel; the page stays as it is. One that is not heard of ends with the lab."""
        with suppress(PlaywrightTimeout):
            self._settled(f"() => {_PANEL}.sessionContext.shutdown()", seconds=30)

    def set_theme(self, theme: str) -> None:
        """Change the theme of JupyterLab, such as "JupyterLab Dark"."""
        self._settled(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme
        )

    def screenshot(self, path: Path, *, theme: str = "JupyterLab Light", width: int = 1280) -> Path:
        """A picture of the whole notebook, however long, in a theme."""
        self.set_theme(theme)
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.wait_for_timeout(500)
        height = self.page.evaluate(_HEIGHT) + 200
        self.page.set_viewport_size({"width": width, "height": min(height, 16_000)})
        self.page.wait_for_timeout(500)
        self.page.evaluate(_HEIGHT)
        self.page.screenshot(path=path)
        return path

    def _settled(self, script: str, argument: object = None, seconds: float = 60) -> Any:
        """What a promise of the page comes to; `evaluate` would wait for it without an end."""
        script = f"async argument => [await ({script})(argument)]"  # holds, whatever is in it
        found = self.page.wait_for_function(script, arg=argument, timeout=1e3 * seconds)
        return found.json_value()[0]

    def _state(self) -> dict:
        return self.page.evaluate(_STATE)

    def _wait_for(self, condition: str, seconds: float) -> None:
        """Wait until a condition on the state of the notebook holds."""
        script = f"() => {{ const state = ({_STATE})(); return {condition}; }}"
        self.page.wait_for_function(script, timeout=1e3 * seconds, polling=100)
