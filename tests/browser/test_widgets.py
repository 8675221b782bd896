"""The widgets as a person uses them: typed into, clicked, and found again after a reload."""

WAIT = 90_000  # milliseconds that a kernel on a busy machine may take
CHANGED = "([box, old]) => box.querySelector('p[role=status]')?.innerText !== old"


def live(notebook, call):
    """The widget that a cell shows, without its static copy."""
    return notebook.cell(call).locator(".ik-live")


def said(widget):
    """What its status line says."""
    return widget.locator("p[role=status]").inner_text()


def wait_for_change(notebook, widget, before):
    """Wait until the status line says something else."""
    notebook.page.wait_for_function(CHANGED, arg=[widget.element_handle(), before], timeout=WAIT)


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
    wait_for_change(notebook, widget, sentence)
    after, sentence = shown(widget), said(widget)
    assert all(new != old for new, old in zip(after, before, strict=True))
    widget.get_by_label("Find user").fill(" 1")  # and now by keyboard alone
    notebook.page.wait_for_timeout(2_000)
    notebook.page.keyboard.press("Tab")
    for _ in range(2):
        notebook.page.keyboard.press("ArrowDown")
    wait_for_change(notebook, widget, sentence)
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
    wait_for_change(notebook, widget, sentence)
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
    wait_for_change(notebook, widget, sentence)
    before = widget.locator("table").nth(1).inner_text()
    widget.get_by_label("Group", exact=True).select_option(index=1)
    widget.locator("caption").get_by_text("2. ").wait_for(timeout=WAIT)
    assert widget.locator("table").nth(1).inner_text() != before


def test_the_button_stops_training_while_the_kernel_trains(open_notebook):
    notebook = open_notebook("03_training.ipynb", EPOCHS=5_000, PATIENCE=5_000)
    notebook.menu("Run", "Run All Cells")
    widget = live(notebook, "ik.TrainingMonitor()")
    widget.locator("img").wait_for(timeout=WAIT)  # the first curve
    widget.get_by_role("button", name="Stop").click()
    widget.get_by_text("Stopped after epoch").wait_for(timeout=WAIT)
    assert int(said(widget).split("epoch ")[1].split()[0]) < 5_000
