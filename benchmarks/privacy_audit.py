"""Seeded mistakes in private training that its audit must find, and honest runs.

    python benchmarks/privacy_audit.py               # all mistakes, 200 honest runs
    python benchmarks/privacy_audit.py --honest 20

Each mistake replaces a part of a step, a number that a run is made with, or a number on the card.
"""

import argparse
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax_privacy.clipping import clip_pytree
from timing import RUNS, machine

from interestkit.privacy.accounting import GaussianMechanism, PrivacyCard, make_card, with_epsilon
from interestkit.privacy.audits import PrivacyAudit, audit_private
from interestkit.privacy.stepping import (
    Parts,
    add_noise,
    clipped_sum,
    select_users,
    step_keys,
)

HONEST = Parts()


def card_of(epsilon: float = 3.0, steps: int = 200, users: int = 2000, per_step: int = 250):
    """A card such as training makes it."""
    return make_card(
        num_users=users,
        users_per_step=per_step,
        steps=steps,
        clip_norm=0.5,
        epsilon=epsilon,
        released=[GaussianMechanism(what="counts", noise_multiplier=10.0)],
    )


def _no_noise(_key, total, _stddev):
    return total


def _noise_of(factor: float):
    return lambda key, total, stddev: add_noise(key, total, factor * stddev)


def _fixed_key(_key, total, stddev):
    return add_noise(jax.random.key(0), total, stddev)


def _one_number(key, total, stddev):
    noise = stddev * jax.random.normal(key, ())
    return jax.tree.map(lambda array: array + noise, total)


def _leaves_alike(key, total, stddev):
    def of(array):
        return array + stddev * jax.random.normal(key, array.shape)

    return jax.tree.map(of, total)


def _uniform(key, total, stddev):
    leaves, tree = jax.tree.flatten(total)
    keys = jax.random.split(key, len(leaves))
    width = stddev * 3**0.5
    noisy = [
        leaf + jax.random.uniform(k, leaf.shape, minval=-width, maxval=width)
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, noisy)


def _unless_empty(key, total, stddev):
    is_empty = sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(total)) == 0
    return jax.tree.map(
        lambda noisy, leaf: jnp.where(is_empty, leaf, noisy), add_noise(key, total, stddev), total
    )


def _keys_of_one_step(root, number):
    return step_keys(root, 0 * number)


def _keys_without_root(_root, number):
    return step_keys(jax.random.key(0), number)


def _one_noise_key(root, number):
    return step_keys(root, number)._replace(noise=jax.random.fold_in(root, 0))


def _one_select_key(root, number):
    return step_keys(root, number)._replace(select=jax.random.fold_in(root, 0))


def _noise_key_every_other_step(root, number):
    return step_keys(root, number)._replace(noise=jax.random.fold_in(root, number // 2))


def _per_event(loss, clip_norm):
    """Each moment clipped by itself, and all of a user added up."""
    one = clipped_sum(loss, clip_norm)

    def of(params, users, bits, shared, is_padding):
        parts = [
            one(params, users, bits[:, m : m + 1], shared, is_padding) for m in range(bits.shape[1])
        ]
        return jax.tree.map(lambda *leaves: sum(leaves), *parts)

    return of


def _plain_sum(loss):
    def of(params, users, bits, shared, is_padding):
        each = jax.vmap(jax.grad(loss), (None, 0, 0, None))(params, users, bits, shared)
        return jax.tree.map(lambda g: jnp.where(is_padding[:, None], 0, g).sum(axis=0), each)

    return of


def _no_clipping(loss, _clip_norm):
    return _plain_sum(loss)


def _clip_the_mean(loss, clip_norm):
    """The mean of the users clipped, not each of them, and scaled up again."""
    plain = _plain_sum(loss)

    def of(params, users, bits, shared, is_padding):
        total = plain(params, users, bits, shared, is_padding)
        num = jnp.maximum((~is_padding).sum(), 1)
        mean = jax.tree.map(lambda g: g / num, total)
        return jax.tree.map(lambda g: g * num, clip_pytree(mean, clip_norm)[0])

    return of


def _clip_each_leaf(loss, clip_norm):
    def of(params, users, bits, shared, is_padding):
        each = jax.vmap(jax.grad(loss), (None, 0, 0, None))(params, users, bits, shared)
        clip = jax.vmap(lambda g, none: clip_pytree(g, clip_norm, return_zero=none)[0])
        return jax.tree.map(lambda g: clip(g, is_padding).sum(axis=0), each)

    return of


def _clip_numbers(loss, clip_norm):
    """Each number of a gradient clipped by itself."""

    def of(params, users, bits, shared, is_padding):
        each = jax.vmap(jax.grad(loss), (None, 0, 0, None))(params, users, bits, shared)
        each = jax.tree.map(lambda g: jnp.clip(jnp.nan_to_num(g), -clip_norm, clip_norm), each)
        return jax.tree.map(lambda g: jnp.where(is_padding[:, None], 0, g).sum(axis=0), each)

    return of


def _padding_counts(loss, clip_norm):
    one = clipped_sum(loss, clip_norm)
    return lambda params, users, bits, shared, is_padding: one(
        params, users, bits, shared, jnp.zeros_like(is_padding)
    )


def _by_actual_number(loss, clip_norm):
    """The sum over the users who took part, in place of the expected number."""
    one = clipped_sum(loss, clip_norm)

    def of(params, users, bits, shared, is_padding):
        total = one(params, users, bits, shared, is_padding)
        scale = 32.0 / jnp.maximum((~is_padding).sum(), 1)
        return jax.tree.map(lambda g: g * scale, total)

    return of


def _nan_goes_through(loss, clip_norm):
    def of(params, users, bits, shared, is_padding):
        each = jax.vmap(jax.grad(loss), (None, 0, 0, None))(params, users, bits, shared)
        clip = jax.vmap(lambda g: clip_pytree(g, clip_norm, nan_safe=False)[0])
        return jax.tree.map(
            lambda g: jnp.where(is_padding[:, None], 0, g).sum(axis=0),
            jax.tree.map(lambda g: g + 0 * each["a"].sum(), clip(each)),
        )

    return of


def _fixed_size(key, included, room, rate):
    """As many users in each step, drawn without replacement."""
    rank = jnp.argsort(jax.random.uniform(key, included.shape) + 2.0 * ~included)
    is_padding = jnp.arange(room) >= jnp.round(rate * len(included))
    return rank[:room], is_padding


def _blocks(key, included, room, rate):
    """Neighbours drawn together."""
    pairs = jax.random.uniform(key, (len(included) // 2,)) < rate
    takes_part = jnp.repeat(pairs, 2) & included
    places = jnp.nonzero(takes_part, size=room, fill_value=len(included))[0]
    return jnp.minimum(places, len(included) - 1), places == len(included)


def _shuffled(root, number):
    """Keys of epochs: eight steps share one order of the users, in `_in_turn`."""
    keys = step_keys(root, number)
    of_epoch = jax.random.fold_in(root, number // 8)
    return keys._replace(select=jnp.stack([of_epoch, jax.random.fold_in(of_epoch, number % 8)]))


def _in_turn(key, included, room, _rate):
    """Each user once in eight steps."""
    order = jax.random.permutation(key[0], len(included))
    of_steps = jax.vmap(jax.random.fold_in, (None, 0))(key[0], jnp.arange(8))
    same = (jax.random.key_data(of_steps) == jax.random.key_data(key[1])[None, :]).all(axis=1)
    takes_part = (order // (len(included) // 8) == same.argmax()) & included
    places = jnp.nonzero(takes_part, size=room, fill_value=len(included))[0]
    return jnp.minimum(places, len(included) - 1), places == len(included)


def _select_with(factor: float):
    return lambda key, included, room, rate: select_users(key, included, room, factor * rate)


def _parts(**parts):
    return lambda card: {"card": card, "parts": HONEST._replace(**parts)}


def _plan(**numbers):
    def of(card: PrivacyCard):
        changed = {name: factor * getattr(card.plan, name) for name, factor in numbers.items()}
        return {"card": card, "plan": card.plan._replace(**changed)}

    return of


def _claims(change):
    return lambda card: {"card": change(card)}


def _accounted(card: PrivacyCard, **wrong) -> PrivacyCard:
    """The card with the epsilon of other numbers."""
    other = with_epsilon(replace(card, **wrong), card.epsilon)
    return replace(card, epsilon=other.epsilon, epsilon_rdp=other.epsilon_rdp)


MISTAKES = {
    "no noise": _parts(noise=_no_noise),
    "half the noise": _parts(noise=_noise_of(0.5)),
    "noise a twentieth too weak": _parts(noise=_noise_of(0.95)),
    "noise for the mean added to the sum": _parts(noise=_noise_of(1 / 250)),
    "the same noise in each step": _parts(keys=_one_noise_key),
    "the same noise in two steps": _parts(keys=_noise_key_every_other_step),
    "the same noise in each run": _parts(noise=_fixed_key),
    "keys that do not depend on the secret": _parts(keys=_keys_without_root),
    "keys that do not depend on the step": _parts(keys=_keys_of_one_step),
    "one number of noise for all": _parts(noise=_one_number),
    "the same noise on each array": _parts(noise=_leaves_alike),
    "uniform noise": _parts(noise=_uniform),
    "no noise where nobody took part": _parts(noise=_unless_empty),
    "clipped by event": _parts(clipped_sum=_per_event),
    "not clipped": _parts(clipped_sum=_no_clipping),
    "the mean clipped": _parts(clipped_sum=_clip_the_mean),
    "each array clipped by itself": _parts(clipped_sum=_clip_each_leaf),
    "each number clipped by itself": _parts(clipped_sum=_clip_numbers),
    "padding counted as a user": _parts(clipped_sum=_padding_counts),
    "divided by who took part": _parts(clipped_sum=_by_actual_number),
    "not a number goes through": _parts(clipped_sum=_nan_goes_through),
    "clip norm twice that of the card": _plan(clip_norm=2.0, noise_multiplier=0.5),
    "batches of one size, accounted as Poisson": _parts(select=_fixed_size),
    "each user once an epoch, accounted as Poisson": _parts(keys=_shuffled, select=_in_turn),
    "neighbours drawn together": _parts(select=_blocks),
    "the same users in each step": _parts(keys=_one_select_key),
    "a higher rate than that of the card": _parts(select=_select_with(1.2)),
    "rate of the accountant too low": _claims(lambda card: _accounted(card, rate=card.rate / 2)),
    "steps of the accountant too few": _claims(
        lambda card: _accounted(card, steps=card.steps // 2)
    ),
    "more steps than on the card": lambda card: {"card": card, "steps": card.steps + 50},
    "counts left out of the account": _claims(lambda card: _accounted(card, released=())),
    "delta too large": _claims(lambda card: with_epsilon(replace(card, delta=0.01), card.epsilon)),
    "too little room, not accounted for": _claims(lambda card: replace(card, room=255)),
}


def audited(name: str, card: PrivacyCard, seed: int = 0) -> PrivacyAudit:
    """The audit of a run with one of the mistakes."""
    made = MISTAKES[name](card)
    return audit_private(made.pop("card"), seed=seed, **made)


def main() -> None:
    """Audit, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--honest", type=int, default=200, help="honest runs")
    given = parser.parse_args()
    card, found = card_of(), {}
    for name in MISTAKES:
        found[name] = audited(name, card).alarms
        print(f"{name:<48}{', '.join(found[name]) or 'NOT FOUND'}", flush=True)
    cards = [
        card_of(e, *sizes) for e in (8.0, 1.0) for sizes in ((200, 2000, 250), (60, 20_000, 500))
    ]
    alarms = [
        alarm
        for seed in range(given.honest)
        for alarm in audit_private(cards[seed % len(cards)], seed=seed).alarms
    ]
    caught = sum(bool(alarm) for alarm in found.values())
    print(f"\nmistakes found: {caught} of {len(found)}")
    print(f"alarms in {given.honest} honest runs: {len(alarms)} {alarms}")
    RUNS.mkdir(parents=True, exist_ok=True)
    measures = {"mistakes": found, "honest_runs": given.honest, "alarms": alarms}
    record = {"name": "privacy_audit", "machine": machine(), "measures": measures}
    (RUNS / "privacy_audit.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
