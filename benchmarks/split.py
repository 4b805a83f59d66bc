"""Cut a labelled data set into what a run needs: a few labelled images, validation, test, and a pool without labels.

    python -m benchmarks.split data/cifar10-4k --train train-*.parquet --test test-*.parquet --labelled 4000

Every class gives the same number of labelled and of validation images, drawn by ``--seed``; the rest of the training
images is the pool, and so are the images of ``--pool``. Columns are ``image`` and ``label``, as configs/ expects them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SHARD_ROWS, GROUP_ROWS = 10_000, 1000


def drawn(labels: np.ndarray, counts: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Row numbers of each part, ascending: ``counts`` images in equal numbers per class, and ``pool``, all others."""
    classes = np.unique(labels)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in counts}
    left = np.ones(len(labels), bool)
    rng = np.random.default_rng(seed)
    for label in classes:
        rows = rng.permutation(np.flatnonzero(labels == label))
        first = 0
        for name, count in counts.items():
            each = count // len(classes)
            if count % len(classes) or first + each > len(rows):
                raise SystemExit(
                    f"--{name} {count}: {len(classes)} classes cannot give {count / len(classes):g} images each; "
                    f"class {label} has {len(rows) - first} left"
                )
            parts[name].append(rows[first : first + each])
            first += each
        left[rows[:first]] = False
    return {**{name: np.sort(np.concatenate(it)) for name, it in parts.items()}, "pool": np.flatnonzero(left)}


def write(table: pa.Table, folder: Path) -> None:
    """A table as Parquet shards; a folder that is there already is left alone."""
    folder.mkdir(parents=True)
    for number, begin in enumerate(range(0, table.num_rows, SHARD_ROWS)):
        pq.write_table(table.slice(begin, SHARD_ROWS), folder / f"{number:05d}.parquet", row_group_size=GROUP_ROWS)


def cut(
    folder: Path, train: list[str], test: list[str], counts: dict[str, int], seed: int = 0, pool: Sequence[str] = ()
) -> None:
    """Write the parts into ``folder``, of Parquet files; ``counts``: images labelled, and for validation."""

    def read(files: Sequence[str], columns: list[str]) -> pa.Table:
        return pa.concat_tables([pq.read_table(file, columns=columns) for file in files])

    images = read(train, ["image", "label"])
    rows = drawn(images["label"].to_numpy(), counts, seed)
    for name in counts:
        write(images.take(rows[name]), folder / name)
    left = [images.take(rows["pool"]).select(["image"])]
    write(pa.concat_tables(left + ([read(pool, ["image"])] if pool else [])), folder / "pool")
    write(read(test, ["image", "label"]), folder / "test")
    for name in ("labelled", "validation", "test", "pool"):
        total = sum(pq.read_metadata(path).num_rows for path in (folder / name).iterdir())
        print(f"{folder / name}: {total:,} images")


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where labelled, validation, test and pool go")
    parser.add_argument("--train", nargs="+", required=True, help="Parquet files of the training images")
    parser.add_argument("--test", nargs="+", required=True, help="Parquet files of the test images")
    parser.add_argument("--pool", nargs="*", default=[], help="Parquet files of further images without labels")
    parser.add_argument("--labelled", type=int, required=True)
    parser.add_argument("--validation", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    counts = {"labelled": words.labelled, "validation": words.validation}
    cut(words.folder, words.train, words.test, counts, words.seed, words.pool)


if __name__ == "__main__":
    main()
