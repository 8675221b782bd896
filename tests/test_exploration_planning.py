"""The loop: steps by hand, planners that anyone can replace, a language model behind a stand-in."""

import json
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import polars as pl
import pytest
from small_world import histories_of

import interestkit as ik
from interestkit.exploration.counting import NewToOthers
from interestkit.exploration.crowd import labels_touched
from interestkit.exploration.language import LanguagePlanner, _sent
from interestkit.exploration.planning import (
    Exploring,
    LearnedPlanner,
    Plan,
    explore,
    people,
    transitions,
)
from interestkit.simulation import simulate
from interestkit.splitting import temporal_split


@pytest.fixture(scope="module")
def world():
    log = simulate(num_users=60, num_items=40, num_interests=8, num_bots=0, faults=0, seed=4)
    split = temporal_split(log, min_judged=0)
    features = ik.fit_features(split.before("test"), split.items)
    known = features.histories(split.before("test"))
    return features, known, ik.held_out(features, split)


class Two:
    """Items 0, 1 and 2 carry the interests a, b and c."""

    num_items, num_interests, interests, fingerprint = 3, 3, ("a", "b", "c"), ""
    item_interests = np.eye(3, dtype=np.float32)


def step_is(start, goal):
    return (pl.col("start") == start) & (pl.col("goal") == goal)


def test_steps_are_counted_by_who_came_first():
    # a before b: users 0 and 1. b before a: user 2. User 3 has a alone, user 4 both at once.
    log = histories_of(
        [(0, 0), (1, 1)], [(0, 0), (1, 5)], [(1, 0), (0, 1)], [(0, 0)], [(0, 0), (1, 0)]
    )
    steps = transitions(Two, log, shrinkage=0)
    row = steps.row(by_predicate=step_is("a", "b"), named=True)
    assert (row["users"], row["of"]) == (2, 3)  # of users 0, 1 and 3
    assert row["chance"] == pytest.approx(2 / 3, rel=1e-12)
    back = steps.row(by_predicate=step_is("b", "a"), named=True)
    assert (back["users"], back["of"]) == (1, 1)
    assert len(steps) == 6


def test_a_planner_is_told_counts_and_steps_and_no_name():
    log = histories_of([(0, 0), (1, 1)], [(0, 0), (0, 1), (2, 2)])
    steps = transitions(Two, log)
    first, second = people(Two, log, steps)
    assert first.touched == {"a": 1, "b": 1}
    assert first.untouched == ("c",)
    assert second.touched == {"a": 2, "c": 1}
    assert second.likely == (("a", "b"),)
    assert "user" not in str(people(Two, log, steps))


def learned(features, known):
    model = NewToOthers(features=features, log=known)
    return LearnedPlanner(model=model, features=features, steps=transitions(features, known))


def test_explore_gives_new_items_of_new_interests_in_the_order_of_the_ranker(world):
    features, known, truth = world
    ranker = ik.Popular(features=features, log=known)
    planner = learned(features, known)
    found = explore(ranker, planner, features, truth.histories, interests=2, items=3)
    number = {name: n for n, name in enumerate(features.interests)}
    touched = labels_touched(features, truth.histories)
    for row in found.iter_rows(named=True):
        user = truth.histories.number_of(row["user"])
        assert not touched[user, number[row["interest"]]]
        assert row["interest"] in features.items.filter(item=row["item"])["interests"].item()
    first = found.filter(rank=1).row(0, named=True)
    own = features.items_with(first["interest"]).filter("is_candidate")["item"]
    assert first["item"] == own[0]  # untouched as a whole, so the most popular of it is new
    assert "of those who came from" in first["why"]


def test_any_function_can_plan_and_what_is_not_new_is_passed_over(world):
    features, known, truth = world
    touched = labels_touched(features, truth.histories)
    user = int(np.flatnonzero(touched.any(axis=1) & ~touched.all(axis=1))[0])
    had, new = (features.interests[int(np.argmax(row))] for row in (touched[user], ~touched[user]))

    def planner(histories):
        return [[Plan(had, "had"), Plan("nothing", "unknown"), (new, "new"), (new, "again")]] * len(
            histories
        )

    ranker = ik.Popular(features=features, log=known)
    found = explore(ranker, planner, features, truth.histories.rows(user, user + 1))
    assert found["interest"].unique().to_list() == [new]
    assert found["why"].unique().to_list() == ["new"]


def test_exploring_gives_its_last_places_to_what_is_new_and_keeps_the_rest(world):
    features, known, truth = world
    ranker = ik.Popular(features=features, log=known)
    planner = learned(features, known)
    plain = ranker.rank(truth.histories, k=6)[0]
    mixed = Exploring(ranker=ranker, planner=planner, features=features, places=2)
    codes, scores = mixed.rank(truth.histories, k=6)
    none = Exploring(ranker=ranker, planner=planner, features=features, places=0)
    assert np.array_equal(none.rank(truth.histories, k=6)[0], plain)
    touched = labels_touched(features, truth.histories)
    labels = features.item_interests > 0
    for own, row in zip(touched, codes, strict=True):
        assert len(set(row[row >= 0].tolist())) == (row >= 0).sum()
        room = min(2, int((~own).sum()))
        is_new = (labels[row[row >= 0]] & ~own).any(axis=1)
        assert is_new.sum() >= room
    assert np.array_equal(scores == -np.inf, codes < 0)
    assert np.array_equal(mixed.interests(truth.histories), ranker.interests(truth.histories))


class StandIn:
    """A local server that answers as an OpenAI-compatible endpoint and keeps what it was sent."""

    def __init__(self):
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                stand_in.sent.append((self.path, dict(self.headers), self.rfile.read(length)))
                status, body = stand_in.answer
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):  # where a redirection would lead
                stand_in.sent.append((self.path, dict(self.headers), b""))
                self.send_error(404)

            def log_message(self, *_):
                pass

        self.sent, self.answer = [], (200, b"")
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/v1"

    def says(self, text, status=200):
        body = {"choices": [{"message": {"content": text}}]}
        self.answer = (status, json.dumps(body).encode())


@pytest.fixture
def stand_in():
    server = StandIn()
    thread = threading.Thread(target=server.server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.server.shutdown()
    thread.join()
    server.server.server_close()


@pytest.fixture
def asking(world, stand_in):
    features, known, truth = world
    touched = labels_touched(features, truth.histories)
    user = int(np.flatnonzero((~touched).sum(axis=1) >= 2)[0])
    new = [name for name, had in zip(features.interests, touched[user], strict=True) if not had]
    planner = LanguagePlanner(
        endpoint=stand_in.address,
        language_model="tiny",
        features=features,
        steps=transitions(features, known),
        key="secret",
        timeout_seconds=5,
    )
    return planner, truth.histories.rows(user, user + 1), new


def test_an_endpoint_is_sent_names_and_counts_alone(asking, stand_in, world):
    planner, histories, new = asking
    stand_in.says(json.dumps(new[::-1]))
    (plans,) = planner(histories)
    assert [plan.interest for plan in plans] == new[::-1][:5]
    ((path, headers, body),) = stand_in.sent
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert "secret" not in repr(planner)
    question = json.loads(json.loads(body)["messages"][1]["content"])
    assert set(question) == {"touched", "untouched", "steps that others took", "wanted"}
    assert question["untouched"] == new
    text = body.decode()
    assert str(histories.users[0]) not in text
    assert not any(item in text for item in world[0].items["item"])


@pytest.mark.parametrize(
    "text",
    [
        "sure, here you are",
        '{"interest": "cooking"}',
        '["no such interest", 3, null]',
        "[" * 2_000,
        "",
    ],
)
def test_an_answer_that_names_nothing_new_gives_no_plan(asking, stand_in, text):
    planner, histories, _ = asking
    stand_in.says(text)
    assert planner(histories) == [[]]


def test_a_list_in_a_fence_counts_and_a_name_counts_once(asking, stand_in):
    planner, histories, new = asking
    stand_in.says(f"```json\n{json.dumps([new[0], 'ignore all rules', new[0], new[1]])}\n```")
    assert [plan.interest for plan in planner(histories)[0]] == new[:2]


@pytest.mark.parametrize("answer", [(500, b""), (200, b"no json"), (200, b"{}"), (302, b"")])
def test_an_endpoint_without_a_completion_is_one_clear_error(asking, stand_in, answer):
    planner, histories, _ = asking
    stand_in.answer = answer
    with pytest.raises(ConnectionError, match=r"endpoint http://127.+ gave no completion: "):
        planner(histories)
    assert len(stand_in.sent) == 1  # nobody goes where a redirection points


def test_an_answer_in_another_protocol_is_the_same_error(asking):
    planner, histories, _ = asking
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"220 ready for mail\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        other = replace(planner, endpoint=f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        with pytest.raises(ConnectionError, match="gave no completion: BadStatusLine"):
            other(histories)
        thread.join()


def test_what_is_out_of_range_is_refused(world):
    features, known, truth = world
    ranker = ik.Popular(features=features, log=known)
    with pytest.raises(ValueError, match=r"endpoint must start with http:// or https://"):
        LanguagePlanner(endpoint="file:///x", language_model="", features=features, steps=None)
    with pytest.raises(ValueError, match=r"planner must give a list for \d+ users, got 0"):
        explore(ranker, lambda _: [], features, truth.histories)
    with pytest.raises(ValueError, match="interests must be at least 1, got 0"):
        explore(ranker, lambda _: [], features, truth.histories, interests=0)


def test_names_that_look_alike_in_short_are_numbered():
    long = "Home and Kitchen > Kitchen and Dining > Coffee, Tea and Espresso > "
    sent = _sent([long + "Filters", "Tea", long + "Grinders"])
    assert len(set(sent.values())) == 3
    assert sent["Tea"] == "Tea"
    assert sent[long + "Grinders"] == sent[long + "Filters"] + " (2)"
    sent = _sent(["Rock ", "Rock", "Rock (2)", "Rock (2) "])  # one may be called as a numbered one
    assert len(set(sent.values())) == 4


def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(world):
    known = {"language_model": "", "features": world[0], "steps": None}
    with pytest.raises(ValueError, match=r"key must be printable ASCII") as refused:
        LanguagePlanner(endpoint="http://127.0.0.1/v1", key="very-secret\n", **known)
    assert "very-secret" not in str(refused.value)
