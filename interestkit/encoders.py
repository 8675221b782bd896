"""Vectors of texts, pictures and sounds by encoders that are installed, or by one of your own."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
from jaxtyping import Float

from interestkit.content import words_of
from interestkit.modalities import Modality
from interestkit.progress import progress_bar
from interestkit.schema import ITEM, TITLE, check_columns

Encode = Callable[[Sequence], Float[np.ndarray, "things dim"]]
_BATCH = 256  # texts or files at a time
_COEFFICIENTS = 20  # of the cepstrum of a sound


def text_vectors(
    items: pl.DataFrame,
    *,
    encoder: str | Encode = "wordllama",
    dim: int = 128,
    name: str = "text",
    progress: bool = True,
) -> Modality:
    """Vectors of the titles of items; those of searches are vectors of the queries.

    Args:
        items: Items table: item, title. An item without a word in its title has no vector.
        encoder: "wordllama", which runs offline (`pip install 'interestkit[text]'`),
            "sentence-transformers/MODEL", which downloads the model, or a function from a list of
            texts to a vector for each.
        dim: Columns that are kept, for wordllama: 64, 128 or 256.
        name: Name of the modality.
        progress: Show a progress bar.

    Raises:
        ValueError: If a column is missing, or there is no such encoder.
        ModuleNotFoundError: If its package is not installed; the message says how.

    Example:
        >>> def letters(texts):
        ...     return np.array([[text.count("a"), len(text)] for text in texts])
        >>> items = pl.DataFrame({"item": ["x", "y"], "title": ["a cat", None]})
        >>> text_vectors(items, encoder=letters, progress=False).of(items["item"]).vectors
        array([[2., 5.],
               [0., 0.]], dtype=float32)

    Source:
        WordLlama: token vectors of a large language model, averaged over a text (L. Miller 2024);
        sentence-transformers: Reimers and Gurevych (2019), arXiv:1908.10084.
    """
    check_columns(items, {ITEM: pl.String, TITLE: pl.String}, what="items")
    has_words = [bool(words_of(title)) for title in items[TITLE]]
    items = items.filter(pl.Series(has_words, dtype=pl.Boolean)).unique(ITEM, maintain_order=True)
    loaders = {"wordllama": partial(_wordllama, dim), "sentence-transformers/MODEL": _sentences}
    made_by, encode = _chosen(encoder, loaders)
    vectors = _in_batches(encode, items[TITLE].to_list(), "texts", progress)
    return Modality(name=name, items=items[ITEM], vectors=vectors, encoder=made_by)


def image_vectors(
    paths: Mapping[str, str | Path],
    *,
    encoder: str | Encode = "timm/mobilenetv4_conv_small.e2400_r224_in1k",
    name: str = "image",
    progress: bool = True,
) -> Modality:
    """Vectors of pictures of items.

    Args:
        paths: Item -> picture file.
        encoder: "timm/MODEL", a model of that package (`pip install 'interestkit[image]'`), which
            downloads its weights, or a function from a list of paths to a vector for each.
        name: Name of the modality.
        progress: Show a progress bar.

    Raises:
        FileNotFoundError: If a picture is missing.
        ValueError: If there is no such encoder.
        ModuleNotFoundError: If its package is not installed; the message says how.
    """
    made_by, encode = _chosen(encoder, {"timm/MODEL": _images})
    return _of_files(paths, encode, made_by, name, progress)


def audio_vectors(
    paths: Mapping[str, str | Path],
    *,
    encoder: str | Encode = "librosa",
    name: str = "audio",
    progress: bool = True,
) -> Modality:
    """Vectors of sounds of items.

    Args:
        paths: Item -> sound file.
        encoder: "librosa" (`pip install 'interestkit[audio]'`): mean and standard deviation over
            time of 20 cepstral coefficients, 12 chroma bins and 7 bands of spectral contrast; or a
            function from a list of paths to a vector for each.
        name: Name of the modality.
        progress: Show a progress bar.

    Raises:
        FileNotFoundError: If a sound is missing.
        ValueError: If there is no such encoder.
        ModuleNotFoundError: If its package is not installed; the message says how.

    Source:
        McFee et al. (2015), librosa, Proc. 14th Python in Science Conf.
    """
    made_by, encode = _chosen(encoder, {"librosa": _librosa})
    return _of_files(paths, encode, made_by, name, progress)


def _of_files(paths: Mapping, encode: Encode, made_by: str, name: str, progress: bool) -> Modality:
    files = [Path(path) for path in paths.values()]
    for item, path in zip(paths, files, strict=True):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file, for item {item!r}")
    vectors = _in_batches(encode, files, f"{name} files", progress)
    return Modality(name=name, items=list(paths), vectors=vectors, encoder=made_by)


def _chosen(encoder, loaders: Mapping[str, Callable]) -> tuple[str, Encode]:
    """Name of an encoder, and the function that it is; PACKAGE/MODEL stands for any model."""
    if callable(encoder):
        return getattr(encoder, "__qualname__", type(encoder).__qualname__), encoder
    package, _, model = str(encoder).partition("/")
    if model and (load := loaders.get(f"{package}/MODEL")):
        return encoder, load(model)
    if not model and encoder in loaders:
        return loaders[encoder]()
    allowed = ", ".join([*loaders, "a function"])
    raise ValueError(f"encoder must be one of {allowed}, got {encoder!r}")


def _in_batches(encode: Encode, things: Sequence, unit: str, progress: bool) -> np.ndarray:
    """Vectors of all things, some at a time."""
    starts, found = range(0, len(things), _BATCH), []
    for first in progress_bar(starts, label="encoding", unit="batch", enabled=progress):
        part = things[first : first + _BATCH]
        vectors = np.asarray(encode(part), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(part):
            allowed = f"a row for each of {len(part)} {unit}"
            raise ValueError(f"encoder must return {allowed}, got shape {vectors.shape}")
        found.append(vectors)
    return np.concatenate(found) if found else np.zeros((0, 1), np.float32)


def _package(module: str, extra: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        how = f"pip install 'interestkit[{extra}]'"
        what = f"this encoder needs the package {module.replace('_', '-')}, which is not installed"
        raise ModuleNotFoundError(f"{what}: {how}", name=error.name) from error


@lru_cache(maxsize=2)
def _wordllama(dim: int) -> tuple[str, Encode]:
    """The encoder whose weights come inside its package: nothing is downloaded."""
    if dim not in (allowed := (64, 128, 256)):
        raise ValueError(f"dim must be one of {', '.join(map(str, allowed))}, got {dim}")
    before = logging.root.level, [*logging.root.handlers]
    package = _package("wordllama", "text")
    logging.root.handlers[:] = before[1]  # the package sets up logging for everybody
    logging.root.setLevel(before[0])
    # the package looks for its tokenizer in a folder of another name than the one it comes with
    inside = Path(package.__file__).parent
    model = package.WordLlama.load(cache_dir=inside, trunc_dim=dim, disable_download=True)
    return f"wordllama l2_supercat {dim}", partial(model.embed, norm=False)


def _sentences(model: str) -> Encode:
    package = _package("sentence_transformers", "sentences")
    return partial(package.SentenceTransformer(model).encode, show_progress_bar=False)


def _images(model: str) -> Encode:
    """Pooled features of a pretrained network, its classifier left out."""
    timm, torch, pillow = (_package(name, "image") for name in ("timm", "torch", "PIL.Image"))
    network = timm.create_model(model, pretrained=True, num_classes=0).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(network))

    def encode(paths: Sequence[Path]) -> np.ndarray:
        pictures = [prepare(pillow.open(path).convert("RGB")) for path in paths]
        with torch.inference_mode():
            return network(torch.stack(pictures)).numpy()

    return encode


def _librosa() -> tuple[str, Encode]:
    librosa = _package("librosa", "audio")

    def encode(paths: Sequence[Path]) -> np.ndarray:
        return np.stack([_sound(librosa, path) for path in paths])

    return f"librosa {librosa.__version__}", encode


def _sound(librosa: ModuleType, path: Path) -> Float[np.ndarray, " numbers"]:
    wave, rate = librosa.load(path, sr=22_050, mono=True)
    feature = librosa.feature
    tables = (
        feature.mfcc(y=wave, sr=rate, n_mfcc=_COEFFICIENTS),
        feature.chroma_stft(y=wave, sr=rate),
        feature.spectral_contrast(y=wave, sr=rate),
    )
    moments = [moment(table, axis=1) for table in tables for moment in (np.mean, np.std)]
    return np.concatenate(moments)
