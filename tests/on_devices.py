"""A program for `test_devices.py`: fits on meshes of virtual devices, and prints what came out.

    python on_devices.py DEVICES SAMPLED DATAxMODEL ...

One JSON line per mesh: losses and scores of the last epoch, a sum over the item vectors, a hash of
them before the first step, and the shapes that have a row for every item in the compiled
programs that train and initialise. `1` stands for no mesh. With INTERESTKIT_TEST_ENCODER the model
has a Transformer, whose stacked weights are looked for too. The second epoch is trained by a second
fit, from the checkpoint of the first.
"""

import hashlib
import json
import os
import re
import sys
from tempfile import TemporaryDirectory

import jax
import numpy as np

import interestkit as ik
from interestkit import devices, training

PROGRAMS = {name: getattr(training, name) for name in ("train_epoch", "initialise")}
DIM = 20  # so that no other axis is as long as the items or their vectors
WIDTH = 24  # of layers


def spied(mesh, features):
    """Compiled texts of programs by name, and a hash of the first item vectors, when they run."""
    texts, begun = {}, []

    def spy(name, program):
        def run(*arguments):
            if name not in texts:
                texts[name] = program.lower(*arguments).compile().as_text()
            found = program(*arguments)
            if name == "initialise" and not begun:
                params = devices.whole(found.params, mesh, features.num_items)
                vectors = np.asarray(params.tables["item_vectors"])
                begun.append(hashlib.sha256(vectors.tobytes()).hexdigest())
            return found

        return run

    for name, program in PROGRAMS.items():
        setattr(training, name, spy(name, program))
    return texts, begun


def shapes(pattern: str, text: str) -> list[str]:
    return sorted(set(re.findall(pattern, text)))


def main(num_devices: str, num_sampled: str, *meshes: str) -> None:
    jax.config.update("jax_num_cpu_devices", int(num_devices))
    if "INTERESTKIT_PROCESSES" in os.environ:
        devices.join_hosts()
    log = ik.simulate(num_users=80, num_items=50, events_per_user=20, num_bots=0, faults=0, seed=3)
    split = ik.temporal_split(log, min_judged=0)
    features = ik.fit_features(split.train, split.items, min_item_events=1)
    histories = features.histories(split.train)
    validation = ik.held_out(features, split, "validation")
    settings = {"epochs": 2, "examples_per_epoch": 256, "batch_size": 64}
    config = ik.TrainingConfig(num_sampled=int(num_sampled), **settings)
    shape = {"item_dim": DIM, "hidden": (16,), "history_length": 8, "repeat_length": 16}
    if encoder := os.environ.get("INTERESTKIT_TEST_ENCODER"):
        shape |= {"encoder": encoder, "layer_dim": WIDTH, "num_heads": 4, "remat": True}
    for name in meshes:
        mesh = None
        if "x" in name:
            data, model = map(int, name.split("x"))
            mesh = devices.make_mesh(data=data, model=model)
        texts, begun = spied(mesh, features)
        options = {"validation": validation, "config": config, "progress": False, "mesh": mesh}
        with TemporaryDirectory() as folder:
            if jax.process_count() == 1:
                ik.fit(features, histories, **options, **shape, checkpoint=folder, stop_after=1)
                options["checkpoint"] = folder
            result = ik.fit(features, histories, **options, **shape)
        rows = devices.padded_items(features.num_items, mesh)
        vectors = np.asarray(result.model.item_vectors[...])
        found = {
            "mesh": name,
            "last": result.curve.drop("seconds").row(-1),
            "shape": list(vectors.shape),
            "sum": float((vectors * vectors).sum()),
            "items": features.num_items,
            "tables": shapes(rf"f32\[{rows},{DIM}\]", texts["train_epoch"]),
            "scores": shapes(rf"f32\[64,{rows}\]", texts["train_epoch"]),
            "tables_before": shapes(rf"\w32\[{rows},{DIM}\]", texts["initialise"]),
            "layers": shapes(rf"f32\[2,{WIDTH},{3 * WIDTH}\]", texts["train_epoch"]),
            "layers_before": shapes(rf"\w32\[2,{WIDTH},{3 * WIDTH}\]", texts["initialise"]),
            "before": begun[0],
            "processes": jax.process_count(),
        }
        if jax.process_index() == 0:
            sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
