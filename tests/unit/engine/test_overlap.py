"""No image is on both sides, nor in two classes, nor its near-copy across; what is left out or kept is told."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny_run import write_tiny

from ray_ns.corpora import twins
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.opening import drive
from ray_ns.engine.run import Run
from ray_ns.errors import InputError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("overlap"))


def picture(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).resize((96, 96)), float)
        for side in (4, 12, 32)
    ]
    return Image.fromarray(np.mean(layers, 0).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind)
    return sink.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def classes(per_class: int = 12) -> dict[str, bytes]:
    return {
        f"{name}/{number:02d}.jpg": encoded(picture(100 * at + number))
        for at, name in enumerate(("cat", "dog", "owl"))
        for number in range(per_class)
    }


def names(corpus: Corpus) -> set[str]:
    readers = [corpus.open(shard) for shard in corpus.shards]
    return {it.where(row).removeprefix(f"{corpus.root}/") for it in readers for row in range(sum(it.group_rows))}


@pytest.fixture
def begun(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Run, str]]:
    """Begin a run of these labelled images; the session and what was told."""

    def attempt(labelled: dict[str, bytes], *words: str, **others: dict[str, bytes]) -> tuple[Run, str]:
        roots = {"labelled": write(tmp_path / "labelled", labelled)}
        roots |= {name: write(tmp_path / name, files) for name, files in others.items()}
        given = [f"data.{name}={roots.get(name, 'null')}" for name in ("labelled", "validation", "test")]
        rest = ["data.classes=null", "data.channels=3", "data.mean=[0,0,0]", "data.std=[1,1,1]"]
        with drive(str(tiny), [f"run.dir={tmp_path / 'run'}", *given, *rest, *words], "plain") as session:
            return session, " ".join(capsys.readouterr().err.split())

    return attempt


def side_of(session: Run) -> dict[str, str]:
    return {it: name for name in ("labelled", "validation", "test") for it in names(session.corpora[name])}


def test_the_same_bytes_in_two_classes_are_left_out_and_told(begun: Callable[..., tuple[Run, str]]) -> None:
    files = classes()
    files["dog/copy.jpg"] = files["cat/03.jpg"]
    session, said = begun(files, "data.max_quarantined=0.1")
    assert set(side_of(session)) == set(files) - {"dog/copy.jpg", "cat/03.jpg"}
    assert "data.labelled: 2 of 37 images have the same bytes in several classes, such as" in said
    assert "cat/03.jpg (cat) = " in said
    assert "dog/copy.jpg (dog). They are left out." in said


def test_too_many_of_them_are_refused(begun: Callable[..., tuple[Run, str]], tmp_path: Path) -> None:
    files = classes()
    files["dog/copy.jpg"] = files["cat/03.jpg"]
    with pytest.raises(InputError, match=r"2 of 37 images .* more than data.max_quarantined = 0.01. Leave each in one"):
        begun(files)
    assert not (tmp_path / "run").exists()


def test_of_validation_images_they_are_told(begun: Callable[..., tuple[Run, str]]) -> None:
    own = {f"{name}/v{at}.jpg": encoded(picture(1000 + at)) for at, name in enumerate(("cat", "dog", "owl"))}
    own["dog/again.jpg"] = own["cat/v0.jpg"]
    session, said = begun(classes(), "data.max_quarantined=0.5", validation=own)
    assert names(session.corpora["validation"]) == set(own)
    assert "data.validation: 2 of 4 images have the same bytes in several classes" in said


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "a thumbnail": lambda image: encoded(image.resize((40, 40))),
    "another format": lambda image: encoded(image, "PNG"),
    "mirrored": lambda image: encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", [1, 2])
def test_near_copies_are_held_out_together(begun: Callable[..., tuple[Run, str]], change: str, seed: int) -> None:
    files = classes()
    for path in list(files):
        files[path.replace("/", "/again/")] = CHANGES[change](Image.open(io.BytesIO(files[path])))
    session, said = begun(files, f"run.seed={seed}")
    side = side_of(session)
    assert set(side) == set(files)
    assert {side[path.replace("/", "/again/")] == side[path] for path in files if "again" not in path} == {True}
    assert [sum(it == name for it in side.values()) for name in ("validation", "test")] == [6, 6]
    assert "data.labelled: 72 images look like near-copies" in said


def test_near_copies_of_test_images_are_told(begun: Callable[..., tuple[Run, str]]) -> None:
    files = classes()
    shrunk = CHANGES["a thumbnail"](Image.open(io.BytesIO(files["cat/05.jpg"])))
    test = {"cat/a.jpg": shrunk, "dog/b.jpg": files["dog/02.jpg"], "owl/c.jpg": encoded(picture(2000))}
    session, said = begun(files, test=test)
    assert "data.labelled: 1 images look like near-copies (re-encoded, resized or mirrored) of validation" in said
    assert "labelled/cat/05.jpg. They still train" in said
    assert "dog/02.jpg" not in side_of(session), "the same bytes are left out, as ever"


def test_above_so_many_images_it_is_said_that_nobody_looks(
    begun: Callable[..., tuple[Run, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "MOST", 20)
    _, said = begun(classes())
    assert "near-copies are not looked for among more than 20 labelled, validation and test images" in said


def test_a_class_of_too_few_says_how_many_it_takes(begun: Callable[..., tuple[Run, str]]) -> None:
    with pytest.raises(InputError) as caught:
        begun(classes(1))
    assert "class cat has too few images to hold some out for validation and test: 1 that can be used" in str(
        caught.value
    )
    assert "Each class needs 3 at least. Add some, or give data.validation and data.test." in str(caught.value)
