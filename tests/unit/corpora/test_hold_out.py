"""What is held out is even over the classes and a function of seed and id; no image trains and evaluates.

Images that cannot be read are found.
"""

from collections.abc import Callable

import numpy as np
import pytest

from ray_ns.corpora.corpus import Corpus, image_ids
from ray_ns.corpora.hold_out import conflicts, drawing, hold_out, labelled_for, look, named, without
from ray_ns.images.decode import Decode
from ray_ns.images.isolate import SafeDecode

Write = Callable[..., Corpus]
TENTH = drawing(0.2, 60, 3)
DECODE = SafeDecode(Decode(8, 1), 30)


def read(corpus: Corpus) -> list[bytes]:
    readers = [corpus.open(shard) for shard in corpus.shards]
    return [one for it in readers for at, rows in enumerate(it.group_rows) if rows for one in it.images(at).to_pylist()]


@pytest.fixture
def corpus(write_corpus: Write) -> Corpus:
    """60 images of classes 0, 1, 2 (30, 20, 10) in two shards of several row groups."""
    labels = np.repeat([0, 1, 2], [30, 20, 10])[np.random.default_rng(0).permutation(60)].tolist()
    images = [f"{number}".encode() for number in range(60)]
    return write_corpus("labelled", [images[:25], images[25:]], [labels[:25], labels[25:]], group=7)


def parts_of(corpus: Corpus, key: int = 1, share: float = 0.1, parts: int = 2) -> list[Corpus]:
    return [corpus.keeping(rows) for rows in hold_out(corpus, corpus.labels(3), drawing(2 * share, 60, 3), parts, key)]


def test_the_parts_are_even_over_the_classes_and_make_the_whole(corpus: Corpus) -> None:
    parts = parts_of(corpus)
    counts = [np.bincount(np.concatenate(part.labels(3)), minlength=3).tolist() for part in parts]
    assert counts == [[3, 2, 1], [3, 2, 1], [24, 16, 8]]
    assert sorted(one for part in parts for one in read(part)) == sorted(read(corpus))


def test_a_part_reads_the_labels_and_names_of_its_own_images(corpus: Corpus) -> None:
    truth = dict(zip(read(corpus), np.concatenate(corpus.labels(3)), strict=True))
    for part in parts_of(corpus):
        assert [truth[one] for one in read(part)] == np.concatenate(part.labels(3)).tolist()
        first = part.open(part.shards[0])
        rows = [int(first.where(row).rpartition(" ")[2]) for row in range(sum(first.group_rows))]
        assert [f"{row}".encode() for row in rows] == read(part)[: len(rows)]


def test_what_is_held_out_depends_on_seed_and_image_alone(corpus: Corpus) -> None:
    first, again, other = parts_of(corpus), parts_of(corpus), parts_of(corpus, key=2)
    assert first == again
    assert first[0] != other[0]
    labels = corpus.labels(3)
    alone = Corpus(corpus.root, "image", "label", corpus.shards[1:])
    whole = hold_out(corpus, [np.full_like(labels[0], 2), labels[1]], TENTH, 1, 1)
    apart = hold_out(alone, labels[1:], TENTH, 1, 1)
    of_class = labels[1] == 0  # class 0 has the same members either way
    np.testing.assert_array_equal(whole[0][1][of_class], apart[0][0][of_class])


def test_a_class_of_which_nothing_would_be_left_is_told(corpus: Corpus) -> None:
    with pytest.raises(ValueError) as caught:
        hold_out(corpus, corpus.labels(3), drawing(0.99, 60, 3), 2, 1)
    assert caught.value.args == (0,)


def test_a_share_however_small_holds_out_one_of_each_class(corpus: Corpus) -> None:
    counts = [
        np.bincount(np.concatenate(part.labels(3)), minlength=3).tolist() for part in parts_of(corpus, share=0.001)
    ]
    assert counts == [[1, 1, 1], [1, 1, 1], [28, 18, 8]]


@pytest.mark.parametrize(
    ("images", "classes", "of_class", "each"),
    [
        (100, 10, 10, 1),  # few: one of each class
        (500, 10, 50, 1),
        (1_000, 10, 100, 5),  # 5 %
        (2_000, 10, 200, 20),  # a tenth, 200 in all
        (5_000, 10, 500, 50),
        (10_000, 10, 1_000, 100),  # 1,000 in all
        (1_000_000, 10, 100_000, 100),
        (1_281_167, 1_000, 1_300, 1),
    ],
)
def test_auto_takes_enough_for_a_verdict_and_few_of_few(images: int, classes: int, of_class: int, each: int) -> None:
    assert drawing("auto", images, classes)(of_class) == each


@pytest.mark.parametrize("held_out", ["auto", 0.2, 0.05, 20, 400])
@pytest.mark.parametrize("classes", [2, 7, 10, 100])
@pytest.mark.parametrize("now", [200, 1_141, 5_000])
def test_how_many_labelled_images_hold_so_many_out(held_out: float | int | str, classes: int, now: int) -> None:
    """It is the inverse of ``drawing``, whatever is held out of however many classes."""
    wanted = 961
    found = labelled_for(held_out, np.full(classes, now // classes), wanted)  # type: ignore[arg-type]

    def part(images: int) -> int:
        return classes * drawing(held_out, images, classes)(round(images / classes))  # type: ignore[arg-type]

    if isinstance(held_out, int):
        assert (found is None) == (classes * (held_out // 2) < wanted)
        return
    assert found is not None
    assert part(found + classes) >= wanted
    assert found == now // classes * classes or part(found - 2 * classes) < wanted


def test_classes_keep_their_shares_and_auto_has_an_end() -> None:
    even, skewed = (labelled_for("auto", np.array(counts), 961) for counts in ([100, 100], [190, 10]))
    assert even is not None
    assert skewed is not None
    assert skewed > 5 * even, "of the frequent class no more than half of the images are held out"
    assert labelled_for("auto", np.array([100, 100]), 1_001) is None


def test_a_count_is_of_each_class_half_for_each_part(corpus: Corpus) -> None:
    parts = [corpus.keeping(rows) for rows in hold_out(corpus, corpus.labels(3), drawing(7, 60, 3), 2, 1)]
    counts = [np.bincount(np.concatenate(part.labels(3)), minlength=3).tolist() for part in parts]
    assert counts == [[3, 3, 3], [3, 3, 3], [24, 14, 4]]
    with pytest.raises(ValueError) as caught:
        hold_out(corpus, corpus.labels(3), drawing(10, 60, 3), 2, 1)
    assert caught.value.args == (2,)


@pytest.mark.parametrize("key", range(5))
def test_a_group_of_copies_is_held_out_as_one(corpus: Corpus, key: int) -> None:
    labels = corpus.labels(3)
    truth, first = np.concatenate(labels), np.arange(60)
    for label in range(3):  # pairs, and one group of half a class
        members = np.flatnonzero(truth == label)
        first[members] = np.repeat(members[::2], 2)
        first[members[: len(members) // 4 * 2]] = members[0]
    parts = hold_out(corpus, labels, TENTH, 2, key, first)
    side = np.argmax([np.concatenate(rows) for rows in parts], 0)
    assert (side == side[first]).all()
    counts = [np.bincount(truth[side == part], minlength=3).tolist() for part in range(3)]
    assert counts[:2] == [[2, 2, 2]] * 2, "about a tenth of 30, 20 and 10, by whole pairs"
    assert np.sum(counts) == 60


def test_a_class_of_one_group_is_divided_all_the_same(corpus: Corpus) -> None:
    labels = corpus.labels(3)
    truth = np.concatenate(labels)
    first = np.array([np.flatnonzero(truth == label)[0] for label in truth])
    assert hold_out(corpus, labels, TENTH, 2, 1, first)[0][0].tolist() == parts_rows(corpus)[0][0].tolist()


def parts_rows(corpus: Corpus) -> list[list[np.ndarray]]:
    return hold_out(corpus, corpus.labels(3), TENTH, 2, 1)


def test_bytes_of_several_classes_are_found() -> None:
    labels = [np.array([0, 1, 2]), np.array([1, 0, 1])]
    assert conflicts([[b"a", b"b", b""], [b"a", b"", b"b"]], labels) == {b"a": [0, 1]}
    assert conflicts([[b"a"], [b"b"]], [np.array([0]), np.array([1])]) == {}


def test_a_part_of_a_part_keeps_its_own_rows(corpus: Corpus) -> None:
    part = parts_of(corpus)[2]
    every_other = [np.arange(sum(part.open(shard).group_rows)) % 2 == 0 for shard in part.shards]
    expected = [one for shard, rows in zip(part.shards, every_other, strict=True) for one in _rows(part, shard, rows)]
    assert read(part.keeping(every_other)) == expected
    nothing = part.keeping([np.zeros_like(rows) for rows in every_other])
    assert read(nothing) == []
    assert [len(of) for of in nothing.labels(3)] == [0, 0]


def _rows(corpus: Corpus, shard, rows: np.ndarray) -> list[bytes]:
    only = Corpus(corpus.root, "image", "label", (shard,))
    return [one for one, kept in zip(read(only), rows, strict=True) if kept]


def test_each_image_is_looked_at_once_and_the_bad_are_named(
    write_corpus: Write, pictures: Callable[..., list[bytes]]
) -> None:
    good = pictures(4)
    corpus = write_corpus("mixed", [[*good[:2], b"no image", None, good[2]], [], [good[3][:90]]], [[0] * 5, [], [0]])
    found = look(corpus, DECODE)
    assert [of.tolist() for of in found.readable] == [[True, True, False, False, True], [], [False]]
    assert found.bad == {
        f"{corpus.root}/00000.parquet row 2": "not_an_image",
        f"{corpus.root}/00000.parquet row 3": "empty",
        f"{corpus.root}/00002.parquet row 0": "truncated",
    }
    assert [len(of) for of in found.digests] == [5, 0, 1]
    assert len({it for of in found.digests for it in of}) == 6
    assert read(corpus.keeping(found.readable)) == good[:3]
    for wanted, kept in {2: None, 3: 3, 9: 3}.items():
        pixels = look(corpus, DECODE, pixels=wanted).pixels
        assert (pixels and len(pixels)) == kept


def test_images_with_the_same_bytes_are_left_out_and_named(write_corpus: Write) -> None:
    ours = write_corpus("ours", [[b"a", b"b", None], [b"c", b"", b"b"]], [[0, 1, 0], [0, 1, 1]])
    theirs = write_corpus("theirs", [[b"x", b"b", b"", None]], [[0, 0, 0, 0]])
    own, other = (look(corpus, DECODE).digests for corpus in (ours, theirs))
    left, shared = without(ours, own, other)
    assert read(left) == [b"a", None, b"c", b""], "an image of no bytes is nobody's twin"
    assert len(shared) == 1
    assert named(ours, own, min(shared)) == f"{ours.root}/00000.parquet row 1"
    assert named(theirs, other, min(shared)) == f"{theirs.root}/00000.parquet row 1"
    assert named(ours, own, b"no such") is None
    assert without(theirs, other, [own[1][:1]]) == (theirs, set())


def test_ids_of_a_part_count_its_own_rows(corpus: Corpus) -> None:
    part = parts_of(corpus)[0]
    rows = sum(part.open(part.shards[0]).group_rows)
    assert image_ids(part.shards[0].ordinal, np.arange(rows)).tolist() == list(range(rows))
