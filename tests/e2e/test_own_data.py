"""The first evening: class folders, a folder of pictures, and the very commands that the texts give."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pyarrow.parquet as pq
import pytest
from support.tiny_run import ray_ns

from ray_ns.demo import write_digits

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
README, TUTORIAL, CONFIG = (ROOT / name for name in ("README.md", "docs/tutorial-own-data.md", "configs/own-data.yaml"))

# The recipe on 64 pixels for an evening, cut to a minute.
COMMON = ["run.rounds=1", "control.enabled=false", "cluster.object_store_mb=100"]
NETWORK = "{stem_type: deep, stem_width: 4, channels: [8, 16, 16, 16], output_stride: 16}"
TINY = [
    *(*COMMON, "data.size=28", "teacher.steps=20", "teacher.batch=16", "teacher.optimizer.warmup_steps=5"),
    *("student.steps=10", "student.optimizer.warmup_steps=5", "student.batch=8"),
    *(f"teacher.model.args={NETWORK}", f"student.model.args={NETWORK}"),
    *("select.threshold=0.1", "label.slice_rows=64", "cluster.train_threads=1"),
]
SHORT = [*COMMON, "data.size=32", "teacher.steps=200", "student.steps=100", "select.threshold=0.3"]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def commands(text: str) -> list[list[str]]:
    """The command lines of a text's fenced blocks, but of those that name a language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for kind, block in blocks if not kind for line in block.splitlines()]


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def follow(lines: list[list[str]], overrides: list[str], seconds: float = 280) -> dict[str, CompletedProcess[str]]:
    """Run the commands in this folder, with ``overrides`` that the commands' own go before; each one's last end."""
    shutil.copytree(CONFIG.parent, "configs")
    done = {}
    for program, verb, *words in lines:
        assert program == "ray-ns"
        cut = overrides if verb in {"run", "check", "select"} else []
        done[verb] = ray_ns(verb, *words[:1], *cut, *words[1:], seconds=seconds)
    return done


def unpack(shard: Path, folder: Path, rows: slice, classes: list[str] | None, suffix: str) -> None:
    """Images out of a Parquet shard, as a user's files: in a folder per class, or all over the place."""
    table = pq.read_table(shard)
    table = table.slice(rows.start, rows.stop - rows.start)
    labels = table["label"].to_pylist() if classes else [""] * table.num_rows
    for number, (image, label) in enumerate(zip(table["image"].to_pylist(), labels, strict=True)):
        place = folder / (classes[label] if classes else f"{number % 3}")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05d}.{suffix}").write_bytes(image["bytes"] if isinstance(image, dict) else image)


def digits(folder: Path, labelled: str, pool: str) -> None:
    """200 labelled digits and 400 images of the demo's pool, a bad one in both, and something else."""
    write_digits(folder / "digits", 3, per_class=20)
    names = [f"digit {number}" for number in range(10)]
    unpack(folder / "digits/labelled", folder / labelled, slice(0, 200), names, "png")
    unpack(folder / "digits/pool", folder / pool, slice(0, 400), None, "png")
    shutil.rmtree(folder / "digits")
    whole = next((folder / labelled / "digit 3").iterdir())
    whole.with_name("cut.png").write_bytes(whole.read_bytes()[:90])
    (folder / pool / "0/bad.jpg").write_bytes(b"no picture")
    (folder / pool / "notes.txt").write_text("of the holidays")


def result(run: Path) -> list[dict]:
    """The rows of a finished run's table."""
    (report,) = (run / "report/data").rglob("report.json")
    return json.loads(report.read_text())["rounds"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readmes_commands_label_select_train_and_show_the_table(here: Path) -> None:
    lines = commands(section(README.read_text(), "On your own images"))[:2]
    assert [line[:2] for line in lines] == [["ray-ns", "inspect"], ["ray-ns", "run"]]
    digits(here, "classes", "pictures")
    done = follow(lines, TINY)
    assert "unreadable: 1" in done["inspect"].stdout
    assert (here / "sheet.png").stat().st_size > 1000
    assert "0: teacher" in done["run"].stdout
    assert "data.labelled: 1 of 201 images cannot be read and are left out (truncated 1; such as" in done["run"].stderr
    assert [row["model"] for row in result(here / "runs/own-data")] == ["resnet10t", "resnet10t"]
    for path in (here / "runs/own-data/rounds").rglob("config.json"):
        assert json.loads(path.read_text())["label_names"] == [f"digit {number}" for number in range(10)]
    commit = json.loads((here / "runs/own-data/rounds/1/label/commit.json").read_text())
    assert (commit["summary"]["rows"], commit["summary"]["quarantine"]) == (401, {"not_an_image": 1})


def test_the_configs_header_gives_the_tutorials_command() -> None:
    (header,) = (line for line in CONFIG.read_text().splitlines() if line.startswith("# command"))
    words = header.removeprefix("# command").replace("labelled=FOLDER", "labelled=labelled/")
    assert words.replace("pool=FOLDER", "pool=pool/").split() in commands(TUTORIAL.read_text())


@pytest.mark.chaos
def test_the_tutorial_from_its_first_command_to_its_last_on_digits(here: Path) -> None:
    digits(here, "labelled", "pool")
    shutil.copytree("pool", "new")
    done = follow(commands(TUTORIAL.read_text()), [*TINY, "teacher.steps=150"])
    assert (
        done["predict"].stdout
        == "400 images labelled, 1 unreadable (not_an_image 1): new.csv; its run is new.csv.run\n"
    )
    assert "finished" in done["status"].stdout
    assert "digit 7" in done["select"].stdout, "classes are called by their names"
    assert "all as they were written" in done["verify"].stdout
    kept = [result(here / run)[1]["kept"] for run in ("runs/own-data", "runs/packed")]
    assert min(kept) > 100


@pytest.mark.chaos
@pytest.mark.timeout(2400)  # seven minutes on two cores, shared with another suite
@pytest.mark.skipif(
    "RAY_NS_CIFAR10" not in os.environ, reason="RAY_NS_CIFAR10 names no folder with CIFAR-10 as Parquet"
)
def test_the_tutorial_on_cifar_10_learns(here: Path) -> None:
    shard = sorted(Path(os.environ["RAY_NS_CIFAR10"]).glob("train-*.parquet"))[0]
    unpack(shard, here / "labelled", slice(0, 2000), CLASSES, "jpg")
    unpack(shard, here / "pool", slice(2000, 6000), None, "jpg")
    unpack(shard, here / "new", slice(6000, 6500), None, "jpg")
    follow(commands(TUTORIAL.read_text()), SHORT, seconds=1000)
    for run in ("runs/own-data", "runs/packed"):
        best = next(row for row in result(here / run) if row["best"])
        assert best["test_top1"] > 0.3, "one in ten is chance"
