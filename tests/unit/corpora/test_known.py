"""An image is known by its bytes alone, wherever it lies."""

import pytest

from ray_ns.corpora.known import DIGEST_BYTES, Known, check_of, digest_of, in_words, packed, parted, unpacked

CORPORA = {"labelled": [b"a", b"b"], "validation": [b"c"], "test": [b"d", b""]}


@pytest.fixture
def known() -> Known:
    return Known({name: packed([[digest_of(it) for it in images]]) for name, images in CORPORA.items()})


def test_an_image_is_found_in_the_corpus_that_holds_it_and_no_other_is(known: Known) -> None:
    assert [known(it) for it in (b"a", b"b", b"c", b"d")] == ["in_labelled", "in_labelled", "in_validation", "in_test"]
    assert [known(it) for it in (b"e", b"ab", b"\0", b"", None)] == [None] * 5


def test_nothing_is_known_where_there_is_nothing() -> None:
    assert Known({})(b"a") is None
    assert Known({"test": b""})(b"a") is None


def test_every_image_of_many_is_found() -> None:
    images = [f"{number}".encode() for number in range(3000)]
    known = Known({"test": packed([[digest_of(it) for it in images]])})
    assert {known(it) for it in images} == {"in_test"}
    assert {known(it + b"x") for it in images} == {None}


def test_digests_packed_and_unpacked_are_the_same() -> None:
    digests = [[digest_of(b"a"), b""], [], [digest_of(b"b")]]
    assert unpacked(packed(digests), [2, 0, 1]) == digests


def test_a_check_tells_one_changed_bit_and_has_one_length() -> None:
    images = [bytes(1000), bytes(999) + b"\1", bytes(1001), b"a", b""]
    assert len({check_of(it) for it in images}) == len(images)
    assert {len(check_of(it)) for it in [*images, None]} == {DIGEST_BYTES}


def test_what_is_known_is_counted_beside_what_cannot_be_read() -> None:
    unreadable, left_out = parted({"truncated": 2, "in_test": 3, "empty": 1, "in_labelled": 1200})
    assert unreadable == {"empty": 1, "truncated": 2}
    assert left_out == {"in_labelled": 1200, "in_test": 3}
    assert in_words(left_out) == (
        "1,203 images are labelled, validation or test images too and left out (in_labelled 1,200, in_test 3)"
    )
