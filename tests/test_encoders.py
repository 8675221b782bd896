"""Encoders: the one that runs offline, stand-ins for the large ones, and what is missing."""

import logging
import sys
import wave
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from interestkit.encoders import audio_vectors, image_vectors, text_vectors

ITEMS = pl.DataFrame(
    {
        "item": ["1", "2", "3", "4", "search:puppy"],
        "title": ["a small dog", "bond markets", None, "7", "puppy"],
    }
)


def test_wordllama_needs_no_network_and_puts_like_beside_like(monkeypatch):
    pytest.importorskip("wordllama", reason="the extra text is not installed")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    before = logging.root.level, [*logging.root.handlers]
    own = text_vectors(ITEMS, dim=64, progress=False)
    assert (logging.root.level, logging.root.handlers) == before
    assert own.items.to_list() == ["1", "2", "search:puppy"]  # nothing is known without a word
    assert (own.name, own.encoder, own.vectors.shape) == (
        "text",
        "wordllama l2_supercat 64",
        (3, 64),
    )
    unit = own.centred(np.zeros(64, np.float32)).vectors
    dog, bonds = unit[:2] @ unit[2]
    assert dog > bonds + 0.2
    with pytest.raises(ValueError, match="dim must be one of 64, 128, 256, got 100"):
        text_vectors(ITEMS, dim=100, progress=False)


def test_sentence_transformers_are_asked_for_the_model(monkeypatch):
    class Stand:
        def __init__(self, model):
            self.size = len(model)

        def encode(self, texts, *, show_progress_bar):
            assert not show_progress_bar
            return np.full((len(texts), 2), self.size)

    package = SimpleNamespace(SentenceTransformer=Stand)
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    own = text_vectors(ITEMS, encoder="sentence-transformers/abc", progress=False)
    assert own.encoder == "sentence-transformers/abc"
    np.testing.assert_array_equal(own.vectors, np.full((3, 2), 3))


def test_a_model_of_sentence_transformers_in_a_folder_gives_its_own_vectors(tmp_path):
    package = pytest.importorskip("sentence_transformers", reason="no extra sentences")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    tokenizers = pytest.importorskip("tokenizers")
    words = {"small": 0, "dog": 1, "bond": 2, "markets": 3, "puppy": 4, "[UNK]": 5}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    static = modules.StaticEmbedding(tokenizer, embedding_weights=vectors)
    package.SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path / "model"))
    own = text_vectors(
        ITEMS, encoder=f"sentence-transformers/{tmp_path / 'model'}", progress=False
    ).of(pl.Series(["search:puppy", "2", "3"]))
    np.testing.assert_allclose(own.vectors, [vectors[4], vectors[2:4].mean(axis=0), [0, 0]])


def test_timm_gives_pooled_features_of_pictures(tmp_path, monkeypatch):
    """Random weights: the ones that are trained would have to be downloaded."""
    timm = pytest.importorskip("timm", reason="the extra image is not installed")
    pillow = pytest.importorskip("PIL.Image")
    make = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *names, **o: make(*names, **o | {"pretrained": False})
    )
    paths = {}
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255)), ("red again", (255, 0, 0))):
        paths[name] = tmp_path / f"{name}.png"
        pillow.new("RGBA", (40, 30), colour).save(paths[name])
    own = image_vectors(paths, progress=False)
    assert own.encoder.startswith("timm/mobilenetv4")
    assert own.vectors.shape == (3, 1280)
    np.testing.assert_allclose(own.vectors[0], own.vectors[2], rtol=1e-4, atol=1e-5)
    assert np.abs(own.vectors[0] - own.vectors[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("module", "make", "package"),
    [
        ("sentence_transformers", lambda path: text_vectors(ITEMS, encoder=path), "sentences"),
        ("timm", lambda _: image_vectors({}), "image"),
        ("librosa", lambda _: audio_vectors({}), "audio"),
        ("wordllama", lambda _: text_vectors(ITEMS, dim=256), "text"),
    ],
)
def test_a_package_that_is_missing_is_named_with_how_to_install_it(
    monkeypatch, module, make, package
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'interestkit\[{package}\]'"):
        make("sentence-transformers/abc")


def test_unknown_encoders_and_missing_files_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"one of wordllama, sentence-transformers/MODEL, a func"):
        text_vectors(ITEMS, encoder="word2vec")
    with pytest.raises(ValueError, match=r"one of timm/MODEL, a function, got 'vgg'"):
        image_vectors({}, encoder="vgg")
    with pytest.raises(FileNotFoundError, match=r"no.png: there is no such file, for item 'a'"):
        image_vectors({"a": tmp_path / "no.png"}, encoder=np.zeros)


def test_a_function_of_ones_own_gets_the_files_in_batches(tmp_path):
    paths = {f"item {n}": tmp_path / f"{n}.txt" for n in range(300)}
    for number, path in enumerate(paths.values()):
        path.write_text(str(number))
    sizes = []

    def read(files):
        sizes.append(len(files))
        return np.array([[float(file.read_text())] for file in files])

    own = image_vectors(paths, encoder=read, progress=False)
    assert (sizes, own.items.to_list()) == ([256, 44], list(paths))
    np.testing.assert_array_equal(own.vectors[:, 0], np.arange(300))
    with pytest.raises(ValueError, match=r"a row for each of 256 image files, got shape \(2, 1\)"):
        image_vectors(paths, encoder=lambda _: np.ones((2, 1)), progress=False)


@pytest.mark.filterwarnings("ignore:.* is deprecated and slated for removal:DeprecationWarning")
def test_sounds_are_told_apart_by_their_pitch(tmp_path):
    pytest.importorskip("librosa", reason="the extra audio is not installed")
    paths = {}
    for name, pitch in (("low", 220), ("low again", 220), ("high", 1_397)):
        paths[name] = tmp_path / f"{name}.wav"
        tone = np.sin(2 * np.pi * pitch * np.arange(22_050) / 22_050)
        with wave.open(str(paths[name]), "wb") as file:
            file.setparams((1, 2, 22_050, 0, "NONE", ""))
            file.writeframes((tone * 20_000).astype("<i2").tobytes())
    own = audio_vectors(paths, progress=False)
    assert own.vectors.shape == (3, 2 * (20 + 12 + 7))
    np.testing.assert_array_equal(own.vectors[0], own.vectors[1])
    chroma = own.vectors[:, 40:52].argmax(axis=1)
    assert chroma.tolist() == [9, 9, 5]  # an A, and an F
