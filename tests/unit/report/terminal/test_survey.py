import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ray_ns.corpora.corpus import Corpus, Shard
from ray_ns.corpora.survey import TILE, Survey, Tile
from ray_ns.errors import InputError
from ray_ns.images.decode import Reason
from ray_ns.report.terminal.survey import BLANK, COLUMNS, as_json, save_sheet, sheet, show, words

CORPUS = Corpus("data/pool", "image", "label", (Shard(0, "a.parquet", 1_500_000, 0), Shard(1, "b.parquet", 500_000, 0)))


@pytest.fixture
def found() -> Survey:
    red = np.full((TILE, TILE, 3), (255, 0, 0), np.uint8)
    return Survey(
        images=1000,
        formats=Counter(PNG=3, JPEG=990),
        reasons=Counter(truncated=6, empty=1),
        labels=Counter({1: 600, None: 1, 0: 399}),
        bytes=Counter({100: 500, 2000: 500}),
        widths=Counter({32: 993}),
        heights=Counter({24: 993}),
        bad={"truncated": [f"a.parquet row {row}" for row in range(5)], "empty": ["b.parquet row 7"]},
        tiles={5: Tile(red, 1), (1 << 32) + 7: Tile(Reason.EMPTY, 0), 9: Tile(red // 2, None)},
    )


def test_the_report_names_what_is_there_and_the_first_of_what_cannot_be_read(found: Survey) -> None:
    assert words(as_json(CORPUS, found)) == [
        "data/pool: 1,000 images in 2 shards, 2.0 MB",
        "formats: JPEG 990, PNG 3",
        "3 classes: 0: 399, 1: 600, None: 1",
        "unreadable: 7 (0.70%)",
        "  empty 1: b.parquet row 7",
        "  truncated 6: a.parquet row 0, a.parquet row 1, a.parquet row 2, a.parquet row 3, a.parquet row 4, ...",
    ]


def test_an_empty_corpus_has_a_report_and_a_sheet(capsys: pytest.CaptureFixture[str]) -> None:
    corpus = Corpus("data/pool", "image", None, ())
    show(corpus, Survey())
    assert "0 images in 0 shards" in capsys.readouterr().out
    assert as_json(corpus, Survey())["per_class"] is None
    assert sheet(Survey()).size[1] > TILE


def test_the_sheet_shows_the_sample_by_class(found: Survey) -> None:
    page = np.asarray(sheet(found))
    pitch = page.shape[1] // COLUMNS
    middle = [page[20, pitch * at + pitch // 4].tolist() for at in range(4)]
    blank = [int(BLANK[at : at + 2], 16) for at in (1, 3, 5)]
    assert middle == [blank, [255, 0, 0], [127, 0, 0], [255, 255, 255]]


def test_the_sheet_is_a_png_or_a_clear_error(found: Survey, tmp_path: Path) -> None:
    save_sheet(found, str(tmp_path / "sheet.png"))
    assert Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())).format == "PNG"
    with pytest.raises(InputError, match=r"cannot be written \(No such file or directory\)"):
        save_sheet(found, str(tmp_path / "gone" / "sheet.png"))
