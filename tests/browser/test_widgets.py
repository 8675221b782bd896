"""The widgets as a person uses them: typed into, clicked, and found again after a reload."""

import pytest

WAIT = 60_000  # milliseconds that a kernel on a busy machine may take


@pytest.fixture
def people(open_notebook):
    """Notebook 04, run."""
    notebook = open_notebook("04_prediction_and_recommendation.ipynb")
    assert notebook.run_all() == []
    return notebook


def test_another_user_changes_figure_and_list_and_is_there_after_a_reload(people):
    cell = people.cell("ik.explore_users(")
    picture, listed = cell.locator("img").first, cell.locator("table").nth(1)
    before = picture.get_attribute("src"), listed.inner_text()
    choices = cell.get_by_label("Users").locator("option")
    name = choices.nth(3).inner_text()
    cell.get_by_label("Users").select_option(index=3)
    cell.get_by_text(f"User {name[:20]}").first.wait_for(timeout=WAIT)
    assert picture.get_attribute("src") != before[0]
    assert listed.inner_text() != before[1]
    assert "user" in picture.get_attribute("alt")
    said = cell.locator("p[role=status]").inner_text()
    people.save()
    people.page.reload()
    people.wait_until_open()
    again = people.cell("ik.explore_users(").locator("p[role=status]")
    again.wait_for(timeout=WAIT)
    assert again.inner_text() == said


def test_search_and_keyboard_alone_choose_a_user(people):
    cell = people.cell("ik.explore_users(")
    before = cell.locator("img").first.get_attribute("src")
    options = cell.get_by_label("Users").locator("option")
    wanted = options.nth(5).inner_text()
    cell.get_by_label("Find user").fill(wanted.rsplit(" ", 1)[-1])
    people.page.wait_for_timeout(1000)
    people.page.keyboard.press("Tab")
    people.page.keyboard.press("ArrowDown")
    people.page.wait_for_function(
        "([image, old]) => image.src !== old",
        arg=[cell.locator("img").first.element_handle(), before],
        timeout=WAIT,
    )


def test_a_live_widget_hides_its_static_copy(people):
    for call in ("ik.explore_users(", "ik.what_if(", "ik.interest_map("):
        children = people.cell(call).locator(".jp-OutputArea-child")
        assert [child.is_visible() for child in children.all()].count(True) == 1
        assert children.count() > 1


def test_a_typed_history_changes_interests_and_list(people):
    cell = people.cell("ik.what_if(")
    status = cell.locator("p[role=status]")
    before = cell.locator("table").nth(1).inner_text()
    option = cell.get_by_label("Items").locator("option")
    titles = [option.nth(n).inner_text() for n in (30, 31)]
    cell.get_by_label("Type one").fill("\n".join(titles))
    cell.get_by_role("button", name="Use typed").click()
    cell.get_by_text("2 events, a changed history").wait_for(timeout=WAIT)
    assert cell.locator("table").nth(1).inner_text() != before
    assert "answered in" in status.inner_text()
    cell.get_by_label("History").select_option(index=1)
    cell.get_by_role("button", name="Remove").click()
    cell.get_by_text("1 events, a changed history").wait_for(timeout=WAIT)


def test_the_map_lists_what_a_click_and_the_keyboard_choose(people):
    cell = people.cell("ik.interest_map(")
    canvas = cell.locator("canvas")
    canvas.scroll_into_view_if_needed()
    canvas.focus()
    people.page.keyboard.press("Enter")
    cell.get_by_text("1 of 1 chosen points").wait_for(timeout=WAIT)
    cell.get_by_role("button", name="List what is in view").click()
    cell.get_by_text("points are chosen").wait_for()
    cell.get_by_role("button", name="Lasso").click()
    box = canvas.bounding_box()
    people.page.mouse.move(box["x"] + 5, box["y"] + 5)
    people.page.mouse.down()
    for x, y in ((0.99, 0.01), (0.99, 0.99), (0.01, 0.99)):
        people.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    people.page.mouse.up()
    cell.locator("caption").get_by_text("chosen points").wait_for(timeout=WAIT)


def test_the_slider_moves_metrics_list_and_figure(open_notebook):
    notebook = open_notebook("05_evaluation.ipynb")
    assert notebook.run_all() == []
    cell = notebook.cell("ik.trade_off(")
    before = [cell.locator("table").nth(n).inner_text() for n in (0, 1)]
    figure = cell.locator("img").first.get_attribute("src")
    handle = cell.get_by_role("slider")
    handle.focus()
    for _ in range(5):
        notebook.page.keyboard.press("ArrowRight")
    cell.get_by_text("Weight 50 % on diversity").first.wait_for(timeout=WAIT)
    cell.get_by_label("Towards").select_option("novelty")
    cell.get_by_text("Weight 50 % on novelty").first.wait_for(timeout=WAIT)
    assert [cell.locator("table").nth(n).inner_text() for n in (0, 1)] != before
    assert cell.locator("img").first.get_attribute("src") != figure
    groups = notebook.cell("ik.compare_models(")
    old = groups.locator("table").nth(1).inner_text()
    groups.get_by_label("Groups by").select_option("length of history")
    groups.get_by_label("Group", exact=True).select_option(index=1)
    notebook.page.wait_for_timeout(3000)
    assert groups.locator("table").nth(1).inner_text() != old


def test_the_button_stops_training_while_the_kernel_trains(open_notebook):
    notebook = open_notebook("03_training.ipynb", EPOCHS=3_000, PATIENCE=3_000)
    notebook.menu("Run", "Run All Cells")
    cell = notebook.cell("ik.TrainingMonitor()")
    cell.locator("img").first.wait_for(timeout=WAIT)  # the first curve
    cell.get_by_role("button", name="Stop").click()
    cell.get_by_text("Stopped after epoch").first.wait_for(timeout=WAIT)
    text = cell.locator("p[role=status]").first.inner_text()
    assert int(text.split("epoch ")[1].split()[0]) < 3_000
    notebook.menu("Kernel", "Interrupt Kernel")
