"""The widgets as a person uses them: typed into, clicked, and found again after a reload."""

import pytest
from contrast import READABLE, texts_in

from browser.conftest import write_notebook

WAIT = 90_000  # milliseconds that a kernel on a busy machine may take
CHANGED = "([box, old]) => box.querySelector('p[role=status]')?.innerText !== old"


def live(notebook, call):
    """The widget that a cell shows, without its static copy."""
    return notebook.cell(call).locator(".ik-live")


def said(widget):
    """What its status line says."""
    return widget.locator("p[role=status]").inner_text()


def wait_for_change(widget, before):
    """Wait until the status line says something else."""
    handle = widget.element_handle()
    widget.page.wait_for_function(CHANGED, arg=[handle, before], timeout=WAIT)


def shown(widget):
    """The first figure and the text of all tables."""
    tables = [table.inner_text() for table in widget.locator("table").all()]
    return widget.locator("img").first.get_attribute("src"), *tables


def test_another_user_changes_figure_and_list_and_is_there_after_a_reload(open_notebook):
    notebook = open_notebook("04_prediction_and_recommendation.ipynb")
    assert notebook.run_all() == []
    for call in ("ik.explore_users(", "ik.what_if(", "ik.interest_map("):
        outputs = notebook.cell(call).locator(".jp-OutputArea-child")
        assert outputs.count() > 1
        assert [output.is_visible() for output in outputs.all()].count(True) == 1
    widget = live(notebook, "ik.explore_users(")
    before, sentence = shown(widget), said(widget)
    widget.get_by_label("Users").select_option(index=3)
    wait_for_change(widget, sentence)
    after, sentence = shown(widget), said(widget)
    assert all(new != old for new, old in zip(after, before, strict=True))
    widget.get_by_label("Find user").fill(" 1")  # and now by keyboard alone
    notebook.page.wait_for_timeout(2_000)
    notebook.page.keyboard.press("Tab")
    for _ in range(2):
        notebook.page.keyboard.press("ArrowDown")
    wait_for_change(widget, sentence)
    notebook.page.wait_for_timeout(3_000)
    sentence = said(widget)
    notebook.save()
    notebook.page.reload()
    notebook.wait_until_open()
    widget = live(notebook, "ik.explore_users(")
    widget.locator("p[role=status]").wait_for(timeout=WAIT)
    assert said(widget) == sentence


def test_a_typed_history_changes_the_lists_and_the_map_lists_what_is_chosen(open_notebook):
    notebook = open_notebook("04_prediction_and_recommendation.ipynb")
    assert notebook.run_all() == []
    widget = live(notebook, "ik.what_if(")
    before = widget.locator("table").nth(1).inner_text()
    titles = [widget.get_by_label("Items").locator("option").nth(n).inner_text() for n in (7, 9)]
    widget.get_by_label("Type one").fill("\n".join(titles))
    widget.get_by_role("button", name="Use typed").click()
    widget.get_by_text("2 events, a changed history").wait_for(timeout=WAIT)
    assert widget.locator("table").nth(1).inner_text() != before
    widget.get_by_label("History").select_option(index=1)
    widget.get_by_role("button", name="Remove").click()
    widget.get_by_text("1 events, a changed history").wait_for(timeout=WAIT)

    widget = live(notebook, "ik.interest_map(")
    canvas = widget.locator("canvas")
    canvas.scroll_into_view_if_needed()
    canvas.focus()
    notebook.page.keyboard.press("Enter")
    widget.get_by_text("1 of 1 chosen points").wait_for(timeout=WAIT)
    widget.get_by_role("button", name="Lasso").click()
    box, sentence = canvas.bounding_box(), said(widget)
    corners = [(0.01, 0.02), (0.99, 0.02), (0.99, 0.98), (0.01, 0.98)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    notebook.page.mouse.move(*places[0])
    notebook.page.mouse.down()
    for place in places[1:]:
        notebook.page.mouse.move(*place)
    notebook.page.mouse.up()
    wait_for_change(widget, sentence)
    chosen, points = said(widget).split(" of ")
    assert chosen == points.split(" ")[0]  # the lasso is around them all


def test_the_slider_moves_metrics_list_and_figure_and_a_group_shows_its_users(open_notebook):
    notebook = open_notebook("05_evaluation.ipynb")
    assert notebook.run_all() == []
    widget = live(notebook, "ik.trade_off(")
    before = shown(widget)
    widget.get_by_role("slider").focus()
    for _ in range(5):
        notebook.page.keyboard.press("ArrowRight")
    widget.get_by_text("Weight 50 % on diversity").wait_for(timeout=WAIT)
    widget.get_by_label("Towards").select_option("novelty")
    widget.get_by_text("Weight 50 % on novelty").wait_for(timeout=WAIT)
    assert all(new != old for new, old in zip(shown(widget), before, strict=True))
    widget = live(notebook, "ik.compare_models(")
    sentence = said(widget)
    widget.get_by_label("Groups by").select_option("length of history")
    wait_for_change(widget, sentence)
    users = widget.locator("table").nth(1)
    before, groups = users.inner_text(), widget.locator(".ik-bands button")
    groups.nth(1).click()
    widget.locator("caption").get_by_text("2. ").wait_for(timeout=WAIT)
    assert users.inner_text() != before
    assert [each.get_attribute("aria-pressed") for each in groups.all()][:2] == ["false", "true"]
    groups.nth(1).press("Shift+Tab")  # and now by keyboard alone
    notebook.page.keyboard.press("Enter")
    widget.locator("caption").get_by_text("1. ").wait_for(timeout=WAIT)
    assert users.inner_text() == before


def test_the_button_stops_training_while_the_kernel_trains(open_notebook):
    notebook = open_notebook("03_training.ipynb", EPOCHS=5_000, PATIENCE=5_000)
    notebook.menu("Run", "Run All Cells")
    widget = live(notebook, "ik.TrainingMonitor()")
    widget.locator("img").wait_for(timeout=WAIT)  # the first curve
    widget.get_by_role("button", name="Stop").click()
    widget.get_by_text("Stopped after epoch").wait_for(timeout=WAIT)
    assert int(said(widget).split("epoch ")[1].split()[0]) < 5_000


STUDY = """
import interestkit as ik
log, _ = ik.clean(ik.load(DATA), kcore=False)
split = ik.temporal_split(log, min_judged=0)
features = ik.fit_features(split.before("test"), split.items, min_item_events=1)
known, truth = features.histories(split.before("test")), ik.held_out(features, split)
monitor = ik.TrainingMonitor()
config = ik.TrainingConfig(epochs=1, examples_per_epoch=256, batch_size=64)
model = ik.fit(features, known, config=config, item_dim=8, on_epoch=monitor, progress=False).model
model = ik.Predictor(features=features, model=model)
popular = ik.Popular(features=features, log=known)
evaluation = ik.evaluate({"model": model, "popular": popular}, truth, features, progress=False)
"""
WIDGETS = {
    "new_monitor": "ik.TrainingMonitor()",
    "monitor": "monitor",
    "explorer": "ik.explore_users(model, split, k=5)",
    "what_if": "ik.what_if(model, truth.histories.rows(1, 2), k=5)",
    "map": "ik.interest_map(model, truth.histories, num_items=100, num_users=20)",
    "compared": "ik.compare_models(evaluation, truth=truth, features=features)",
    "trade_off": "ik.trade_off(model, truth, features, k=5, candidates=20)",
}


# What has the focus, with a mark that it was there: its name, and the line around it.
FOCUS = """() => {
  const element = document.activeElement, style = getComputedStyle(element);
  if (element === document.body) return ['nothing', 0, 'none'];
  element.dataset.reached = true;
  const text = element.matches('select') ? '' : element.innerText;
  const own = element.getAttribute('aria-label') || text;
  const name = element.labels?.[0]?.innerText || own || element.outerHTML;
  return [name.slice(0, 80), parseFloat(style.outlineWidth), style.outlineStyle];
}"""
LEFT_OUT = """root => [...root.querySelectorAll(
  'button, input, select, textarea, canvas, [tabindex="0"]')].filter(each => !each.disabled
  && each.tabIndex >= 0 && each.checkVisibility() && !each.dataset.reached).map(e => e.outerHTML)"""


@pytest.fixture
def all_widgets(page, lab, data):
    """A notebook with each widget, on hostile titles; the cell of a widget by its name."""
    from browsing import Notebook

    cells = [f"DATA = {str(data)!r}{STUDY}", *WIDGETS.values()]
    notebook = Notebook.open(page, lab, write_notebook(lab.folder, *cells))
    assert notebook.run_all() == []
    yield {
        name: page.locator(".jp-CodeCell:visible").nth(number)
        for number, name in enumerate(WIDGETS, 1)
    }
    notebook.end_kernel()


def press(page, name, *keys, most=60):
    """Go on by Tab to what has that name, which shows that it has the focus, and press keys."""
    for _ in range(most):
        page.keyboard.press("Tab")
        label, width, style = page.evaluate(FOCUS)
        assert (style, width) == ("solid", 2), f"{label!r} does not show that it has the focus"
        if name in label:
            break
    else:
        pytest.fail(f"Tab does not reach {name}")
    page.wait_for_timeout(500)  # the kernel answers each control in a thread of its own:
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_timeout(500)  # what a person does has time to arrive in order


def test_text_and_words_of_pictures_can_be_read_in_both_themes_and_in_the_copies(all_widgets, page):
    from browsing import Notebook

    notebook = Notebook(page=page)
    page.add_style_tag(content=".jp-OutputArea-child { display: flex !important; }")
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        notebook.set_theme(theme)
        page.wait_for_timeout(2_000)
        is_light = page.evaluate("document.body.dataset.jpThemeLight")
        assert (is_light == "true") == theme.endswith("Light")
        for name, cell in all_widgets.items():
            for part in (".ik-live", ".ik-static"):
                found = list(texts_in(cell.locator(part)))
                assert len(found) >= (1 if name == "new_monitor" else 2), (name, part)
                assert min(ratio for _, ratio in found) >= READABLE, (name, part, found)
    for name, cell in all_widgets.items():
        pictures, copy = cell.locator(".ik-live img"), cell.locator(".ik-static").inner_text()
        for picture in pictures.all():
            assert " ".join(picture.get_attribute("alt").split()) in " ".join(copy.split()), name
        assert pictures.count() == (name in ("monitor", "explorer", "compared", "trade_off"))
        is_drawn = name not in ("new_monitor", "what_if")
        assert cell.locator(".jp-RenderedImage img").count() == is_drawn


def test_every_control_is_reached_by_tab_and_works_with_keys(all_widgets, page):
    def start(name):
        widget = all_widgets[name].locator(".ik-live")
        widget.evaluate("root => { root.tabIndex = -1; root.focus(); }")
        return widget

    def finish(widget):
        for _ in range(3):  # what came anew while we were on our way has not been reached
            for _ in range(60):
                if not widget.evaluate("root => root.contains(document.activeElement)"):
                    break
                page.evaluate(FOCUS)
                page.keyboard.press("Tab")
            left_out = widget.evaluate(LEFT_OUT)
            if not left_out:
                return
            widget.evaluate("root => root.focus()")
        assert left_out == []

    def says(widget, text):
        widget.locator("p[role=status]").get_by_text(text).wait_for(timeout=WAIT)

    widget = start("new_monitor")
    press(page, "Stop", "Enter")
    says(widget, "Stopping after this epoch")

    widget = start("explorer")
    sentence = said(widget)
    press(page, "Find user", "1", "0")
    press(page, "Users", "ArrowDown", "ArrowDown")
    wait_for_change(widget, sentence)
    finish(widget)

    widget = start("what_if")
    press(page, "Find item")
    press(page, "Items", "ArrowDown")
    events = int(said(widget).split()[0].replace(",", ""))
    press(page, "Add item", "Enter")
    says(widget, f"{events + 1} events")
    press(page, "History", "ArrowDown")
    press(page, "Remove", "Space")
    says(widget, f"{events} events")
    press(page, "Earlier", "Enter")
    press(page, "Later", "Enter")
    press(page, "Clear", "Enter")
    says(widget, "0 events")
    press(page, "Restore", "Enter")
    says(widget, "the history of the start")
    press(page, "Type one", "W", "W")
    press(page, "Use typed", "Enter")
    says(widget, "1 events")
    finish(widget)

    widget = start("map")
    press(page, "Find point")
    press(page, "Points", "ArrowDown")
    says(widget, "1 of ")
    press(page, "Interest", "ArrowDown")
    press(page, "Lasso", "Enter", "Enter")
    for name in ("Zoom in", "Zoom out", "Whole map"):
        press(page, name, "Enter")
    press(page, "List what is in view", "Enter")
    says(widget, "120 of 120 points")
    press(page, "Map of", "+", "ArrowLeft", "Enter")
    says(widget, "1 of 120 points")
    finish(widget)

    widget = start("compared")
    sentence = said(widget)
    press(page, "Models")
    press(page, "Target", "ArrowDown")
    wait_for_change(widget, sentence)
    press(page, "Metric")
    press(page, "Groups by", "ArrowDown")
    press(page, "List the users of: 2. ", "Enter")
    widget.locator("caption").get_by_text("2. ").wait_for(timeout=WAIT)
    finish(widget)

    widget = start("trade_off")
    press(page, "Towards", "ArrowDown")
    says(widget, "on novelty")
    press(page, "Weight", "ArrowRight")
    says(widget, "Weight 10 %")
    press(page, "Find user")
    before = widget.locator("caption").nth(1).inner_text()
    press(page, "Users", "ArrowDown", "ArrowDown")
    page.wait_for_function(
        "([box, old]) => box.querySelectorAll('caption')[1]?.innerText !== old",
        arg=[widget.element_handle(), before],
        timeout=WAIT,
    )
    finish(widget)
