"""Which labels of a run are asked for, and where its pool is found."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.in_process import Call
from support.labelled import Truth, commit_labels, free, labelled_run
from support.shards import write_as

from ray_ns.corpora.corpus import Corpus
from ray_ns.errors import InputError
from ray_ns.export import runs
from ray_ns.observe import Reporter
from ray_ns.store import hints, layout
from ray_ns.store.commit import Commit, Output, ensure
from ray_ns.store.objects import LocalStore

Made = tuple[LocalStore, Truth, Corpus]


@pytest.fixture
def made(tmp_path: Path, pictures: Callable[..., list[bytes]]) -> Made:
    """A run of one round, and what it was made of."""
    pool = write_as("folder", tmp_path / "pool", pictures(12))
    return (*labelled_run(tmp_path / "run", pool), pool)


def commit(store: LocalStore, place: str, objects: Mapping[str, bytes], **inputs: Any) -> Commit:
    def work(output: Output) -> tuple[dict[str, Any], int]:
        output.publish(0, objects, {})
        return {}, 1

    return ensure(store, place, inputs, work, free)


def end(store: LocalStore, best: str) -> None:
    """The report that names the network at ``best``."""
    report = {"best": best.rpartition("/")[0], "best_model": f"{best}/data/000000-0"}
    commit(store, "report", {"report.json": json.dumps(report).encode()})


def asked(store: LocalStore, number: int | None = None, best: bool = False) -> tuple[str, int]:
    return runs.labels_of(store, number, best, Reporter("json"))


def test_the_last_round_that_labelled_the_whole_pool(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    store, truth, _ = made
    assert asked(store) == ("rounds/1/label", 1)
    commit_labels(store, "rounds/2/label", truth)
    assert asked(store) == ("rounds/2/label", 1)
    assert asked(store, 1) == ("rounds/1/label", 1)
    commit_labels(store, "rounds/3/label", truth, inputs={"only": "some selection"})
    assert asked(store) == ("rounds/2/label", 1), "the third labelled some images only"
    assert capsys.readouterr().err == ""
    assert asked(store, 3) == ("rounds/3/label", 1)
    assert "round 3 labelled only the images that the first selection chose" in capsys.readouterr().err
    with pytest.raises(InputError, match="round 4 has no labels"):
        asked(store, 4)


def test_a_round_that_took_the_labels_of_the_one_before_hides_no_later_ones(made: Made) -> None:
    store, truth, _ = made
    commit_labels(store, "rounds/3/label", truth)
    assert asked(store) == ("rounds/3/label", 1)
    assert asked(store, 1) == ("rounds/1/label", 1)
    with pytest.raises(InputError, match="round 2 has no labels"):
        asked(store, 2)


def test_of_a_grown_pool_that_is_not_labelled_yet_those_of_before_with_a_warning(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    store, truth, pool = made
    layout.grow(store, {"pool": [vars(it) for it in pool.shards]}, 2, free)
    assert asked(store) == ("rounds/1/label", 1)
    assert "as it has grown is not labelled yet" in capsys.readouterr().err
    commit_labels(store, "pool-2/rounds/1/label", truth)
    assert asked(store) == ("pool-2/rounds/1/label", 2)


@pytest.mark.parametrize("last", ["train", "finetune"])
def test_the_labels_of_the_best_network_wherever_they_are(
    made: Made, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store, truth, _ = made
    for number in (1, 2):
        network = commit(store, f"rounds/{number}/train", {"model.safetensors": bytes([number])}, round=number)
        if last == "finetune":
            network = commit(store, f"rounds/{number}/finetune", {"model.safetensors": b"f"}, network=network.digest)
        commit_labels(store, f"rounds/{number + 1}/label", truth, inputs={"teacher": network.digest})
    end(store, f"rounds/1/{last}")
    assert asked(store, best=True) == ("rounds/2/label", 1)
    assert "the best network is that of rounds/1; it labelled the pool in round 2" in capsys.readouterr().err


def test_a_best_network_that_labelled_nothing_is_refused_with_the_command_that_lets_it(made: Made) -> None:
    store, _, pool = made
    commit(store, "rounds/1/train", {"model.safetensors": b"w"})
    end(store, "rounds/1/train")
    with pytest.raises(InputError) as refused:
        asked(store, best=True)
    assert str(refused.value).endswith(f"ray-ns predict {store.url} {pool.root} -o FILE.csv")


def test_a_prediction_has_one_set_of_labels_and_a_packed_corpus_none(made: Made, tmp_path: Path) -> None:
    _, truth, pool = made
    predicted, packed = LocalStore(tmp_path / "predicted"), LocalStore(tmp_path / "packed")
    seen = {"pool": [vars(it) for it in pool.shards]}
    layout.begin(predicted, {"predict": {}}, seen, free, layout.Classes(3))
    commit_labels(predicted, "label", truth)
    assert asked(predicted) == ("label", 1)
    with pytest.raises(InputError, match="is a prediction"):
        asked(predicted, best=True)
    layout.begin(packed, {"ingest": {}}, {"source": []}, free, None)
    with pytest.raises(InputError, match="is a packed corpus"):
        asked(packed)


def test_the_pool_is_found_where_the_driver_had_it(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    store, _, pool = made
    reporter = Reporter("json")
    assert runs.pool_of(store, None, 1, reporter).shards == pool.shards
    (Path(pool.root) / "later.png").write_bytes(b"x")
    assert runs.pool_of(store, None, 1, reporter).shards == pool.shards
    assert "1 new shards have no labels and are left out" in capsys.readouterr().err
    store.delete(layout.PLACES)
    with pytest.raises(InputError, match="it is not known where its pool lies"):
        runs.pool_of(store, None, 1, reporter)
    assert runs.pool_of(store, pool.root, 1, reporter).shards == pool.shards


def test_a_pool_of_other_files_is_refused_by_name(made: Made) -> None:
    store, _, pool = made
    first = Path(pool.root) / "00003.png"
    data = first.read_bytes()
    first.write_bytes(data + b"x")
    with pytest.raises(InputError, match=r"00003\.png has changed .* --pool PATH"):
        runs.pool_of(store, None, 1, Reporter("json"))
    first.unlink()
    with pytest.raises(InputError, match=r"00003\.png is gone"):
        runs.pool_of(store, None, 1, Reporter("json"))


@pytest.mark.parametrize("kind", ["folder", "tar", "plain"])
def test_a_pool_that_was_copied_without_its_times_is_compared_by_content(
    tmp_path: Path, pictures: Callable[..., list[bytes]], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = write_as(kind, tmp_path / "pool", pictures(12))
    store, _ = labelled_run(tmp_path / "run", pool)
    shutil.copytree(tmp_path / "pool", tmp_path / "copy", copy_function=shutil.copyfile)
    found = runs.pool_of(store, str(tmp_path / "copy"), 1, Reporter("json"))
    assert (found.shards, found.touched) == (pool.shards, ())
    assert "files have another time; their content is compared" in capsys.readouterr().err
    first = min((tmp_path / "copy").iterdir())
    data = bytearray(first.read_bytes())
    at = data.index(b"IDAT") + 20
    data[at] ^= 1
    first.write_bytes(data)
    with pytest.raises(InputError, match=rf"copy/{first.name}.* has changed \(the same size, another content\)"):
        runs.pool_of(store, str(tmp_path / "copy"), 1, Reporter("json"))


def test_the_image_column_is_the_runs(tmp_path: Path, made: Made) -> None:
    cases: dict[str, dict[str, Any]] = {
        "image": {"data": {}},
        "a": {"data": {"image_column": "a"}},
        "b": {"data": {"image_columns": {"pool": "b"}}},
        "c": {"predict": {"data": {"image_column": "c"}}},
    }
    for wanted, config in cases.items():
        store = LocalStore(tmp_path / wanted)
        layout.begin(store, config, {"pool": [vars(it) for it in made[2].shards]}, free, layout.Classes(3))
        assert runs.pool_of(store, made[2].root, 1, Reporter("json")).image_column == wanted


def test_a_damaged_hint_counts_as_none(made: Made, ray_ns: Call) -> None:
    store = made[0]
    for value in (b"{", b"[1]", b'{"pool": 7}'):
        store.put(layout.PLACES, value)
        left = ray_ns("labels", store.url, "-o", os.devnull + ".csv")
        assert left.code == 2
        assert "--pool PATH" in left.err
    hints.write(store, layout.PLACES, {"pool": made[2].root})
