"""The same weights give the same label bits, however the work was spread."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import hazards
from support.tiny_run import write_tiny

from ray_ns.artifacts.labels import LABELS, XXH3
from ray_ns.artifacts.network import Network
from ray_ns.config.read import load
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine import preflight
from ray_ns.engine.predict import predict
from ray_ns.engine.run import Run
from ray_ns.engine.stages.digests import known_images
from ray_ns.engine.stages.label import Label, label_shards
from ray_ns.errors import InputError
from ray_ns.labels.schema import from_parquet
from ray_ns.models.files import to_files
from ray_ns.models.zoo import build
from ray_ns.observe import Reporter
from ray_ns.store.commit import Commit, Output, ensure
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore

pytestmark = pytest.mark.ray

MB = 2**20
HERE = ["label.precision=bfloat16", "cluster.cpus=6", "cluster.gpus=1"]


class Labeller:
    """One Ray session; labels the tiny pool with a random network under changed settings."""

    def __init__(self, folder: Path) -> None:
        self._path = write_tiny(folder)
        self.store = LocalStore(folder / "store")
        config = load(self._path, HERE)
        self._corpora = preflight.scan_corpora(config, {}, Reporter("plain"))
        self._session = Run(config, self.store, self._corpora, (3,), Lease(self.store), Reporter("plain"))
        self._teacher = self._committed(config)

    def _committed(self, config) -> Network:
        import torch

        torch.manual_seed(0)
        files = to_files(build(config.teacher.model, config.data), config.data)

        def work(stage: Output) -> tuple[dict, int]:
            stage.publish(0, files, {})
            return {}, 1

        return Network(ensure(self.store, "teacher", {}, work, lambda: None))

    def __enter__(self) -> "Labeller":
        self._session.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(None, None, None)

    def stage(self, pool: Corpus, *overrides: str) -> Commit:
        """The whole stage, over another pool."""
        self._session.config = load(self._path, [*HERE, *overrides])
        self._session.corpora = {**self._corpora, "pool": pool}
        try:
            known = known_images(self._session)
            return self._session.ensure("hazards/label", Label(self._teacher, known)).commit
        finally:
            self._session.corpora = self._corpora

    def label(self, *overrides: str, block_bytes: int = 128 * MB) -> pa.Table:
        self._session.config = load(self._path, [*HERE, *overrides])
        self._session.ray()
        from ray.data import DataContext

        DataContext.get_current().target_max_block_size = block_bytes
        jobs = label_shards(self._session.corpora["pool"], 200)
        tables = dict(predict(self._session, self._teacher, jobs))
        return pa.concat_tables([tables[job] for job in jobs])

    def label_as(self, kind: str, folder: Path) -> pa.Table:
        """The labels of the same images in shards of another kind, 200 in each."""
        pool = self._corpora["pool"]
        tables = [pq.read_table(f"{pool.root}/{shard.path}") for shard in pool.shards]
        for number, table in enumerate(tables):
            images = table["image"].to_pylist()
            if kind == "hugging face":
                structs = pa.table({"image": [{"bytes": image, "path": "x"} for image in images]})
                pq.write_table(structs, folder / f"{number}.parquet", row_group_size=64)
            elif kind == "tar":
                with tarfile.open(folder / f"{number}.tar", "w") as archive:
                    for row, image in enumerate(images):
                        info = tarfile.TarInfo(f"{row:03d}.png")
                        info.size = len(image)
                        archive.addfile(info, io.BytesIO(image))
            else:
                for row, image in enumerate(images):
                    (folder / f"{number}-{row:03d}.png").write_bytes(image)
        self._session.corpora = {**self._corpora, "pool": Corpus.scan(str(folder), "image", None)}
        try:
            return self.label()
        finally:
            self._session.corpora = self._corpora


@pytest.fixture(scope="module")
def labeller(tmp_path_factory: pytest.TempPathFactory):
    with Labeller(tmp_path_factory.mktemp("identical")) as labeller:
        yield labeller


@pytest.fixture(scope="module")
def one_actor(labeller: Labeller) -> pa.Table:
    table = labeller.label()
    assert table.num_rows == 600
    return table


@pytest.mark.parametrize(
    ("overrides", "block_bytes"),
    [
        (["label.actors=2"], 128 * MB),
        (["label.actors=4"], 128 * MB),
        (["label.actors=2"], 1),
        (["label.actors=2"], 4096 * MB),
        (["label.actors=2", "label.open_shards=1"], 128 * MB),
        (["label.layout=tasks"], 128 * MB),
        (["label.layout=tasks", "label.gpus_per_actor=1"], 128 * MB),
        (["label.layout=tasks", "label.gpus_per_actor=0.5", "label.actors=2"], 1),
        (["label.layout=actor", "label.gpus_per_actor=1"], 128 * MB),
    ],
)
def test_labels_are_bit_identical(
    labeller: Labeller, one_actor: pa.Table, overrides: list[str], block_bytes: int
) -> None:
    assert labeller.label(*overrides, block_bytes=block_bytes).equals(one_actor)


def test_other_weights_would_show(labeller: Labeller, one_actor: pa.Table) -> None:
    other = labeller.label("label.precision=float32")
    assert not other["confidence"].equals(one_actor["confidence"])


def test_a_pool_of_hazards_is_refused_with_its_reasons_or_labelled_row_by_row(
    labeller: Labeller, write_corpus: Callable[..., Corpus]
) -> None:
    """The hazards are labelled once: what the stage refused to commit is there when it is allowed to."""
    cases = [*hazards.hazards().values()]
    pool = write_corpus("hazards", [[data for data, _ in cases[begin::2]] for begin in range(2)], group=8)
    with pytest.raises(InputError, match=r"pool: 32 of 51 images cannot be read \(bit_depth 1, empty 2, extreme_"):
        labeller.stage(pool)
    commit = labeller.stage(pool, "data.max_quarantined=0.9")
    assert commit.summary["rows"] == len(cases)
    (part,) = commit.parts
    table = from_parquet(part.objects[LABELS].read(labeller.store, part.facts[XXH3]), LABELS)
    for shard in range(2):
        of_shard = table.slice(shard * 26, 26)
        assert of_shard["image_id"].to_pylist() == [(shard << 32) + row for row in range(len(cases[shard::2]))]
        assert of_shard["quarantine"].to_pylist() == [reason and str(reason) for _, reason in cases[shard::2]]
        assert [label is None for label in of_shard["label"].to_pylist()] == [bool(it) for _, it in cases[shard::2]]


@pytest.mark.parametrize("kind", ["hugging face", "tar", "folder"])
def test_the_same_bytes_have_the_same_labels_whatever_they_lie_in(
    labeller: Labeller, one_actor: pa.Table, kind: str, tmp_path: Path
) -> None:
    found = labeller.label_as(kind, tmp_path)
    assert found.drop_columns("image_id").equals(one_actor.drop_columns("image_id"))
    if kind != "folder":  # all of a folder this small is one shard
        assert found["image_id"].equals(one_actor["image_id"])
