"""What is encrypted needs the key, shows nothing, and cannot be changed unseen."""

import json
import shutil
from dataclasses import replace
from typing import ClassVar

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption as pe

import interestkit as ik
from interestkit.files import sha256_of, with_digest
from interestkit.prediction import Predictor
from interestkit.preparing import prepare
from interestkit.privacy.encryption import FileKeys, read_log, sealed, write_log
from interestkit.privacy.pseudonyms import new_key
from interestkit.shards import write_shards
from interestkit.simulation import simulate
from interestkit.storage import load_folder, save_folder

TABLE = pl.DataFrame({"user": ["somebody-secret"] * 50, "interests": [["a", "b"]] * 50})
OTHER_KEY = "cannot be decrypted: the key is not the one"


@pytest.fixture
def keys(tmp_path):
    (tmp_path / "keys").mkdir()
    return FileKeys(new_key(tmp_path / "keys" / "one"))


@pytest.fixture
def other_keys(tmp_path):
    (tmp_path / "others").mkdir()
    return FileKeys(new_key(tmp_path / "others" / "two"))


@pytest.fixture(scope="module")
def log():
    return replace(simulate(num_users=20, num_bots=0, seed=1), name="named", note="noted")


def save(folder, keys, k=10):
    with sealed(keys):
        arrays = {"weights": np.arange(1000.0)}
        return save_folder(
            folder, kind="demo", tables={"t": TABLE}, arrays=arrays, meta={"k": k, "who": "secret"}
        )


def load(folder, keys, kind="demo"):
    with sealed(keys):
        return load_folder(folder, kind=kind)


def test_an_encrypted_log_comes_back(log, tmp_path, keys):
    back = read_log(write_log(log, tmp_path / "log", keys), keys)
    assert back.events.equals(log.events)
    assert back.events.schema == log.events.schema
    assert back.items.equals(log.items)
    assert (back.name, back.note) == ("named", "noted")


def test_an_encrypted_log_shows_neither_names_nor_columns(log, tmp_path, keys):
    folder = write_log(log, tmp_path / "log", keys)
    assert sorted(path.name for path in folder.iterdir()) == ["events.parquet", "items.parquet"]
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    for word in (b"u00001", b"i00001", b"user", b"interests", b"named"):
        assert word not in content
    with pytest.raises(OSError, match="encrypted"):
        pq.read_table(folder / "events.parquet")


def test_an_encrypted_log_needs_its_key_and_tells_of_changes(log, tmp_path, keys, other_keys):
    folder = write_log(log, tmp_path / "log", keys)
    with pytest.raises(ValueError, match=f"events.parquet: {OTHER_KEY}"):
        read_log(folder, other_keys)
    path = folder / "items.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"items.parquet: {OTHER_KEY}"):
        read_log(folder, keys)
    log.items.write_parquet(path)
    with pytest.raises(ValueError, match=r"items\.parquet: must be an encrypted Parquet file"):
        read_log(folder, keys)


def test_other_tools_read_the_log_with_any_client_of_the_key_service(log, tmp_path):
    class Service(pe.KmsClient):
        """A service that keeps wrapped keys itself, and knows one master key."""

        kept: ClassVar[list[bytes]] = []

        def wrap_key(self, key_bytes, master_key_identifier):
            assert master_key_identifier == "ours"
            self.kept.append(bytes(key_bytes))
            return str(len(self.kept) - 1)

        def unwrap_key(self, wrapped_key, master_key_identifier):
            assert master_key_identifier == "ours"
            return self.kept[int(wrapped_key)]

    folder = write_log(log, tmp_path / "log", Service(), master_key="ours")
    factory = pe.CryptoFactory(lambda _: Service())
    how = factory.file_decryption_properties(pe.KmsConnectionConfig())
    table = pq.read_table(folder / "events.parquet", decryption_properties=how)
    assert table.num_rows == log.num_events
    with sealed(Service(), master_key="ours"):
        saved = save_folder(tmp_path / "a", kind="demo", meta={"k": 1})
    assert load(saved, Service()).meta == {"k": 1}  # the folder knows the name of its key


def test_a_sealed_folder_comes_back(tmp_path, keys):
    stored = load(save(tmp_path / "a", keys), keys)
    assert stored.tables["t"].equals(TABLE)
    np.testing.assert_array_equal(stored.arrays["weights"], np.arange(1000.0))
    assert stored.meta == {"k": 10, "who": "secret"}


def test_a_sealed_folder_shows_kind_and_file_names_alone(tmp_path, keys):
    folder = save(tmp_path / "a", keys)
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    for word in (b"secret", b"interests", b"weights", b"PAR1", b"PK\x03\x04"):
        assert word not in content
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["kind"], manifest["meta"]) == ("demo", {})
    assert set(manifest["sealed"]) == {"master_key", "key", "meta"}
    assert list(tmp_path.glob(".*")) == []


def test_nothing_is_written_before_it_is_encrypted(tmp_path, keys, monkeypatch):
    written = []

    def spy(self, *_, **__):
        written.append(self)
        raise AssertionError("a table went to the disk")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", _to_memory_only(spy))
    save(tmp_path / "a", keys)
    with pytest.raises(AssertionError):
        save_folder(tmp_path / "b", kind="demo", tables={"t": TABLE})
    assert len(written) == 1


def _to_memory_only(spy):
    real = pl.DataFrame.write_parquet

    def write(self, to, **options):
        return spy(self) if not hasattr(to, "getvalue") else real(self, to, **options)

    return write


def test_a_sealed_folder_needs_its_key(tmp_path, keys, other_keys):
    folder = save(tmp_path / "a", keys)
    with pytest.raises(ValueError, match=f"a: {OTHER_KEY}"):
        load(folder, other_keys)
    with pytest.raises(ValueError, match="a: is encrypted; read it inside"):
        load_folder(folder, kind="demo")
    assert (folder / "manifest.json").is_file()


def rewrite(folder, change):
    """Change the manifest as somebody would who can write there, checksums too."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    del manifest["sha256"]
    (folder / "manifest.json").write_bytes(with_digest(manifest))


def test_files_cannot_be_changed_swapped_dropped_or_taken_from_another_save(tmp_path, keys):
    def attacked(change):
        folder = tmp_path / "b"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(save(tmp_path / "a", keys), folder)
        change(folder)
        with pytest.raises(ValueError, match=OTHER_KEY):
            load(folder, keys, kind=json.loads((folder / "manifest.json").read_text())["kind"])

    def flip(folder):
        content = bytearray((folder / "t.parquet").read_bytes())
        content[20] ^= 1
        (folder / "t.parquet").write_bytes(content)
        files = {"t.parquet": sha256_of(folder / "t.parquet")}
        rewrite(folder, lambda manifest: manifest["files"].update(files))

    def from_another_save(folder):
        other = save(tmp_path / "c", keys, k=11)
        theirs = json.loads((other / "manifest.json").read_text())
        shutil.copy(other / "t.parquet", folder)
        name = {"t.parquet": theirs["files"]["t.parquet"]}
        rewrite(folder, lambda manifest: manifest["files"].update(name))

    attacked(flip)
    attacked(from_another_save)
    attacked(lambda folder: rewrite(folder, lambda manifest: manifest["files"].pop("t.parquet")))
    attacked(lambda folder: rewrite(folder, lambda manifest: manifest.update(kind="other")))
    attacked(lambda folder: rewrite(folder, lambda manifest: manifest["sealed"].pop("key")))


def test_each_save_has_a_key_and_nonces_of_its_own(tmp_path, keys):
    one, two = save(tmp_path / "a", keys), save(tmp_path / "b", keys)
    for name in ("t.parquet", "arrays.safetensors"):
        assert (one / name).read_bytes()[:12] != (two / name).read_bytes()[:12]
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (one, two)]
    assert manifests[0]["sealed"]["key"] != manifests[1]["sealed"]["key"]


def test_outside_of_the_block_folders_are_plain_again(tmp_path, keys):
    save(tmp_path / "a", keys)
    folder = save_folder(tmp_path / "b", kind="demo", meta={"k": 1})
    assert "sealed" not in json.loads((folder / "manifest.json").read_text())
    with pytest.raises(ValueError, match="b: is not encrypted; read it outside `sealed`"):
        load(folder, keys)  # anybody could have put it there


def test_a_model_and_a_checkpoint_are_sealed_and_training_goes_on(study, tmp_path, keys):
    with sealed(keys):
        folder = study.predictor.save(tmp_path / "model")
        back = Predictor.load(folder)
        state = {"checkpoint": tmp_path / "state"}
        study.fit_again(study.features, study.histories, **state, stop_after=2)
        result = study.fit_again(study.features, study.histories, **state)
    codes, other = (p.rank(study.test.histories)[0] for p in (study.predictor, back))
    np.testing.assert_array_equal(codes, other)
    plain = study.fit_again(study.features, study.histories)
    assert result.curve["loss_new"].equals(plain.curve["loss_new"])
    arrays = list((tmp_path / "state").rglob("arrays.safetensors"))
    assert arrays
    assert all(b'"dtype"' not in path.read_bytes() for path in arrays)
    with pytest.raises(ValueError, match="is encrypted"):
        Predictor.load(folder)


def test_a_wrapped_key_is_bound_to_the_name_of_its_master_key(keys):
    wrapped = keys.wrap_key(b"0123456789abcdef", "mine")
    assert keys.unwrap_key(wrapped, "mine") == b"0123456789abcdef"
    from cryptography.exceptions import InvalidTag

    with pytest.raises(InvalidTag):
        keys.unwrap_key(wrapped, "yours")


def test_without_cryptography_the_error_says_what_to_install(keys, monkeypatch):
    monkeypatch.setitem(
        __import__("sys").modules, "cryptography.hazmat.primitives.ciphers.aead", None
    )
    with (
        pytest.raises(ModuleNotFoundError, match=r"pip install 'interestkit\[privacy\]'"),
        sealed(keys),
    ):
        pass


def test_events_and_items_of_two_logs_are_not_taken_for_one(log, tmp_path, keys):
    one, other = (write_log(log, tmp_path / name, keys) for name in ("one", "other"))
    shutil.copy(other / "items.parquet", one / "items.parquet")
    with pytest.raises(ValueError, match="events and items must be of one log, got two"):
        read_log(one, keys)


def test_what_cannot_be_encrypted_is_not_written_where_all_should_be(log, study, tmp_path, keys):
    rankers = {"popular": ik.Popular(features=study.features, log=study.histories)}
    evaluation = ik.evaluate(rankers, study.test, study.features, k=3, progress=False)
    with sealed(keys):
        for write in (write_shards, prepare):
            with pytest.raises(ValueError, match="cannot be encrypted: write them outside"):
                write(log.events, tmp_path / "plain", num_shards=2)
        with pytest.raises(ValueError, match="evaluations cannot be encrypted"):
            evaluation.save(tmp_path, data="d", split="s")
    assert not list(tmp_path.glob("*.parquet")) + list(tmp_path.glob("plain"))


def test_keys_that_are_none_are_one_error(log, tmp_path):
    wrong = r"keys must be FileKeys\(path\) or another KmsClient of PyArrow, got NoneType"
    for use in (lambda: write_log(log, tmp_path, None), lambda: read_log(tmp_path, None)):
        with pytest.raises(ValueError, match=wrong):
            use()
    with pytest.raises(ValueError, match=wrong), sealed(None):
        pass
