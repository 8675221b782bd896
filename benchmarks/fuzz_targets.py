"""What `fuzz.py` fuzzes: readers, loaders and exporters, each with whole files to start from."""

import gzip
import io
import json
import re
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

_ROWS = "user,item,time,kind,rating,title,genres,query\n"
_ROWS += "ann,x,1717180200,view,4.5,Emma,a|b,\nbob,,1717180201,search,,,,red wine\n"
_ISO = "user,item,date\nann,x,2024-05-31T18:30:00+02:00\nbob,y,2024-05-31\n"


class Unsafe(Exception):
    """What was written runs something, or lost a row."""


def must_be_empty(found: Collection) -> None:
    """Raise `Unsafe` if anything was found."""
    if len(found):
        raise Unsafe(found)


def reader(suffix: str) -> Callable:
    """A target that reads a log of this form."""

    def run(data: bytes, folder: Path) -> None:
        from interestkit.events import read_log

        path = folder / f"log{suffix}"
        path.write_bytes(data)
        log = read_log(path)
        repr(log)

    return run


def sealed(text: bytes) -> bytes:
    """JSON of the kit with another last line, which holds the sha256 of the lines before."""
    from interestkit.files import last_line

    lines = text[: -len(last_line(b""))]
    return lines + last_line(lines)


def preparer(data: bytes, folder: Path) -> None:
    """What a log larger than memory goes through, from CSV or Parquet."""
    from interestkit import prepare

    path = folder / ("log.parquet" if data[:4] == b"PAR1" else "log.csv")
    path.write_bytes(data)
    with tempfile.TemporaryDirectory(dir=folder) as target:
        prepare(path, target, num_shards=2)


def replacer(make: Callable, load: Callable) -> Callable:
    """A target that replaces one file of a saved folder; its checksum is made to fit.

    The first byte says which file; from 128 on the last line of a JSON file stays as it is.
    """
    saved = {}

    def run(data: bytes, folder: Path) -> None:
        from interestkit.files import is_whole, sha256_of, with_digest

        if not saved:
            saved["folder"] = make(folder / "saved")
            saved["files"] = {p: p.read_bytes() for p in sorted(saved["folder"].iterdir())}
        paths = list(saved["files"])
        for path, content in saved["files"].items():
            path.write_bytes(content)
        changed = paths[data[0] % len(paths)] if data else paths[0]
        is_sealed = data[:1] < b"\x80" and is_whole(saved["files"][changed])
        changed.write_bytes(sealed(data[1:]) if is_sealed else data[1:])
        manifest = saved["folder"] / "manifest.json"
        if manifest.exists() and changed != manifest:
            text = json.loads(saved["files"][manifest])
            text["files"][changed.name] = sha256_of(changed)
            text.pop("sha256", None)
            manifest.write_bytes(with_digest(text))
        load(saved["folder"])

    def seeds(folder: Path) -> list[bytes]:
        paths = sorted(make(folder / "seeds").iterdir())
        return [bytes([n]) + path.read_bytes() for n, path in enumerate(paths)]

    run.seeds = seeds
    return run


def _small():
    """Features and split of a tiny log."""
    import interestkit as ik

    log = ik.simulate(num_users=30, num_items=12, num_interests=3, num_bots=0, faults=0, seed=1)
    split = ik.temporal_split(log, min_judged=0)
    features = ik.fit_features(split.train, split.items, content_dim=2, num_snapshots=2)
    return split, features


def make_split(folder: Path) -> Path:
    """A saved split."""
    return _small()[0].save(folder)


def make_features(folder: Path) -> Path:
    """Saved features."""
    return _small()[1].save(folder)


def make_model(folder: Path) -> Path:
    """A saved model, not trained."""
    from flax import nnx

    import interestkit as ik
    from interestkit.examples import item_content
    from interestkit.model import InterestModel, ModelConfig

    features = _small()[1]
    sizes = {"num_items": features.num_items, "num_interests": features.num_interests}
    sizes |= {"content_dim": item_content(features).shape[1], "item_dim": 2, "hidden": (3,)}
    config = ModelConfig(scales_days=features.scales_days, **sizes)
    model = InterestModel(config, rngs=nnx.Rngs(0))
    return ik.Predictor(features=features, model=model).save(folder)


def make_shards(folder: Path) -> Path:
    """Shards and what `prepare` writes."""
    import polars as pl

    import interestkit as ik
    from interestkit.files import with_digest

    log = ik.simulate(num_users=20, num_items=9, num_interests=3, num_bots=0, faults=0, seed=1)
    ik.prepare(log.events, folder, num_shards=2)
    parts = [pl.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))]
    counts = [[part["user"].n_unique(), len(part)] for part in parts]
    facts = {"counts": counts, "fingerprint": "f", "digests": {}}  # so that files are read
    (folder / "shards.json").write_bytes(with_digest(facts))
    prepared = json.loads((folder / "prepared.json").read_text())
    del prepared["sha256"]
    (folder / "prepared.json").write_bytes(with_digest(prepared | {"digests": {}}))
    return folder


def make_run(folder: Path) -> Path:
    """A folder of a run with results, a card and a notebook."""
    import nbformat

    from interestkit.modelcard import SECTIONS, ModelCard

    content = dict.fromkeys(SECTIONS) | {"title": "t", "date": "d", "format": 1}
    ModelCard(content=content | {"data": {"name": "x", "counts": [1, 2]}}).save(folder)
    (folder / "model_card.html").unlink()
    row = {"target": "items", "model": "m", "metric": "NDCG@10", "value": 0.5, "low": 0.4}
    row |= {"high": 0.6, "seeds": 1, "users": 9, "spread": None}
    (folder / "results.json").write_text(json.dumps({"data": "x", "table": [row]}))
    cells = [nbformat.v4.new_markdown_cell("# T\n<b>x</b>"), nbformat.v4.new_code_cell("1")]
    cells[1].outputs = [nbformat.v4.new_output("display_data", {"text/html": "<p>x</p>"})]
    told = {"papermill": {"end_time": "2024-05-31T18:30:00+00:00", "duration": 1.5}}
    told |= {"interestkit": {"failure": "KeyError"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=told)
    nbformat.write(notebook, folder / "01_x.ipynb")
    return folder


def load_split(folder: Path) -> None:
    """Load a split."""
    import interestkit as ik

    repr(ik.Split.load(folder).summary())


def load_features(folder: Path) -> None:
    """Load features."""
    import interestkit as ik

    ik.Features.load(folder)._repr_html_()


def load_model(folder: Path) -> None:
    """Load a model."""
    import interestkit as ik

    repr(ik.Predictor.load(folder))


def load_shards(folder: Path) -> None:
    """Read what `prepare` and `write_shards` wrote."""
    import interestkit as ik

    for shards in (ik.Prepared.read(folder).shards("train"), ik.Shards.read(folder)):
        for number in range(min(len(shards), 4)):
            shards.events(number)


def make_release(folder: Path) -> Path:
    """A saved release."""
    import interestkit as ik

    options = {"num_items": 12, "num_interests": 3, "num_bots": 0, "faults": 0, "seed": 1}
    log, _ = ik.clean(ik.simulate(num_users=30, events_per_user=9, **options))
    return ik.privacy.release(log, key=b"k" * 32, ranker=None, progress=False).save(folder)


def load_release(folder: Path) -> None:
    """Load a release."""
    import interestkit as ik

    ik.privacy.Release.load(folder)._repr_html_()


class State(NamedTuple):
    """A state of training, as far as checkpoints know it."""

    params: dict
    step: int


def _trained() -> tuple[State, dict]:
    import numpy as np

    return State({"a": np.ones(3, np.float32)}, np.int32(1)), {"seed": 0, "config": {"epochs": 2}}


def make_checkpoint(folder: Path) -> Path:
    """The state after one epoch."""
    from interestkit.checkpoint import Progress, save_progress

    state, identity = _trained()
    row = {"epoch": 1, "score": 0.5, "seconds": 1.0}
    save_progress(folder, Progress(state, state.params, (row,), 1), identity)
    return folder / "epoch-00001"


def load_checkpoint(folder: Path) -> None:
    """Load the state of a run."""
    from interestkit.checkpoint import load_progress

    load_progress(folder.parent, *_trained())


def _two_vectors():
    import interestkit as ik

    return ik.Modality(name="v", items=["a", "b"], vectors=[[1, 2], [3, 4]], encoder="by hand")


def vectors(data: bytes, folder: Path) -> None:
    """Vectors of items and the manifest beside them; the first byte says what is replaced."""
    import interestkit as ik
    from interestkit.files import sha256_of

    path = folder / ("v.safetensors" if data[:1] == b"\1" else "v.parquet")
    manifest = ik.write_vectors(_two_vectors(), path).with_suffix(".manifest.json")
    if data[:1] > b"\1":
        manifest.write_bytes(data[1:])
    else:
        path.write_bytes(data[1:])
        says = json.loads(manifest.read_text()) | {"sha256": sha256_of(path)}
        manifest.write_text(json.dumps(says))
    try:
        repr(ik.read_vectors(path))
    finally:
        path.unlink()
        manifest.unlink()


def _vector_seeds(folder: Path) -> list[bytes]:
    import interestkit as ik

    folder.mkdir(exist_ok=True)
    given, paths = _two_vectors(), [folder / "v.parquet", folder / "w.safetensors"]
    seeds = [bytes([n]) + ik.write_vectors(given, p).read_bytes() for n, p in enumerate(paths)]
    return [*seeds, b"\2" + (folder / "v.manifest.json").read_bytes()]


def traces(data: bytes, folder: Path) -> None:
    """A file in a folder where a name is looked for."""
    from interestkit.privacy import find_traces

    place = folder / "looked into"
    place.mkdir(exist_ok=True)
    (place / "file").write_bytes(data)
    find_traces(place, "annabel")


def _packed_seeds(_: Path) -> list[bytes]:
    import numpy as np
    import polars as pl

    table, found = pl.DataFrame({"who": [["annabel"], ["x"]], "n": [1, 2]}), []
    for write in (table.write_parquet, table.write_ipc):
        write(file := io.BytesIO())
        found.append(file.getvalue())
    for save in (np.savez, np.savez_compressed):
        save(file := io.BytesIO(), a=np.array(["annabel"]), b=np.ones(2))
        found.append(file.getvalue())
    return [*found, gzip.compress(b"annabel", mtime=0), gzip.compress(found[-1], mtime=0)]


def load_run(folder: Path) -> None:
    """Write the report of a run; its page must run nothing."""
    from hostile import live_parts

    from interestkit.modelcard import ModelCard
    from interestkit.report import write_report

    page = write_report(folder).read_text(encoding="utf-8")
    (folder / "report.html").unlink()
    must_be_empty(live_parts(page))
    must_be_empty(live_parts(ModelCard.load(folder)._repr_html_()))


def exporter(data: bytes, folder: Path) -> None:
    """Text of any kind in tables, cards and CSV: nothing runs, and it comes back."""
    import csv

    import polars as pl
    from hostile import live_parts

    from interestkit.events import EventLog
    from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS
    from interestkit.storage import write_csv

    texts = data.decode("utf-8", errors="replace").split("|") or [""]
    items = pl.DataFrame({"item": [f"{n}{t}" for n, t in enumerate(texts)], "title": texts})
    items = items.with_columns(interests=pl.concat_list("title")).select(*ITEM_COLUMNS)
    events = items.select(user="item", item="item", kind=pl.lit("view"), text="title")
    events = events.with_columns(
        time=pl.lit(0).cast(EVENT_COLUMNS["time"]), value=pl.lit(None, pl.Float64)
    ).select(*EVENT_COLUMNS)
    log = EventLog(events=events, items=items, name=texts[0], note=texts[-1])
    must_be_empty(live_parts(log._repr_html_()))
    path = write_csv(items, folder / "items.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    must_be_empty(range(len(rows) - len(items) - 1))
    must_be_empty([cell for row in rows for cell in row if re.match(r"[\s=+\-@]", cell)])


def _parquet_seeds(_: Path) -> list[bytes]:
    from datetime import datetime

    import polars as pl
    from pyarrow import parquet

    plain = {"user": ["a", "b"], "item": ["x", "y"], "time": [1, 2]}
    rich = {"user": [1, 2], "item": [1.0, None], "time": [datetime(2024, 1, 1)] * 2}
    rich |= {"genres": [["a"], ["b", "c"]], "kind": ["view"] * 2, "rating": [1.5, 2.5]}
    found = []
    for columns in (plain, rich):
        for compression in ("uncompressed", "snappy", "zstd"):
            pl.DataFrame(columns).write_parquet(file := io.BytesIO(), compression=compression)
            found.append(file.getvalue())
        parquet.write_table(pl.DataFrame(columns).to_arrow(), file := io.BytesIO())
        found.append(file.getvalue())
    return found


def _text_seeds(*texts: str) -> Callable:
    return lambda _: [text.encode() for text in texts]


def _seeded(run: Callable, seeds: Callable) -> Callable:
    run.seeds = seeds
    return run


_JSON = (
    '{"user": "ann", "item": 7, "time": 1717180200, "interests": ["a"]}\n{"user": 1, "time": "2"}\n'
)
_DAT = "user::item::rating::time\n1::007::9::1360000000\n"
_MANY = "".join(f"u{n % 3},i{n % 2},{1717180200 + n}\n" for n in range(30))
_MANY = f"user,item,time\n{_MANY}"
TARGETS = {
    "csv": _seeded(reader(".csv"), _text_seeds(_ROWS, _ISO)),
    "tsv": _seeded(reader(".tsv"), _text_seeds(_ROWS.replace(",", "\t"))),
    "jsonl": _seeded(reader(".jsonl"), _text_seeds(_JSON)),
    "dat": _seeded(reader(".dat"), _text_seeds(_DAT)),
    "parquet": _seeded(reader(".parquet"), _parquet_seeds),
    "prepare": _seeded(preparer, _text_seeds(_MANY)),
    "split": replacer(make_split, load_split),
    "features": replacer(make_features, load_features),
    "model": replacer(make_model, load_model),
    "shards": replacer(make_shards, load_shards),
    "release": replacer(make_release, load_release),
    "checkpoint": replacer(make_checkpoint, load_checkpoint),
    "vectors": _seeded(vectors, _vector_seeds),
    "traces": _seeded(traces, _packed_seeds),
    "report": replacer(make_run, load_run),
    "export": _seeded(exporter, _text_seeds("<script>x</script>|=1+1|\t@x|Emma")),
}
