"""Training as one watches it: losses and validation scores by epoch, and a button that stops."""

import signal
import sys
import threading
import time

import ipywidgets as w
import polars as pl
from matplotlib.figure import Figure

from interestkit.plots import training_curves
from interestkit.widgets.parts import Panel, picture

_SHARE = 0.2  # of the time that drawing may take, at most
_BESIDE = ("epoch", "score", "seconds", "waited")  # columns that are neither loss nor score


class TrainingMonitor(Panel):
    """Curves that grow while `fit` runs, and a button that stops it: `fit(..., on_epoch=monitor)`.

    Training ends with the epoch in which the button is pressed, and `fit` returns as ever, with
    the weights of the best epoch. In JupyterLab the press arrives while the kernel works. Where a
    front end sends it only after the cell, interrupting the kernel (■) does the same: from the
    first epoch to the end of the cell one interrupt stops training after the epoch, and a second
    one raises KeyboardInterrupt.

    A monitor that is displayed nowhere displays itself after the first epoch. It can be used again,
    and then begins anew.

    Example:
        >>> monitor = TrainingMonitor()
        >>> monitor({"epoch": 1, "loss_new": 2.5, "ndcg@10": 0.1, "score": 0.1, "seconds": 1.0})
        False
        >>> monitor.stop.click()
        >>> monitor({"epoch": 2, "loss_new": 2.0, "ndcg@10": 0.3, "score": 0.3, "seconds": 2.0})
        True
        >>> monitor.said
        'Stopped after epoch 2 in 2.0 s; epoch 2 is the best and is kept.'
    """

    def __init__(self) -> None:
        super().__init__("Training, epoch by epoch")
        self.stop = w.Button(
            description="Stop",
            icon="stop",
            tooltip="End training after this epoch and keep the weights of the best one",
            button_style="warning",
        )
        self.stop.style.text_color = "#000000"
        self.stop.on_click(lambda _: self._ask_to_stop())
        self.parts = (self.stop, self.figure)
        self._asked = threading.Event()
        self._handler = None
        self._begin()
        self.say("Waiting for the first epoch.")

    def __call__(self, row: dict) -> bool:
        """Show another epoch; True where training is to stop.

        Args:
            row: A row of `FitResult.curve`, as `fit` gives it to `on_epoch`.
        """
        if row["epoch"] == 1 or self._is_over:
            self._end()
            self._begin()
        self.rows.append(dict(row))
        if len(self.rows) == 1:
            self._watch()
        self._is_over = is_over = self._asked.is_set()
        self._report("Stopped after" if is_over else "Training:")
        if is_over or time.perf_counter() > self._next_drawing:
            self._draw()
        if is_over:
            self._end()
        return is_over

    @property
    def curve(self) -> pl.DataFrame:
        """The rows so far, as `FitResult.curve`; of a fit that goes on, those since then."""
        return pl.DataFrame(self.rows)

    def _begin(self) -> None:
        self.rows: list[dict] = []
        self._is_over, self._next_drawing, self.png, self.alt = False, 0.0, b"", ""
        self._asked.clear()
        self.stop.disabled = False
        self._let_presses_in()

    def _let_presses_in(self) -> None:
        """Take presses on the thread to which the front end sends them.

        JupyterLab sends them to a subshell, a thread beside the one that trains. Kernels since
        ipykernel 7.4 send what comes for a widget to the thread that last changed it, which is
        the busy one, unless they have not noted any.
        """
        vars(self.stop.comm).pop("_reply_subshell_id", None)

    def _ask_to_stop(self) -> None:
        self._asked.set()
        self.stop.disabled = True
        self.say("Stopping after this epoch.")

    def _report(self, what: str) -> None:
        last, best, first = self.rows[-1], self._best(), self.rows[0]["epoch"]
        kept = "and is kept" if first == 1 else f"since epoch {first}, where this fit went on"
        self.say(
            f"{what} epoch {last['epoch']} in {last['seconds']:.1f} s; "
            f"epoch {best} is the best {kept}."
        )

    def _best(self) -> int:
        return max(self.rows, key=lambda row: row["score"])["epoch"]

    def _draw(self) -> None:
        began = time.perf_counter()
        curve = self.curve
        losses = [name for name in curve.columns if name.startswith("loss")]
        scores = [name for name in curve.columns if name not in (*losses, *_BESIDE)]
        kinds = [names for names in (losses, scores) if names]

        def paint(figure: Figure) -> None:
            axes = figure.subplots(1, len(kinds), squeeze=False)[0]
            for ax, names in zip(axes, kinds, strict=True):
                training_curves(curve, columns=names, ax=ax)
                ax.set_title(("Losses", "Validation scores")[names is scores] + ", dot: best epoch")
                below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
                ax.get_legend() and ax.legend(**below)

        png = picture(paint, size=(4.4 * len(kinds), 3.4))
        last = ", ".join(f"{name} {self.rows[-1][name]:.3f}" for name in losses + scores)
        alt = f"Losses and scores of {len(curve)} epochs; in the last one {last}."
        self.show_picture(png, alt)
        took = time.perf_counter() - began
        self._next_drawing = time.perf_counter() + took * (1 / _SHARE - 1)
        self.follow()

    def _watch(self) -> None:
        """Take interrupts, learn when the cell ends, and display what is displayed nowhere."""
        shell = _shell()
        if shell is None:
            return
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._interrupted)
        shell.events.register("post_run_cell", self._after_cell)
        if not self._handles:
            self._draw()
            self._ipython_display_()

    def _interrupted(self, *_) -> None:
        if self._asked.is_set():
            raise KeyboardInterrupt
        self._asked.set()

    def _after_cell(self, *_) -> None:
        """The last picture; nothing is left to stop."""
        if not self._is_over:
            self._report("Finished:")
            self._draw()
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self.stop.disabled = True
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self._handler = None
        if (shell := _shell()) and self._after_cell in shell.events.callbacks["post_run_cell"]:
            shell.events.unregister("post_run_cell", self._after_cell)


def _shell():
    """The IPython shell of a kernel, None elsewhere."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython import get_ipython

    return get_ipython()
