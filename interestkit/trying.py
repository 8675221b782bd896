"""A model tried on changed histories: the same answers with less work."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from interestkit.counting import pad, power_of_two
from interestkit.devices import place
from interestkit.examples import catalogue_arrays, log_arrays
from interestkit.histories import Histories
from interestkit.mixing import mix_repeats, only_new
from interestkit.model import HIDDEN, PARTS, Catalogue, InterestModel, Moment
from interestkit.prediction import Predictor, check_k
from interestkit.ranking import top_k


def item_vectors(predictor: Predictor) -> Float[np.ndarray, "items dim"]:
    """The vector of each item, in the mode of the predictor: learned, from content, or both."""
    catalogue = place(catalogue_arrays(predictor.features))
    return np.asarray(predictor.model.vectors(catalogue, jnp.array(PARTS[predictor.mode])))


class Light(NamedTuple):
    """A model with item vectors that are computed, and a catalogue without content."""

    model: InterestModel
    catalogue: Catalogue


def light(predictor: Predictor) -> Light:
    """The model of a predictor in its mode, made ready for answers in little time.

    It takes `parts=jnp.ones(2)` whatever the mode: what does not count is 0.
    """
    prior = PARTS[predictor.mode][0]  # whether popularity, biases and EASE count
    model = nnx.clone(predictor.model)
    model.item_vectors = nnx.Param(jnp.asarray(item_vectors(predictor)))
    model.item_bias = nnx.Param(prior * model.item_bias[...])
    popularity = model.popularity_weight
    popularity.kernel = nnx.Param(prior * popularity.kernel[...])
    popularity.bias = nnx.Param(prior * popularity.bias[...])
    model.config = replace(model.config, content_dim=0, content_blocks=())
    catalogue = catalogue_arrays(predictor.features)._replace(content=np.zeros((1, 1), np.float32))
    names = ("interest_codes", "interest_shares", "is_candidate")
    of_items = place({name: getattr(catalogue, name) for name in names})
    return Light(model, catalogue._replace(**of_items))


class Answer(NamedTuple):
    """What a model says of one history.

    Args:
        codes: The most probable next items, best first; -1 where none is left.
        scores: Their log-probabilities.
        interests: Probability of each interest.
    """

    codes: Int[np.ndarray, " k"]
    scores: Float[np.ndarray, " k"]
    interests: Float[np.ndarray, " interests"]


class OneUser:
    """A model that is asked about one history after the other, each in a few milliseconds.

    It gives the answers of `Predictor.rank` and `Predictor.interests`. One program computes all
    of an answer for one user, and item vectors are computed once. Histories are padded to a power
    of two, so that nothing is compiled while they stay below it.

    Example:
        >>> from interestkit import fit, fit_features, simulate
        >>> log = simulate(num_users=40, num_items=30, num_bots=0, faults=0)
        >>> features = fit_features(log.events, log.items)
        >>> histories = features.histories(log.events)
        >>> model = fit(features, histories, stop_after=1, progress=False, item_dim=8).model
        >>> predictor = Predictor(features=features, model=model)
        >>> answer = OneUser(predictor).ask(histories.rows(7, 8), k=3)
        >>> bool((answer.codes == predictor.rank(histories, k=3)[0][7]).all())
        True
    """

    def __init__(self, predictor: Predictor) -> None:
        self.features = predictor.features
        is_linear = PARTS[predictor.mode][0] and predictor.linear is not None
        self._linear = jnp.asarray(predictor.linear if is_linear else np.zeros((0, 0), np.float32))
        ready = light(predictor)
        self._can_repeat = ready.model.config.can_repeat
        self._graph, self._state = nnx.split(ready.model)
        self._catalogue = ready.catalogue

    def ask(
        self, history: Histories, *, k: int = 10, exclude_seen: bool = True, room: int = 1024
    ) -> Answer:
        """Interests and the best items of one user, as `Predictor.rank` and `interests`.

        There is room for `room` events in any case; another number is another program.
        """
        check_k(k, self.features)
        history.check_coded_by(self.features)
        number = len(history.item)
        size = power_of_two(max(number, room))
        scales = self.features.scales_days
        log = log_arrays(history, scales, can_repeat=self._can_repeat)
        log = jax.tree.map(lambda array: pad(array, size), log)
        moment = Moment(*(np.array([n], np.int32) for n in (0, number, history.moment[0])))
        found = _answer(
            self._graph,
            self._state,
            self._at(history.moment[0]),
            self._linear,
            log,
            moment,
            k=k,
            exclude_seen=exclude_seen,
        )
        return Answer(*(np.asarray(part)[0] for part in found))

    def _at(self, moment: int) -> Catalogue:
        """The catalogue with the popularity of that moment alone."""
        starts = self._catalogue.snapshot_seconds
        at = max(int(np.searchsorted(starts, moment, side="right")) - 1, 0)
        popularity = self._catalogue.popularity[:, at : at + 1]
        return self._catalogue._replace(popularity=popularity, snapshot_seconds=starts[at : at + 1])


@partial(jax.jit, static_argnums=0, static_argnames=("k", "exclude_seen"))
def _answer(graph, state, catalogue, linear, log, moment, *, k, exclude_seen):
    """Codes, log-probabilities and interests of one user, as `Predictor` has them."""
    model = nnx.merge(graph, state)
    said = model(log, catalogue, moment, parts=jnp.ones(2))
    new = model.score_new(said, catalogue, None, parts=jnp.ones(2))
    is_event = jnp.arange(len(log.item)) < moment.end[0]
    code = jnp.where(is_event, log.item, new.shape[1])
    seen = (jnp.zeros_like(code), code)
    if linear.size:
        new += jnp.zeros_like(new).at[seen].set(1.0, mode="drop") @ linear
    new = jnp.where(catalogue.is_candidate[None, :], new, HIDDEN)
    new, total = only_new(new, seen) if exclude_seen else mix_repeats(new, said)
    best, codes = top_k(new, k)
    return codes, best - total[:, None], jnp.exp(said.interests)
