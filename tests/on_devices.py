"""A program for `test_devices.py`: fits on meshes of virtual devices, and prints what came out.

    python on_devices.py DEVICES SAMPLED DATAxMODEL ...

One JSON line per mesh: losses and scores of the last epoch, a sum over the item vectors, and the
shapes that have a row for every item in the compiled program. `1` stands for no mesh.
"""

import json
import os
import re
import sys

import jax

import interestkit as ik
from interestkit import devices, training

DIM = 20  # so that no other axis is as long as the items or their vectors


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
    for name in meshes:
        mesh = None
        if "x" in name:
            data, model = map(int, name.split("x"))
            mesh = devices.make_mesh(data=data, model=model)
        program, texts = training._train_epoch, []

        def spy(*arguments, program=program, texts=texts):
            if not texts:
                texts.append(program.lower(*arguments).compile().as_text())
            return program(*arguments)

        training._train_epoch = spy
        options = {"validation": validation, "config": config, "progress": False, "mesh": mesh}
        result = ik.fit(features, histories, **options, **shape)
        training._train_epoch = program
        rows = devices.padded_items(features.num_items, mesh)
        vectors = result.model.item_vectors[...]
        found = {
            "mesh": name,
            "last": result.curve.drop("seconds").row(-1),
            "shape": list(vectors.shape),
            "sum": float((vectors * vectors).sum()),
            "items": features.num_items,
            "tables": sorted(set(re.findall(rf"f32\[{rows},{DIM}\]", texts[0]))),
            "scores": sorted(set(re.findall(rf"f32\[64,{rows}\]", texts[0]))),
            "processes": jax.process_count(),
        }
        if jax.process_index() == 0:
            sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
