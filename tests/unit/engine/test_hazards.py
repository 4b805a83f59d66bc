"""A corpus of nothing but hazards through the reader of the labelling, without Ray."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from support import hazards

from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.stages.label import check_quarantine
from ray_ns.engine.workers.slices import Piece, Reader, cut
from ray_ns.errors import InputError
from ray_ns.labels.schema import label_table


@pytest.fixture
def labelled(config: Config, write_corpus: Callable[..., Corpus]) -> pa.Table:
    """The hazards' label rows, by an imaginary teacher."""
    files = [data for data, _ in hazards.hazards().values()]
    corpus = write_corpus("pool", [files[:20], files[20:]], group=8)
    reader = Reader(config)
    tables = []
    for shard in corpus.shards:
        for it in cut("pool", Piece(shard), corpus.open(shard).group_rows, 3):
            images, reasons = reader.read({"pool": corpus}, it)
            assert not images[[reason is not None for reason in reasons]].any()
            even = np.full((len(images), config.data.classes), 1 / config.data.classes, np.float32)
            tables.append(label_table(it.image_ids, even, reasons, "top", 1))
    return pa.concat_tables(tables)


def test_every_hazard_is_one_row_a_label_or_a_reason(labelled: pa.Table) -> None:
    assert labelled["image_id"].to_pylist() == [
        *range(20),
        *(2**32 + row for row in range(len(hazards.hazards()) - 20)),
    ]
    expected = [None if reason is None else str(reason) for _, reason in hazards.hazards().values()]
    assert labelled["quarantine"].to_pylist() == expected
    for column in ("label", "confidence", "top_label"):
        assert [value is None for value in labelled[column].to_pylist()] == [reason is not None for reason in expected]


def test_so_many_hazards_are_refused_with_their_reasons(config: Config, labelled: pa.Table) -> None:
    reasons = Counter(reason for reason in labelled["quarantine"].to_pylist() if reason is not None)
    with pytest.raises(InputError) as refused:
        check_quarantine(config, "pool", labelled.num_rows, dict(reasons))
    assert len(reasons) == 9
    for reason, count in reasons.items():
        assert f"{reason} {count}" in str(refused.value)
