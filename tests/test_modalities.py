"""Vectors of items: what a file must say, what is missing, and what is read back."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import safetensors.numpy

from interestkit.files import sha256_of
from interestkit.modalities import Modality, fitted, read_vectors, write_vectors

ITEMS = pl.Series("item", ["a", "b", "c"])


def modality(**given):
    own = {"name": "image", "items": ["b", "a"], "vectors": [[3, 4], [0, 2]], "encoder": "by hand"}
    return Modality(**(own | given))


def test_items_without_a_vector_have_zeros():
    np.testing.assert_array_equal(modality().of(ITEMS).vectors, [[0, 2], [3, 4], [0, 0]])
    assert modality().of(ITEMS).is_there.tolist() == [True, True, False]
    assert not modality().absent().is_there.any()


def test_vectors_are_centred_on_what_is_there_and_of_length_one():
    (own,) = fitted([modality()], ITEMS)
    # units (0, 1) and (0.6, 0.8) have the mean (0.3, 0.9); left are (-0.3, 0.1) and (0.3, -0.1)
    np.testing.assert_allclose(own.centre, [0.3, 0.9], rtol=1e-6)
    row = np.array([3, -1]) / np.sqrt(10)
    np.testing.assert_allclose(own.vectors, [-row, row, [0, 0]], rtol=1e-5)
    new = modality(items=["z"], vectors=[[3, 4]]).centred(own.centre)
    np.testing.assert_allclose(new.vectors, [row], rtol=1e-5)


@pytest.mark.parametrize("ending", [".parquet", ".safetensors"])
def test_what_is_written_is_read_back(tmp_path, ending):
    path = write_vectors(modality(), tmp_path / f"v{ending}")
    own = read_vectors(path)
    assert (own.name, own.encoder, own.items.to_list()) == ("image", "by hand", ["b", "a"])
    np.testing.assert_array_equal(own.vectors, [[3, 4], [0, 2]])
    assert read_vectors(path, name="poster").name == "poster"


def test_two_files_of_one_name_do_not_take_each_others_manifest(tmp_path):
    path = write_vectors(modality(), tmp_path / "v.parquet")
    with pytest.raises(ValueError, match=r"v\.safetensors: shares its manifest with v\.parquet"):
        write_vectors(modality(), tmp_path / "v.safetensors")
    write_vectors(modality(), path)  # again is no other name
    assert read_vectors(path).items.to_list() == ["b", "a"]
    assert not (tmp_path / "v.safetensors").exists()


@pytest.mark.parametrize("ending", [".parquet", ".safetensors"])
def test_a_changed_file_is_an_error_that_names_it(tmp_path, ending):
    path = write_vectors(modality(), tmp_path / f"v{ending}")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match=rf"v{ending}: the file is damaged; its sha256 must be"):
        read_vectors(path)


def test_a_manifest_must_be_there_and_say_what_is_there(tmp_path):
    path = write_vectors(modality(), tmp_path / "v.safetensors")
    manifest = tmp_path / "v.manifest.json"
    says = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(says | {"dimension": 3}))
    with pytest.raises(ValueError, match=r"must hold 2 x 3 floating-point numbers"):
        read_vectors(path)
    manifest.write_text(json.dumps(says | {"dimension": "2"}))
    with pytest.raises(ValueError, match=r"v.manifest.json: .* dimension must be int, got '2'"):
        read_vectors(path)
    manifest.unlink()
    with pytest.raises(ValueError, match=r"v.manifest.json: is missing"):
        read_vectors(path)


def parquet_of(folder, items, vectors, dimension=2):
    """A file that somebody else wrote, and its manifest."""
    path = folder / "own.parquet"
    pl.DataFrame({"item": items, "vector": vectors}).write_parquet(path)
    says = {"encoder": "theirs", "dimension": dimension, "sha256": sha256_of(path)}
    (folder / "own.manifest.json").write_text(json.dumps(says))
    return path


@pytest.mark.parametrize(
    ("items", "vectors", "message"),
    [
        (["a", "b"], [[1.0, 2.0], [1.0]], r"data row 2, column 'vector': must be 2 .* got 1"),
        (["a", "b"], [[1.0, None], [1.0, 2.0]], r"data row 1, column 'vector'.* got 1"),
        (["a", "b"], [[1.0, 2.0], None], r"data row 2, column 'vector'.* got 0"),
        (["a", "b"], [[1.0, 2.0], [1.0, float("nan")]], r"data row 2: .*finite.*item 'b'"),
        (["a", "a"], [[1.0, 2.0]] * 2, r"data row 2: .*each once, got item 'a'"),
        ([None, "a"], [[1.0, 2.0]] * 2, r"data row 1: .* got item None"),
        ([1, 2], [[1.0, 2.0]] * 2, r"must have text items and vectors of numbers"),
        (["a", "b"], ["x", "y"], r"must have text items and vectors of numbers"),
    ],
)
def test_a_wrong_vector_is_an_error_that_names_file_and_row(tmp_path, items, vectors, message):
    with pytest.raises(ValueError, match=rf"own.parquet.*{message}"):
        read_vectors(parquet_of(tmp_path, items, vectors))


def test_whole_numbers_are_vectors_too_and_the_file_names_the_modality(tmp_path):
    own = read_vectors(parquet_of(tmp_path, ["a"], [[1, 2]]))
    assert (own.name, own.encoder) == ("own", "theirs")
    np.testing.assert_array_equal(own.vectors, [[1, 2]])


def test_tensors_of_others_are_an_error(tmp_path):
    path = tmp_path / "own.safetensors"
    vectors = np.zeros((1, 2), np.float32)
    for tensors, items in (
        ({"x": vectors}, None),
        ({"vectors": vectors}, {"items": "[" * 200_000}),
    ):
        safetensors.numpy.save_file(tensors, path, items)
        says = {"encoder": "theirs", "dimension": 2, "sha256": sha256_of(path)}
        (tmp_path / "own.manifest.json").write_text(json.dumps(says))
        with pytest.raises(
            ValueError, match="must hold a tensor 'vectors' and a JSON list 'items'"
        ):
            read_vectors(path)


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"must end in .parquet or .safetensors, got '.npy'"):
        read_vectors(tmp_path / "x.npy")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_vectors(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "an image"}, "name must have letters"),
        ({"vectors": [[1.0, 2.0]]}, "one vector for each of the 2 items"),
        ({"vectors": [1.0, 2.0]}, "one vector for each of the 2 items"),
    ],
)
def test_modalities_must_fit_their_items(given, message):
    with pytest.raises(ValueError, match=message):
        modality(**given)


def test_modalities_of_a_catalogue_have_names_of_their_own_and_something_to_say():
    with pytest.raises(ValueError, match=r"names of their own, got \['image'\] twice"):
        fitted([modality(), modality()], ITEMS)
    with pytest.raises(ValueError, match="'image' must have vectors of items of the catalogue"):
        fitted([replace(modality(), items=["x", "y"])], ITEMS)
