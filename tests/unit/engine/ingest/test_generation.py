"""The stages of an ingest without Ray: what is packed and what is left out, and the same bytes after any crash."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.aged import age
from support.dying import Killed
from support.fan_out import InProcess

from ray_ns.corpora import pack
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine import leftovers
from ray_ns.engine.ingest import generation, opening
from ray_ns.engine.ingest.generation import left_out
from ray_ns.engine.ingest.settings import Ingest
from ray_ns.errors import InputError
from ray_ns.store.commit import Commit, find_commit
from ray_ns.store.objects import LocalStore, ObjectStore
from ray_ns.store.status import read_status
from ray_ns.store.verify import verify


@pytest.fixture
def noise(encode: Callable[..., bytes]) -> Callable[[int], bytes]:
    """A picture that nothing else is like."""
    return lambda seed: encode(np.random.default_rng(seed).integers(0, 256, (40, 40, 3)).astype(np.uint8))


@pytest.fixture
def source(tmp_path: Path, noise: Callable[[int], bytes]) -> Path:
    """Three shards of eight: 0 and 1 again in the third, one empty, one cut in half, labels 0 .. 23."""
    images: list[bytes | None] = [noise(seed) for seed in range(24)]
    images[16], images[18] = images[0], images[1]
    images[5] = None
    images[6] = noise(6)[:900]
    return write(tmp_path / "source", images)


def write(folder: Path, images: list[bytes | None], first: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for at in range(0, len(images), 8):
        columns = {
            "image": pa.array(images[at : at + 8], pa.binary()),
            "label": pa.array(range(len(images))[at : at + 8]),
        }
        pq.write_table(pa.table(columns), folder / f"{first + at:05d}.parquet", row_group_size=4)
    return folder


def run(source: Path, destination: Path, append: bool = False, **more: Any) -> list[Commit]:
    asked = {"shard_rows": 8, "max_quarantined": 0.1, **more}
    return opening.ingest(Ingest(str(source), str(destination), **asked), append, "plain", InProcess)


def rows(destination: Path) -> list[tuple[str, int]]:
    """Source and label of all that a reader of the packed corpus meets."""
    corpus = Corpus.scan(str(destination), "image", "label")
    tables = [pq.read_table(destination / shard.path) for shard in corpus.shards]
    table = pa.concat_tables(tables)
    return list(zip(*(table[name].to_pylist() for name in ("source", "label")), strict=True))


def duplicates(destination: Path, generation: int) -> int:
    """How many the second stage found."""
    commit = find_commit(LocalStore(destination), f"duplicates-{generation:04d}")
    assert commit is not None
    return commit.summary["duplicates"]


def files(folder: Path) -> dict[str, bytes]:
    """Everything but who drove and how long it took."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        k: v.read_bytes()
        for k, v in found.items()
        if not (k.startswith(("driver/", "events")) or "timing" in k or k.endswith("README.md"))
    }


def test_each_image_is_packed_once_in_order_or_listed_with_the_reason(source: Path, tmp_path: Path) -> None:
    (commit,) = run(source, tmp_path / "out")
    assert [label for _, label in rows(tmp_path / "out")] == [it for it in range(24) if it not in (5, 6, 16, 18)]
    assert rows(tmp_path / "out")[0] == ("00000.parquet row 0", 0)
    assert commit.summary["quarantine"] == {"empty": 1, "truncated": 1}
    assert {name: commit.summary[name] for name in ("read", "images", "duplicates", "leaks")} == {
        "read": 24,
        "images": 20,
        "duplicates": 2,
        "leaks": 0,
    }
    lines = list(left_out(LocalStore(tmp_path / "out"), [commit]))
    assert [(it["source"], it["why"]) for it in lines] == [
        ("00000.parquet row 5", "empty"),
        ("00000.parquet row 6", "truncated"),
        ("00016.parquet row 0", "duplicate"),
        ("00016.parquet row 2", "duplicate"),
    ]
    assert lines[3]["of"] == "00000.parquet row 1"


def test_images_keep_their_bytes_and_carry_their_hash(
    source: Path, tmp_path: Path, noise: Callable[..., bytes]
) -> None:
    import hashlib

    run(source, tmp_path / "out")
    corpus = Corpus.scan(str(tmp_path / "out"), "image", None)
    table = pq.read_table(tmp_path / "out" / corpus.shards[0].path)
    assert table["image"][1].as_py() == noise(1)
    assert table["sha256"][1].as_py() == hashlib.sha256(noise(1)).digest()


def test_ranges_of_hashes_merged_apart_find_the_same_duplicates(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, tmp_path / "one")
    monkeypatch.setattr(generation, "RANGE_ROWS", 3)
    run(source, tmp_path / "many")
    assert len(list((tmp_path / "many/duplicates-0001/done").iterdir())) == 8
    assert rows(tmp_path / "many") == rows(tmp_path / "one")
    assert duplicates(tmp_path / "many", 1) == duplicates(tmp_path / "one", 1) == 2


def test_copies_of_kept_out_images_are_left_out_and_listed(
    source: Path, tmp_path: Path, noise: Callable[..., bytes]
) -> None:
    write(tmp_path / "test", [noise(100), noise(9), None, noise(20)])
    (commit,) = run(source, tmp_path / "out", keep_out=(str(tmp_path / "test"),))
    assert commit.summary["leaks"] == 2
    assert commit.summary["keep_out"]["images"] == 3
    assert commit.summary["keep_out"]["unreadable"] == 1
    lines = [it for it in left_out(LocalStore(tmp_path / "out"), [commit]) if it["why"] == "leak"]
    assert [(it["source"], it["of"], it["corpus"]) for it in lines] == [
        ("00008.parquet row 1", "00000.parquet row 1", "keep_out_0"),
        ("00016.parquet row 4", "00000.parquet row 3", "keep_out_0"),
    ]
    assert lines[0]["distance"] < 0.01


def test_larger_images_are_shrunk_once(source: Path, tmp_path: Path) -> None:
    (commit,) = run(source, tmp_path / "out", size=16)
    corpus = Corpus.scan(str(tmp_path / "out"), "image", None)
    table = pq.read_table(tmp_path / "out" / corpus.shards[0].path)
    assert all(it.as_py().startswith(b"\xff\xd8\xff") for it in table["image"])
    assert commit.summary["bytes"] < 20 * 1500


def test_too_many_bad_images_commit_nothing_and_say_why(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 of 24 .*empty 1, truncated 1.*--max-quarantined = 0.01"):
        run(source, tmp_path / "out", max_quarantined=0.01)
    with pytest.raises(InputError, match="not finished"):
        Corpus.scan(str(tmp_path / "out"), "image", None)
    (commit,) = run(source, tmp_path / "out")
    assert commit.summary["images"] == 20


def test_append_packs_what_is_new_and_leaves_old_shards_as_they_are(
    source: Path, tmp_path: Path, noise: Callable[..., bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(source, out)
    before, first = files(out), rows(out)
    write(source, [noise(30), noise(2), noise(31), noise(30)], first=100)
    capsys.readouterr()
    assert len(run(source, out)) == 1
    assert f"{source}: new shards left out: 1; --append takes them in." in capsys.readouterr().err
    assert files(out) == before
    _, second = run(source, out, append=True)
    assert {name: data for name, data in files(out).items() if name in before} == before
    assert rows(out)[: len(first)] == first
    assert [name for name, _ in rows(out)[len(first) :]] == ["00100.parquet row 0", "00100.parquet row 2"]
    assert second.summary["duplicates"] == duplicates(out, 2) == 2
    lines = list(left_out(LocalStore(out), [second]))
    assert [it["of"] for it in lines] == ["00000.parquet row 2", "00100.parquet row 0"]


def test_append_by_a_newer_version_and_with_more_to_keep_out_leaves_what_there_is(
    source: Path, tmp_path: Path, noise: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = write(tmp_path / "test", [noise(9)])
    (first,) = run(source, tmp_path / "out", keep_out=(str(kept),))
    write(kept, [noise(20)], first=8)
    write(source, [noise(30), noise(9)], first=100)
    monkeypatch.setattr(pack, "VERSION", "pack-2")
    commits = run(source, tmp_path / "out", append=True, keep_out=(str(kept),))
    assert commits[0] == first
    assert [commit.summary["keep_out"]["images"] for commit in commits] == [1, 1]
    assert commits[1].summary["duplicates"] == 1


def test_a_finished_ingest_run_again_writes_nothing(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    stats = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    run(source, tmp_path / "out", append=True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == stats


def test_killed_before_any_of_its_writes_it_ends_with_the_same_bytes(
    tmp_path: Path, noise: Callable[..., bytes], dying: Callable[..., list[str]]
) -> None:
    source = write(tmp_path / "source", [noise(seed % 11) for seed in range(12)])
    written = dying(None)
    run(source, tmp_path / "whole")
    writes, whole = len(written), files(tmp_path / "whole")
    assert writes == 27
    removed: list[str] = []
    for at in range(writes):
        out = tmp_path / f"killed-{at}"
        dying(at)
        with pytest.raises(Killed):
            run(source, out)
        dying(None)
        if at % 3 == 0 and (out / "run.json").exists():  # and days later cleared of what the kill left
            age(out)
            removed += [it.key for it in leftovers.remove(str(out), "plain").old]
            assert {fault for _, fault in verify(LocalStore(out))} == {None}
        run(source, out)
        assert files(out) == whole, f"killed before write {at}"
    assert any("/data/" in it for it in removed)


@pytest.mark.parametrize("change", [{"size": 16}, {"shard_rows": 9}, {"keep_out": ("kept",)}])
def test_other_settings_on_the_same_destination_are_refused(
    source: Path, tmp_path: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(source, "kept")
    run(source, tmp_path / "out")
    with pytest.raises(InputError, match="belongs to another config"):
        run(source, tmp_path / "out", **change)


def test_a_destination_of_its_own_is_asked_for(source: Path, tmp_path: Path) -> None:
    for one, other in ((str(source), f"{source}/out"), ("s3://b/pool", "s3://b/pool"), ("s3://b", "s3://b/out")):
        with pytest.raises(InputError, match="one is inside the other"):
            opening._check_places(Ingest(one, other), cast(ObjectStore, SimpleNamespace(url=other)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        run(source, tmp_path / "full")


def test_class_folders_are_packed_with_the_numbers_and_the_names_of_their_classes(
    tmp_path: Path, noise: Callable[[int], bytes]
) -> None:
    for number, name in enumerate(("cat", "dog", "cat")):
        (tmp_path / "source" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name / f"{number}.png").write_bytes(noise(number))
    run(tmp_path / "source", tmp_path / "out")
    packed = Corpus.scan(str(tmp_path / "out"), "image", "label")
    assert packed.class_names() == ("cat", "dog")
    assert rows(tmp_path / "out") == [("cat/0.png", 0), ("cat/2.png", 0), ("dog/1.png", 1)]
    run(tmp_path / "out", tmp_path / "again")
    assert Corpus.scan(str(tmp_path / "again"), "image", "label").class_names() == ("cat", "dog")
    run(tmp_path / "source", tmp_path / "bare", labels=False)
    with pytest.raises(InputError, match="no column 'label'"):
        Corpus.scan(str(tmp_path / "bare"), "image", "label")


def test_labels_that_are_wrong_are_not_left_behind_in_silence(tmp_path: Path, noise: Callable[[int], bytes]) -> None:
    for number, label in enumerate((0, "cat")):
        (tmp_path / "source").mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": [noise(number)], "label": [label]}), tmp_path / f"source/{number}.parquet")
    with pytest.raises(InputError, match=r"1\.parquet: column 'label' is of names; .* without labels: --no-labels"):
        run(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out/run.json").exists()
    run(tmp_path / "source", tmp_path / "out", labels=False)
    packed = Corpus.scan(str(tmp_path / "out"), "image", None)
    assert [len(packed.open(shard).images(0)) for shard in packed.shards] == [2]


def test_status_and_verify_know_an_ingest(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    store = LocalStore(tmp_path / "out")
    assert read_status(store.url, [])["driver"] == "finished"
    assert {fault for _, fault in verify(store)} == {None}
    (shard,) = (tmp_path / "out").glob("ingest-0001/data/000001*/images.parquet")
    shard.write_bytes(shard.read_bytes().replace(b"IHDR", b"IHDX", 1))
    assert [key for key, fault in verify(store) if fault] == [shard.relative_to(tmp_path / "out").as_posix()]
