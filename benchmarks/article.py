"""A small MLP on a table, fitted from nothing: ours, Keras on TensorFlow, PyTorch.

1,000 users with 10 features, 10 interests (0 or 1), an MLP 100-100 with ReLU and sigmoid outputs,
Adam with learning rate 0.001, batches of 32, 200 epochs, binary cross-entropy. The fit is all that
one waits for after the imports: data to the device, building, compiling, training.

  ours, cold        a new process, the compilation cache empty
  ours, warm cache  a new process, programs compiled by an earlier one on disk
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import PEERS, Side, in_process, main

WIDTHS = (10, 100, 100, 10)
BATCH, RATE = 32, 0.001
CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # however fast this machine compiles


def data(users: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (users, 10) and labels (users, 10): an interest is a half-space of the features."""
    rng = np.random.default_rng(0)
    features = rng.random((users, WIDTHS[0]), dtype=np.float32)
    return features, ((features - 0.5) @ rng.normal(size=(WIDTHS[0], WIDTHS[-1])) > 0).astype("f4")


def warm(users: int, epochs: int) -> dict[str, float]:
    """Ours, with the compilation cache that it is given."""
    features, labels = data(users)
    began = time.perf_counter()
    from interestkit.classifier import fit_classifier

    imported = time.perf_counter()
    fitted = fit_classifier(features, labels, epochs=epochs, batch_size=BATCH, learning_rate=RATE)
    trained = time.perf_counter()
    probabilities = np.asarray(fitted.probabilities(features))
    return _measures((began, imported, trained), probabilities, labels)


def cold(users: int, epochs: int) -> dict[str, float]:
    """Ours, with an empty compilation cache."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        return warm(users, epochs)


def keras(users: int, epochs: int) -> dict[str, float]:
    """Keras with its TensorFlow backend."""
    features, labels = data(users)
    began = time.perf_counter()
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import keras

    imported = time.perf_counter()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((WIDTHS[0],)),
            *(keras.layers.Dense(width, activation="relu") for width in WIDTHS[1:-1]),
            keras.layers.Dense(WIDTHS[-1], activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(RATE), loss="binary_crossentropy")
    model.fit(features, labels, batch_size=BATCH, epochs=epochs, verbose=0)
    trained = time.perf_counter()
    return _measures((began, imported, trained), model.predict(features, verbose=0), labels)


def pytorch(users: int, epochs: int) -> dict[str, float]:
    """PyTorch in its plain form: eager steps over slices of a random permutation."""
    features, labels = data(users)
    began = time.perf_counter()
    import torch

    imported = time.perf_counter()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # faster than two at this size
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    model = torch.nn.Sequential(
        torch.nn.Linear(WIDTHS[0], WIDTHS[1]),
        torch.nn.ReLU(),
        torch.nn.Linear(WIDTHS[1], WIDTHS[2]),
        torch.nn.ReLU(),
        torch.nn.Linear(WIDTHS[2], WIDTHS[3]),
    )
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    loss_of = torch.nn.BCEWithLogitsLoss()
    for _ in range(epochs):
        for rows in torch.randperm(users).split(BATCH):
            optimizer.zero_grad()
            loss_of(model(x[rows]), y[rows]).backward()
            optimizer.step()
    trained = time.perf_counter()
    with torch.inference_mode():
        probabilities = torch.sigmoid(model(x)).numpy()
    return _measures((began, imported, trained), probabilities, labels)


def _measures(times, probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    began, imported, trained = times
    predicted = time.perf_counter()
    clipped = np.clip(np.asarray(probabilities, np.float64), 1e-7, 1 - 1e-7)
    return {
        "fit_seconds": trained - imported,
        "predict_seconds": predicted - trained,
        "import_seconds": imported - began,
        "loss": float(-np.log(np.where(labels > 0, clipped, 1 - clipped)).mean()),
    }


def run() -> None:
    """Fill a compilation cache for the warm side, then run all sides by turns."""
    with tempfile.TemporaryDirectory() as folder:
        filled = {"JAX_COMPILATION_CACHE_DIR": folder} | CACHE
        sides = {
            "ours, cold": Side(work=cold, variables=CACHE),
            "ours, warm cache": Side(work=warm, variables=filled),
            "Keras": Side(work=keras, environment=PEERS / "tensorflow"),
            "PyTorch": Side(work=pytorch, environment=PEERS / "metrics"),
        }
        options = {"users": 1000, "epochs": 200}
        if not {"--side", "--help", "-h"} & set(sys.argv):
            in_process(Path(sys.executable), "ours, warm cache", options, filled)
        shown = ("fit_seconds", "predict_seconds", "wall_seconds")
        main("article", __doc__, sides, options=options, shown=shown)


if __name__ == "__main__":
    run()
