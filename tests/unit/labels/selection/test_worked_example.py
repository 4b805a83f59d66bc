"""The five rows in the docstring of ``labels.selection`` and in docs/design/selection.md, computed."""

from typing import Any

import pytest
from support.selection_rows import chosen

from ray_ns.labels import selection

TEXT = (selection.__doc__ or "").splitlines()
FIRST = next(at for at, line in enumerate(TEXT) if line.split()[:4] == ["id", "class", "confidence", "copies"]) + 1
IDS, CLASSES, CONFIDENCE, COPIES = zip(*(line.split()[:4] for line in TEXT[FIRST : FIRST + 5]), strict=True)


def copies(k: int | str, **settings: Any) -> list[int]:
    labels = [("cat", "dog").index(it) for it in CLASSES]
    return chosen(labels, [float(it) for it in CONFIDENCE], 2, 0.5, k, [int(it) for it in IDS], **settings)[0]


def test_the_five_rows_are_selected_as_the_docstring_says() -> None:
    expected = [int(it) for it in COPIES]
    assert copies("auto") == expected == [1, 1, 0, 0, 2]
    kept, with_copies = sum(it > 0 for it in expected), sum(expected)
    assert (kept, with_copies) == (3, 4)


@pytest.mark.parametrize(
    ("k", "settings", "expected"),
    [
        (7, {}, [2, 2, 3, 0, 7]),
        ("auto", {"balance": False}, [1, 1, 1, 0, 1]),
        (2, {"rule": "official"}, [0, 1, 1, 0, 2]),
    ],
    ids=["scarce", "not balanced", "official"],
)
def test_the_variants_of_the_design_page_hold(k: int | str, settings: dict[str, Any], expected: list[int]) -> None:
    assert copies(k, **settings) == expected
