"""The dataset cards: at the root of a run and in the folder of each stage with tables, and at that of a packed folder.

They are hints: a lost one changes nothing and is written again with the next commit, or when the run is resumed.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ray_ns.artifacts.judged import JUDGED
from ray_ns.artifacts.labels import LABELS, Labels
from ray_ns.artifacts.scores import PREDICTIONS
from ray_ns.artifacts.selection import SELECTION
from ray_ns.corpora.pack import IMAGES
from ray_ns.errors import InputError, IntegrityError, ResumableError
from ray_ns.export.dataset_card import CARD, MARK, Table, card
from ray_ns.store import commit, hints, layout
from ray_ns.store.commit import Commit, StoredObject
from ray_ns.store.lease import LeaseLostError
from ray_ns.store.objects import ObjectStore

if TYPE_CHECKING:
    from ray_ns.engine.run import Run

INGEST = "ingest"
# By stage: what its table is called, and the file of each split. Labels come first, so that they are the default.
_TABLES: dict[str, tuple[str, Mapping[str, str]]] = {
    "label": ("labels", {"train": LABELS}),
    "select": ("selection", {"train": SELECTION}),
    "evaluate": ("predictions", PREDICTIONS),
    "judge": ("judged", {"test": JUDGED}),
    INGEST: ("images", {"train": IMAGES}),
}
_TURN = rf"(?:(rounds/\d+|(?:rounds-\d+/)?{layout.CONTROLS})/)?"
_PLACE = re.compile(rf"(?:pool-(\d+)/)?{_TURN}({'|'.join(_TABLES)})((?:-[0-9a-f]+)?)", re.ASCII)


class _Place(NamedTuple):
    """A stage with tables: its folder, and what that folder's name says. ``of``: a selection by other settings."""

    folder: str
    pool: int
    turn: str
    stage: str
    of: str

    @property
    def name(self) -> str:
        """What its table is called: ``round-1-labels``."""
        if self.stage == INGEST:
            return _TABLES[INGEST][0]
        turn = self.turn.replace("rounds/", "round-").replace("/", "-")
        words = (f"pool-{self.pool}" if self.pool > 1 else "", turn, _TABLES[self.stage][0] + self.of)
        return "-".join(filter(None, words))

    @property
    def order(self) -> tuple[Any, ...]:
        """Labels, then selections, then predictions; of each the newest first. Generations of an ingest in order."""
        number = int(self.turn.removeprefix("rounds/")) if self.turn.startswith("rounds/") else 0
        return (list(_TABLES).index(self.stage), -self.pool, -number, self.folder)


def keep(run: "Run") -> None:
    """Write the cards that are missing or out of date. A README.md of somebody else's stays as it is.

    None in runs of formats 1 and 2, whose tables cannot be read as one. What cannot be read or written is told.
    """
    if run.format < layout.READABLE:
        return
    try:
        for key, text in _cards(run.store):
            there = run.store.get(key)
            if there is None or (there != text and MARK.encode() in there):
                run.lease.check()
                hints.write_text(run.store, key, text)
    except LeaseLostError:
        raise
    except (InputError, IntegrityError, ResumableError) as error:
        run.reporter.warn(f"the dataset cards ({CARD}) of {run.store.url} are not up to date: {error}")


def _cards(store: ObjectStore) -> Iterator[tuple[str, bytes]]:
    """The key and the content of every card."""
    tables: list[Table] = []
    elsewhere: list[str] = []
    for place in sorted(_places(store), key=lambda it: it.order):
        committed = commit.find_commit(store, place.folder)
        files = _files(committed, place) if committed else {}
        if not files:
            continue  # an evaluation of an earlier version, or a generation without an image
        own = set(store.list(f"{place.folder}/data/"))
        if not all(it.key in own for stored in files.values() for it in stored):
            elsewhere.append(place.name)
            continue
        table = _table(store, place.name, files, _note(committed))
        tables.append(table)
        if place.stage == INGEST:
            continue
        below = {split: [it.removeprefix(f"{place.folder}/") for it in paths] for split, paths in table.splits.items()}
        yield f"{place.folder}/{CARD}", card(table.name, [table._replace(splits=below)]).encode()
    if tables:
        packed = tables[0].name == _TABLES[INGEST][0]
        if packed:  # all generations are one table
            tables = [tables[0]._replace(splits={"train": [path for it in tables for path in it.splits["train"]]})]
        title = "Images packed by ray-ns" if packed else "Labels, selections and predictions of a run of ray-ns"
        yield CARD, card(title, tables, elsewhere).encode()


def _places(store: ObjectStore) -> Iterator[_Place]:
    """The stages with tables that the register names."""
    for key in store.list(commit.REGISTER):
        folder = key.removeprefix(commit.REGISTER).removesuffix(".json")
        found = _PLACE.fullmatch(folder)
        if found and key == commit.register_key(f"{folder}/commit.json"):
            pool, turn, stage, of = found.groups(default="")
            yield _Place(folder, int(pool or 1), turn, stage, of)


def _files(committed: Commit, place: _Place) -> dict[str, list[StoredObject]]:
    """The files of a stage's table by split, without splits that have none."""
    splits = _TABLES[place.stage][1]
    found = {name: [it.objects[file] for it in committed.parts if file in it.objects] for name, file in splits.items()}
    return {split: stored for split, stored in found.items() if stored}


def _note(committed: Commit | None) -> str:
    """What is to be known of labels: how their confidence was made, where it is not the network's own."""
    if committed is None:
        return ""
    labels = Labels(committed)
    divided = f"the teacher's logits were divided by {labels.temperature:g} before the softmax"
    seen = f"probabilities are means over several views of an image (label.views: {labels.views})"
    mean = f"probabilities are means over {labels.others + 1} networks"
    told = {divided: labels.temperature != 1, seen: labels.views != "one", mean: labels.others > 0}
    return "; ".join(words for words, wanted in told.items() if wanted)


def _table(store: ObjectStore, name: str, files: Mapping[str, list[StoredObject]], note: str) -> Table:
    with next(iter(files.values()))[0].open(store) as file:
        schema = pq.read_schema(file)
    return Table(
        name, {split: [it.key for it in stored] for split, stored in files.items()}, schema, _names(schema), note
    )


def _names(schema: pa.Schema) -> list[str] | None:
    """The names of the classes, as a table of a run or a packed shard says them."""
    found = schema.metadata or {}
    if b"classes" in found:
        return list(json.loads(found[b"classes"]))
    if b"huggingface" in found:
        return list(json.loads(found[b"huggingface"])["info"]["features"]["label"]["names"])
    return None
