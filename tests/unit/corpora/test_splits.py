import pytest

from ray_ns.corpora.splits import split_of


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Training", "TRAIN", "train2017", "imagenet_train", "train-set")),
        *((name, "validation") for name in ("val", "valid", "validation", "dev", "val_images", "eval")),
        *((name, "test") for name in ("test", "testing", "test-00000-of-00002", "x.test", "test_3")),
        *((name, None) for name in ("trains", "contest", "cat", "developer", "valley", "testament", "", "1")),
    ],
)
def test_the_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split
