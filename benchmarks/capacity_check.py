"""Formulas against programs: sizes of arrays and arithmetic of real training steps."""

from collections.abc import Mapping

import jax
from capacity_model import Case, catalogue_bytes, flops, log_bytes, parameters, state_bytes


def check(*, items: int, dim: int, batch: int, sampled: int, **layers: int) -> dict[str, float]:
    """Predicted and measured numbers of one small step on one device."""
    case, program, (state, log, *catalogue, examples) = compiled(
        items, dim, batch, sampled, **layers
    )
    measured = program.memory_analysis()
    return {
        **{"items": case.items, "dim": dim, "batch": batch, "sampled": sampled},
        "layers": case.layers,
        "parameters": parameters(case),
        "parameters_measured": sum(array.size for array in jax.tree.leaves(state.params)),
        "state_bytes": state_bytes(case),
        "state_bytes_measured": size(state),
        "catalogue_bytes": catalogue_bytes(case),
        "catalogue_bytes_measured": size(catalogue),
        "log_bytes": log_bytes(
            case.events, case.users, case.scales, moments=len(examples.position)
        ),
        "log_bytes_measured": size((log, examples)),
        "output_bytes": state_bytes(case) + 4 * 4,
        "output_bytes_measured": measured.output_size_in_bytes,
        "temporary_bytes_measured": measured.temp_size_in_bytes,
        "flops": sum(flops(case).values()),
        "flops_measured": program.cost_analysis()["flops"],
    }


def compiled(items: int, dim: int, batch: int, sampled: int, **layers: int):
    """The case of a small simulated log, its compiled epoch of one step, and what goes in."""
    import interestkit as ik
    from interestkit import training

    log = ik.simulate(
        num_users=items, num_items=items, events_per_user=20, num_bots=0, faults=0, seed=0
    )
    features = ik.fit_features(log.events, log.items, min_item_events=1)
    histories = features.histories(log.events)
    config = ik.TrainingConfig(
        **{"epochs": 1, "examples_per_epoch": batch, "batch_size": batch, "num_sampled": sampled}
    )
    seen, program = [], training.train_epoch

    def spy(*arguments):
        seen.append((program.lower(*arguments).compile(), arguments))
        return program(*arguments)

    training.train_epoch = spy
    try:
        ik.fit(features, histories, config=config, progress=False, item_dim=dim, **_shape(layers))
    finally:
        training.train_epoch = program
    ((found, (shape, _, _, state, log_arrays, catalogue, width, examples)),) = seen
    case = Case(
        users=len(examples.start),
        items=shape.num_items,
        events=len(log_arrays.item),
        **{"devices": 1, "model": 1, "batch": batch, "sampled": sampled, "dim": dim},
        **{"hidden": shape.hidden[0], "content": shape.content_dim, "steps": 1},
        **{"interests": shape.num_interests, "labels": catalogue.interest_codes.shape[1]},
        **{"scales": len(shape.scales_days), "snapshots": len(catalogue.snapshot_seconds)},
        **{"history": shape.history_length, "repeats": shape.repeat_length},
        **{"targets": config.num_targets, "shards": 1, "shards_at_once": 1},
        **({"window": shape.num_window} | layers),
    )
    return case, found, (state, log_arrays, catalogue, width, examples)


def _shape(layers: Mapping[str, int]) -> dict[str, object]:
    """What `ModelConfig` calls the layers of a `Case`; an MLP where there are none."""
    names = {"layers": "num_layers", "heads": "num_heads", "width": "layer_dim", "remat": "remat"}
    given = {names[name]: value for name, value in layers.items()}
    return {"encoder": "transformer", **given} if layers.get("layers") else {}


def size(tree) -> int:
    """Bytes of all arrays."""
    return sum(array.nbytes for array in jax.tree.leaves(tree))


def table(checked: list[dict]) -> str:
    """Markdown: predicted over measured."""
    names = ("parameters", "state_bytes", "catalogue_bytes", "log_bytes", "output_bytes", "flops")
    sizes = ("items", "dim", "batch", "sampled", "layers")
    lines = ["Predicted over measured, one step on one device:", ""]
    lines.append("| " + " | ".join((*sizes, *names)) + " |")
    lines.append("|" + "---|" * (len(sizes) + len(names)))
    for row in checked:
        cells = [f"{row[name]:,}" for name in sizes]
        cells += [f"{row[name] / row[f'{name}_measured']:.4g}" for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
