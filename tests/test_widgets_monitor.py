import numpy as np
import pytest
from jax import tree
from jupyter_client.manager import start_new_kernel

import interestkit as ik

ROW = {"loss_new": 2.0, "loss_interests": 1.0, "ndcg@10": 0.1}


def row(epoch, score):
    return ROW | {"epoch": epoch, "score": score, "seconds": float(epoch), "waited": 0.0}


def test_the_button_stops_training_and_the_best_weights_are_kept(study):
    monitor = ik.TrainingMonitor()
    scores = []

    def press_in_the_second_epoch(values):
        scores.append(values["score"])
        if len(scores) == 2:
            monitor.stop.click()
        return monitor(values)

    known = {"validation": study.validation, "seed": 5}
    stopped = study.fit_again(
        study.features, study.histories, on_epoch=press_in_the_second_epoch, **known
    )
    assert len(stopped.curve) == 2 < study.config.epochs
    assert stopped.best_epoch == int(np.argmax(scores)) + 1
    assert f"epoch {stopped.best_epoch} is the best and is kept" in monitor.said
    alone = study.fit_again(study.features, study.histories, **known)
    if alone.best_epoch <= 2:  # then the whole fit keeps the same weights
        for ours, theirs in zip(*map(weights, (stopped, alone)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert monitor.stop.disabled


def weights(result):
    from flax import nnx

    return tree.leaves(nnx.to_pure_dict(nnx.state(result.model)))


def test_curves_grow_with_the_epochs_and_have_a_text_in_their_place():
    monitor = ik.TrainingMonitor()
    assert not monitor(row(1, 0.1))
    first = monitor.figure.value
    assert "Losses and scores of 1 epochs; in the last one loss_new 2.000" in first
    monitor._next_drawing = 0.0
    assert not monitor(row(2, 0.3))
    assert monitor.figure.value != first
    assert monitor.said == "Training: epoch 2 in 2.0 s; epoch 2 is the best and is kept."
    assert monitor.curve["epoch"].to_list() == [1, 2]
    assert monitor.copies()[0][0]["image/png"] in monitor.figure.value


def test_drawing_takes_no_more_than_its_share_of_the_time():
    monitor = ik.TrainingMonitor()
    monitor(row(1, 0.1))
    first = monitor.figure.value
    monitor(row(2, 0.3))  # at once: too soon for another picture
    assert monitor.figure.value == first
    monitor._after_cell()
    assert monitor.figure.value != first
    assert monitor.said.startswith("Finished: epoch 2")
    assert monitor.stop.disabled


def test_a_second_fit_begins_anew():
    monitor = ik.TrainingMonitor()
    monitor(row(1, 0.1))
    monitor.stop.click()
    assert monitor(row(2, 0.2))
    assert not monitor(row(1, 0.4))
    assert len(monitor.rows) == 1
    assert not monitor.stop.disabled


def test_of_a_fit_that_goes_on_the_best_epoch_is_that_since_then():
    monitor = ik.TrainingMonitor()
    monitor(row(5, 0.3))
    monitor(row(6, 0.2))
    assert monitor.said.endswith("epoch 5 is the best since epoch 5, where this fit went on.")


FIT = """
import interestkit as ik
log = ik.simulate(num_users=40, num_items=30, num_bots=0, faults=0)
features = ik.fit_features(log.events, log.items)
histories = features.histories(log.events)
config = ik.TrainingConfig(epochs=2_000, examples_per_epoch=128, batch_size=64)
monitor = ik.TrainingMonitor()
print("button", monitor.stop.model_id, flush=True)
"""
RUN = """
result = ik.fit(features, histories, config=config, progress=False, on_epoch=monitor, item_dim=8)
print("epochs", len(result.curve), result.best_epoch, monitor.stop.disabled)
"""


@pytest.fixture
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def printed(client, code, *, at_first_picture=lambda: None):
    """What a cell prints; something is done when the kernel, still busy, displays a picture."""
    text, is_done = "", False
    sent = client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=120)
        kind, content = message["msg_type"], message["content"]
        if kind == "error":
            pytest.fail("\n".join(content["traceback"]))
        text += content["text"] if kind == "stream" and content["name"] == "stdout" else ""
        if kind == "display_data" and "image/png" in content["data"] and not is_done:
            is_done = True
            at_first_picture()
        ends = kind == "status" and content["execution_state"] == "idle"
        if ends and message["parent_header"].get("msg_id") == sent:
            return text


def press(client, button):
    """Send what JupyterLab sends when a button is pressed: a comm message, by a subshell."""
    client.control_channel.send(client.session.msg("create_subshell_request", {}))
    while (reply := client.get_control_msg(timeout=30))["msg_type"] != "create_subshell_reply":
        pass
    data = {"method": "custom", "content": {"event": "click"}, "buffers": []}
    message = client.session.msg("comm_msg", {"comm_id": button, "data": data})
    message["header"]["subshell_id"] = reply["content"]["subshell_id"]
    client.shell_channel.send(message)


@pytest.mark.notebooks
@pytest.mark.slow
def test_a_press_arrives_while_the_kernel_trains(kernel):
    _, client = kernel
    button = printed(client, FIT).split()[-1]
    text = printed(client, RUN, at_first_picture=lambda: press(client, button))
    _, epochs, best, is_disabled = text.split()
    assert int(epochs) < 2_000
    assert int(best) == int(epochs)  # without validation the last epoch is the best
    assert is_disabled == "True"


@pytest.mark.notebooks
@pytest.mark.slow
def test_an_interrupt_ends_training_without_an_error_and_then_is_one_again(kernel):
    manager, client = kernel
    printed(client, FIT)
    text = printed(client, RUN, at_first_picture=manager.interrupt_kernel)
    assert int(text.split()[1]) < 2_000
    rest = "import signal\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert printed(client, rest).strip() == "True"
