"""What is said where too many images cannot be read."""

import pytest

from ray_ns.corpora.unreadable import refuse_above
from ray_ns.errors import InputError
from ray_ns.images.decode import Decode

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
TIFF = b"II*\0" + bytes(100)


def refusal(rows: int, **reasons: int) -> str:
    with pytest.raises(InputError) as caught:
        refuse_above(0.01, rows, reasons, "data.pool", "data.max_quarantined", ["a.heic"])
    return str(caught.value)


@pytest.mark.parametrize("data", [HEIC, TIFF, b"version https://git-lfs.github.com/spec/v1"])
def test_where_a_format_is_not_read_those_that_are_and_how_to_convert_are_said(data: bytes) -> None:
    said = refusal(36, **{str(Decode(8, 3)(data)): 6})
    assert "JPEG, PNG, WEBP, GIF and BMP are read: convert the others (magick mogrify -format jpg" in said
    assert said.endswith(", or raise it.")


def test_where_all_are_allowed_to_be_none_is_left() -> None:
    with pytest.raises(InputError, match=r"3 of 3 images cannot be read \(empty 3.*\), and none is left\. Repair"):
        refuse_above(1, 3, {"empty": 3}, "data.pool", "data.max_quarantined")


def test_what_cannot_help_is_not_advised() -> None:
    assert refusal(36, truncated=6).endswith("data.max_quarantined = 0.01. Repair the images, or raise it.")
    assert refusal(36, truncated=36).endswith("data.max_quarantined = 0.01. Repair the images.")
