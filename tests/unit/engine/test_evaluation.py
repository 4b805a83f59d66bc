"""Networks judged without Ray: the figures are those of what they say of each image, whatever dies and is asked."""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support.cached import PUBLISHED, cached
from support.dying import Killed, records
from support.ended_run import ended_run
from support.in_process import Call
from support.judged import DATA, NAMES, by_hand, network_files, write_classes, write_network

from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.evaluation import Found, ends, evaluate
from ray_ns.engine.run import Run
from ray_ns.errors import InputError
from ray_ns.evaluate import corruptions, perturbations
from ray_ns.evaluate.attacks import Attack
from ray_ns.images.decode import Decode
from ray_ns.models.files import from_files
from ray_ns.models.predictor import Teacher
from ray_ns.report.terminal import evaluation as report
from ray_ns.seals import seal, unseal
from ray_ns.store import hints, layout
from ray_ns.store.objects import LocalStore
from ray_ns.store.verify import verify

ROWS = 8
OVERRIDES = ("label.slice_rows=8", "label.shard_rows=10", "label.precision=float32")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("network") / "best")


@pytest.fixture
def images(pictures: Callable[..., list[bytes]]) -> list[bytes]:
    """Thirty in the order of their classes, ten of each, one of them empty."""
    found = sorted(range(30), key=lambda at: at % 3)
    made = pictures(30)
    made[found[3]] = b""
    return [made[at] for at in found]


@pytest.fixture
def folder(images: list[bytes], tmp_path: Path) -> Path:
    return write_classes(tmp_path / "images", images, LABELS)


LABELS = [0] * 10 + [1] * 10 + [2] * 10


def judged(network: Path | str, place: Path | None, *on: str | Path, **options: Any) -> Found:
    where = None if place is None else str(place)
    return evaluate(str(network), [str(it) for it in on], where, overrides=OVERRIDES, mode="plain", **options)


def table(place: Path) -> pa.Table:
    """All rows of the one suite."""
    found = sorted(place.rglob("predictions.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in found]).combine_chunks()


def test_the_rows_and_the_figures_are_the_networks_own(
    network: Path, images: list[bytes], folder: Path, tmp_path: Path
) -> None:
    found = judged(network, tmp_path / "out", folder)
    files = {it.name: it.read_bytes() for it in network.iterdir()}
    probabilities, readable = by_hand(files, images, ROWS)
    rows, labels = table(tmp_path / "out"), np.array(LABELS)
    assert rows["truth"].to_pylist() == LABELS
    assert rows["truth_name"].to_pylist() == [NAMES[it] for it in LABELS]
    assert rows["path"].to_pylist() == [f"{NAMES[it]}/{at:03d}.png" for at, it in enumerate(LABELS)]
    said = [int(it) if ok else None for it, ok in zip(probabilities.argmax(1), readable, strict=True)]
    assert rows["label"].to_pylist() == said
    assert rows["top_label"][0].as_py() == (-probabilities[0]).argsort(kind="stable").tolist()
    loss = -np.log(probabilities[np.arange(30), labels])[readable]
    assert np.allclose(rows["loss"].drop_null().to_numpy(), loss)
    (row,) = found.report["rows"]
    figures = row["figures"]
    right = (probabilities.argmax(1) == labels) & readable
    assert (figures["images"], figures["unreadable"], figures["top5"]) == (30, 1, None)
    assert figures["top1"] == pytest.approx(right.mean(), abs=1e-6)
    assert figures["nll"] == pytest.approx(loss.mean(), abs=1e-6)
    assert np.array(figures["confusion"]).sum() == 29
    assert not [fault for _, fault in verify(LocalStore(tmp_path / "out")) if fault]


def test_each_network_of_a_run_is_fed_by_its_own_rule(
    images: list[bytes], write_corpus: Callable[..., Corpus], tmp_path: Path
) -> None:
    """A size, a crop and an interpolation that are not the run's: as the commit of the network says."""
    own = DATA.read_as(size=24, fit="crop", crop_share="paper", interpolation="bicubic")
    test = write_corpus("test", [images], [LABELS])
    files = network_files(NAMES, 0.5, own)
    ended_run(tmp_path / "run", DATA, files, NAMES, test, own)
    judged(tmp_path / "run", tmp_path / "out", "test")
    judged(tmp_path / "run" / "best", tmp_path / "folder", tmp_path / "test")
    probabilities, readable = by_hand(files, images, ROWS, own)
    of_run, _ = by_hand(files, images, ROWS)
    wanted = probabilities.max(1)[readable]
    assert np.abs(wanted - of_run.max(1)[readable]).max() > 1e-3, "the rules can be told apart"
    for place in ("out", "folder"):
        np.testing.assert_array_equal(table(tmp_path / place)["confidence"].drop_null().to_numpy(), wanted)


def test_a_cluster_that_cannot_do_it_is_refused_before_anything_is_written(
    network: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: Run) -> None:
        raise InputError("1 of 3 nodes cannot do this run's work")

    monkeypatch.setattr(Run, "join", refuse)
    with pytest.raises(InputError, match="1 of 3 nodes"):
        evaluate(str(network), [str(folder)], str(tmp_path / "out"), overrides=["label.actors=2"], mode="plain")
    assert not (tmp_path / "out").exists()


def test_the_working_directory_of_a_job_is_refused(network: Path, folder: Path, tmp_path: Path) -> None:
    inside = str(tmp_path / "session_1/runtime_resources/working_dir_files/_ray_pkg_1234abcd")
    for on, output in ((str(folder), f"{inside}/out"), (f"{inside}/images", str(tmp_path / "out"))):
        with pytest.raises(InputError, match="inside the working directory of this job"):
            evaluate(str(network), [on], output, mode="plain")


def test_killed_before_any_of_its_writes_it_ends_with_the_same_bytes(
    network: Path, folder: Path, tmp_path: Path, dying: Callable[..., list[str]]
) -> None:
    written = dying(None)
    whole = judged(network, tmp_path / "whole", folder)
    writes = len(written)
    for at in range(writes):
        dying(at)
        with pytest.raises(Killed):
            judged(network, tmp_path / "killed", folder)
        dying(None)
        again = judged(network, tmp_path / "killed", folder)
        assert again.report == whole.report
        assert records(tmp_path / "killed") == records(tmp_path / "whole")
        (tmp_path / "killed").rename(tmp_path / f"killed-{at}")


@pytest.fixture
def run(images: list[bytes], write_corpus: Callable[..., Corpus], tmp_path: Path) -> Path:
    """A run that has ended, with test images."""
    test = write_corpus("test", [images[:15], images[15:]], [LABELS[:15], LABELS[15:]])
    ended_run(tmp_path / "run", DATA, network_files(NAMES, 0.5), NAMES, test)
    return tmp_path / "run"


def test_of_a_run_its_networks_are_judged_on_its_own_test_images_beside_it(run: Path, tmp_path: Path) -> None:
    found = judged(run, None, "test")
    (row,) = found.report["rows"]
    assert (row["network"], row["turn"], row["corpus"]) == ("teacher", "rounds/0", "test")
    assert row["figures"]["images"] == 30
    assert Path(found.url).parent == tmp_path / "run.evaluations"
    assert judged(run, None, "test") == found
    assert judged(run, None, "test", tmp_path / "test").url != found.url


@pytest.mark.parametrize(
    ("on", "options", "said"),
    [
        (["nowhere"], {}, "nowhere"),
        (["test", "test"], {}, "--on test: is given twice"),
        (["test"], {"networks": ["student"]}, "--network student: .* has none. Expected teacher, best, all, rounds/0"),
        (["validation"], {}, "--on validation: it is not known where these images lie"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, on: list[str], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        judged(run, tmp_path / "out", *on, **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_classes_or_a_network_without_a_run_is_refused(
    network: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"is no run and has no such images\. Give --on FOLDER"):
        judged(network, tmp_path / "out", "test")
    with pytest.raises(InputError, match="Say where the evaluation goes: -o DIR"):
        judged(network, None, folder)
    with pytest.raises(InputError, match="is no run, and has one network"):
        judged(network, None, folder, networks=["teacher"])
    (folder / "cat").rename(folder / "cow")
    with pytest.raises(InputError, match="class 'cow' is none of"):
        judged(network, tmp_path / "out", folder)
    plain = write_network(tmp_path / "plain", None)
    (folder / "dog").rename(folder / "cow2")
    (folder / "cow2").rename(folder / "cow" / "dog")
    with pytest.raises(InputError, match="has 2 classes by name, such as cow, eel; the network has 3"):
        judged(plain, tmp_path / "out", folder)
    assert not (tmp_path / "out").exists()


def test_another_evaluation_in_the_same_place_is_refused_by_name(network: Path, folder: Path, tmp_path: Path) -> None:
    judged(network, tmp_path / "out", folder)
    write_classes(tmp_path / "more", [(folder / "cat/000.png").read_bytes()], [0])
    with pytest.raises(InputError, match="another -o"):
        judged(network, tmp_path / "out", tmp_path / "more")
    with pytest.raises(InputError, match=r"evaluate\.on: .* Give another -o"):
        judged(network, tmp_path / "out", folder, tmp_path / "more")


@pytest.mark.parametrize("there", [False, True])
def test_on_other_hardware_it_goes_on_as_it_began(
    run: Path, tmp_path: Path, dying: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """``precision: auto`` is decided once; beside the run as at a place of its own."""
    place = str(tmp_path / "out") if there else None

    def of(*on: str) -> Found:
        return evaluate(str(run), [*on], place, overrides=OVERRIDES[:2], mode="plain")

    monkeypatch.setattr("ray_ns.train.precision.fast_precision", lambda gpu: "float32")
    dying(8)
    with pytest.raises(Killed):
        of("test")
    dying(None)
    monkeypatch.setattr("ray_ns.train.precision.fast_precision", lambda gpu: "bfloat16")
    whole = of("test")
    assert (
        json.loads((Path(whole.url) / "run.json").read_text())["config"]["evaluate"]["label"]["precision"] == "float32"
    )
    assert [it.name for it in Path(whole.url).parent.glob("*/run.json") if it.parent != run] == ["run.json"]
    assert of("test") == whole
    if there:
        with pytest.raises(InputError) as error:
            of("fgsm:0.1")
        assert "evaluate.on" in str(error.value)
        assert "precision" not in str(error.value), "it is none of the user's"


def test_the_command_prints_a_table_or_json(run: Path, ray_ns: Call) -> None:
    left = ray_ns("evaluate", run, "--on", "test", *OVERRIDES)
    assert left.code == 0
    assert "judged in this process, without Ray" in left.err
    assert "teacher" in left.out
    assert "95 % interval" in left.out
    told = json.loads(ray_ns("evaluate", run, "--on", "test", *OVERRIDES, "--json").out)
    assert told["rows"][0]["figures"]["unreadable"] == 1
    assert ray_ns("verify", told["evaluation"]).code == 0
    assert ray_ns("status", told["evaluation"]).out.splitlines()[-1] == "finished"


def test_attacks_and_corruptions_are_judged_on_what_they_make_of_the_images(
    network: Path, pictures: Callable[..., list[bytes]], tmp_path: Path
) -> None:
    images, labels = pictures(6), [0, 1, 2] * 2
    folder = write_classes(tmp_path / "images", images, labels)
    order = np.argsort(labels, kind="stable")
    truth = np.array(labels)[order]
    found = judged(network, tmp_path / "out", f"fgsm:0.2@{folder}", f"corruptions@{folder}")
    attacked, corrupted = (row["figures"] for row in found.report["rows"])
    files = {it.name: it.read_bytes() for it in network.iterdir()}
    teacher = Teacher(from_files(files), DATA, ROWS, "float32", torch.device("cpu"))
    pixels = np.stack([Decode(16, 1)(images[at]) for at in order])
    said = teacher.attacked(pixels, truth, Attack(0.2))
    assert attacked["top1"] == pytest.approx((said.argmax(1) == truth).mean(), abs=1e-6)
    assert attacked["nll"] == pytest.approx(-np.log(said[np.arange(6), truth]).mean(), abs=1e-5)
    noisy = corruptions.corrupted(pixels, range(6), corruptions.CIFAR, "impulse_noise", 5)
    wrong = (teacher(noisy).argmax(1) != truth).mean()
    assert corrupted["corruptions"]["impulse_noise"][4] == pytest.approx(wrong, abs=1e-6)
    assert corrupted["left_out"] == ["spatter", "saturate"]
    assert len(list((tmp_path / "out").glob("judge-*/data/*/predictions.parquet"))) == 1 + 5 * 17


def test_perturbations_are_judged_frame_by_frame(
    network: Path, pictures: Callable[..., list[bytes]], tmp_path: Path
) -> None:
    images = [*pictures(5), b""]
    folder = write_classes(tmp_path / "images", images, [0] * 6)
    found = judged(network, tmp_path / "out", f"perturbations@{folder}")
    files = {it.name: it.read_bytes() for it in network.iterdir()}
    teacher = Teacher(from_files(files), DATA, ROWS, "float32", torch.device("cpu"))
    pixels = np.stack([Decode(16, 1)(it) for it in images[:5]])
    # An unreadable image is seen as black ones, and left out.
    seen = np.concatenate([pixels, np.zeros((1, 16, 16, 1), np.uint8)])
    of = perturbations.frames(seen, range(6), perturbations.CIFAR, "scale")
    said = np.stack([teacher(frame).argmax(1) for frame in of], 1)[:5]
    figures = found.report["rows"][0]["figures"]
    flipped = (said[:, 1:] != said[:, :-1]).mean()
    assert figures["perturbations"]["scale"] == {"flips": pytest.approx(flipped, abs=1e-6), "top5_distance": None}
    assert (figures["images"], figures["unreadable"]) == (6, 1)
    assert 0 < figures["flips"] < 1


def write_parquet(folder: Path, images: list[bytes], labels: list[int], rows: int) -> Path:
    """Files of ``rows`` images in one row group, the last one of which may have none."""
    folder.mkdir(parents=True)
    held = pa.table({"image": pa.array(images, pa.binary()), "label": pa.array(labels, pa.int64())})
    for begin in range(0, len(images) + 1, rows):
        pq.write_table(held.slice(begin, rows), folder / f"{begin}.parquet")
    return folder


def test_parts_without_an_image_change_no_figure_of_any_kind_of_suite(
    network: Path, pictures: Callable[..., list[bytes]], tmp_path: Path
) -> None:
    """A large row group is cut into parts, all but one of which have no image; and a file has none."""
    images, labels, found = [*pictures(5), b""], [0, 1, 1, 2, 0, 2], []
    kinds = ("{}", "among@{}", "fgsm:0.1@{}", "pgd:0.1:2@{}", "perturbations@{}", "imagenet-c@{}/c")
    for name, rows, shard_rows in (("whole", 7, 100), ("parts", 6, 2)):
        place = write_parquet(tmp_path / name / "images", images, labels, rows)
        write_parquet(tmp_path / name / "c/fog/2", images, labels, rows)
        on = [it.format(place if "/c" not in it else tmp_path / name) for it in kinds]
        how = (*OVERRIDES, f"label.shard_rows={shard_rows}")
        told = evaluate(str(network), on, str(tmp_path / f"out-{name}"), overrides=how, mode="plain")
        found.append([row["figures"] for row in told.report["rows"]])
    assert found[0] == found[1]
    assert [it["images"] for it in found[1]] == [6] * len(kinds)
    parts = [len(pq.read_table(it)) for it in sorted((tmp_path / "out-parts").rglob("predictions.parquet"))]
    assert {*parts} == {0, 6}


def test_among_some_classes_no_other_is_said(
    network: Path, images: list[bytes], pictures: Callable[..., list[bytes]], tmp_path: Path
) -> None:
    some = [image for image, label in zip(images, LABELS, strict=True) if label != 2]
    folder = write_classes(tmp_path / "images", some, [it for it in LABELS if it != 2])
    sure = write_network(tmp_path / "sure", bias=50.0)  # of class 2
    plain, cut = judged(sure, tmp_path / "out", folder, f"among@{folder}").report["rows"]
    assert (plain["figures"]["top1"], plain["kind"], cut["kind"]) == (0.0, "clean", "among")
    assert cut["figures"]["top1"] > 0.3
    assert np.array(cut["figures"]["confusion"])[:, 2].sum() == 0


def test_published_weights_of_imagenet_are_judged_on_folders_of_some_of_its_classes(
    pictures: Callable[..., list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ImageNet-A and -R are: named by WordNet, fewer than the network has classes. From the cache, without a net."""
    cached(tmp_path / "hub", monkeypatch)
    classes = {"n01498041": 6, "n01531178": 11, "n15075141": 999}
    for name, image in zip(classes, pictures(3), strict=True):
        (tmp_path / "some" / name).mkdir(parents=True)
        (tmp_path / "some" / name / "0.png").write_bytes(image)
    plain, cut = judged(PUBLISHED, tmp_path / "out", tmp_path / "some", f"among@{tmp_path / 'some'}").report["rows"]
    assert table(tmp_path / "out")["truth"].to_pylist() == [*classes.values()] * 2
    assert (plain["kind"], cut["kind"]) == ("clean", "among")
    assert {*table(tmp_path / "out" / cut["folder"])["label"].to_pylist()} <= {*classes.values()}
    (tmp_path / "some/n01531178").rename(tmp_path / "some/goldfinch")
    with pytest.raises(
        InputError, match=r"such as goldfinch, .* is timm's of ImageNet-1k, whose classes are n01440764"
    ):
        judged(PUBLISHED, tmp_path / "other", tmp_path / "some")


def test_names_taken_in_their_order_are_told_of(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_network(tmp_path / "plain", None)
    for _ in range(2):
        judged(plain, tmp_path / "out", folder)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("names no classes (label_names), so these are taken for 0 to 2 in the order of their names") == 1
    assert "of their names: cat = 0, dog = 1, eel = 2" in said


def test_of_many_names_the_first_and_the_last_are_told() -> None:
    assert ends([f"n{number}" for number in range(1_200)]) == (
        "n0 = 0, n1 = 1, n2 = 2, ..., n1197 = 1,197, n1198 = 1,198, n1199 = 1,199"
    )


def test_folders_named_by_the_numbers_of_the_classes_are_taken_so(network: Path, folder: Path, tmp_path: Path) -> None:
    named = judged(network, tmp_path / "out", folder)
    for number, name in enumerate(NAMES):
        (folder / name).rename(folder / str(number))
    numbered = judged(network, tmp_path / "numbers", folder)
    assert numbered.report["rows"][0]["figures"] == named.report["rows"][0]["figures"]


def test_images_that_a_run_held_out_of_its_labelled_ones_are_its_test_images(folder: Path, tmp_path: Path) -> None:
    labelled = Corpus.scan(str(folder), "image", "label")
    held_out = labelled.keeping([np.arange(30) % 5 == 0])
    store = ended_run(tmp_path / "run", DATA, network_files(), NAMES, held_out)
    hints.write(store, layout.PLACES, dict.fromkeys(("labelled", "test"), str(folder)))
    found = judged(tmp_path / "run", tmp_path / "out", "test")
    assert found.report["rows"][0]["figures"]["images_per_class"] == [2, 2, 2]
    assert table(tmp_path / "out")["path"].to_pylist() == [
        f"{NAMES[LABELS[at]]}/{at:03d}.png" for at in range(0, 30, 5)
    ]
    (folder / "cat/001.png").write_bytes((folder / "dog/011.png").read_bytes())
    with pytest.raises(InputError, match=r"001\.png has changed"):
        judged(tmp_path / "run", tmp_path / "again", "test")


def test_labels_that_are_reassessed_are_by_the_names_of_files(
    network: Path, images: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "images/cat").mkdir(parents=True)
    for at in range(5):
        (tmp_path / f"images/cat/ILSVRC2012_val_{at + 1:08d}.JPEG").write_bytes(images[at])
    files = {it.name: it.read_bytes() for it in network.iterdir()}
    said = by_hand(files, images[:5], ROWS)[0].argmax(1).tolist()
    real = [[said[0], 1], [(said[1] + 1) % 3], [], [0], [said[4]]]  # the fourth image cannot be read
    (tmp_path / "real.json").write_text(json.dumps(real))
    word = f"real:{tmp_path}/real.json@{tmp_path}/images"
    figures = judged(network, tmp_path / "out", word).report["rows"][0]["figures"]
    assert (figures["images"], figures["left_out"], figures["top1"]) == (4, 1, 0.5)
    assert table(tmp_path / "out")["real"].to_pylist() == real


def test_two_files_of_reassessed_labels_are_two_suites(network: Path, images: list[bytes], tmp_path: Path) -> None:
    """On the same images, beside each other and beside the images by their own labels; a record tells them apart."""
    place = tmp_path / "images"
    (place / "cat").mkdir(parents=True)
    (place / "cat/ILSVRC2012_val_00000001.JPEG").write_bytes(images[0])
    words = [str(place)]
    for name, labels in (("a", [[0, 1, 2]]), ("b", [[]])):
        (tmp_path / f"{name}.json").write_text(json.dumps(labels))
        words.append(f"real:{tmp_path}/{name}.json@{place}")
    found = judged(network, tmp_path / "out", *words)
    assert [row["figures"]["top1"] for row in found.report["rows"]][1:] == [1.0, None]
    assert judged(network, tmp_path / "out", *words) == found
    for number, word in enumerate(words):
        judged(network, tmp_path / f"out-{number}", word)
        for other in {*words} - {word}:
            with pytest.raises(InputError, match=r"(evaluate\.on: .*|other suites than --on names)\. Give another -o"):
                judged(network, tmp_path / f"out-{number}", other)
    with pytest.raises(InputError, match="is given twice"):
        judged(network, tmp_path / "twice", words[1], words[1])


def test_an_evaluation_by_reassessed_labels_that_was_begun_earlier_is_read(
    network: Path, images: list[bytes], tmp_path: Path
) -> None:
    """Its record named neither the labels nor their kind."""
    place = tmp_path / "images"
    (place / "cat").mkdir(parents=True)
    (place / "cat/ILSVRC2012_val_00000001.JPEG").write_bytes(images[0])
    (tmp_path / "a.json").write_text("[[0, 1, 2]]")
    word = f"real:{tmp_path}/a.json@{place}"
    found = judged(network, tmp_path / "out", word)
    path = tmp_path / "out/run.json"
    held = unseal(path.read_bytes(), "run.json")
    assert held["config"]["evaluate"]["on"][0].startswith("folder-1: real:")
    held["config"]["evaluate"]["on"] = ["folder-1: clean"]
    path.write_bytes(seal(held))
    assert judged(network, tmp_path / "out", word) == found
    for other in (str(place), f"real:{tmp_path}/b.json@{place}"):
        (tmp_path / "b.json").write_text("[[1]]")
        with pytest.raises(InputError, match=r"Give another -o"):
            judged(network, tmp_path / "out", other)
    assert len([*(tmp_path / "out").glob("judge-*")]) == 1


def test_images_that_no_suite_can_be_judged_on_are_refused_before_anything_is_written(
    network: Path, images: list[bytes], tmp_path: Path
) -> None:
    one = write_classes(tmp_path / "one", images[:3], [1, 1, 1])
    with pytest.raises(InputError, match="its images are all of one class"):
        judged(network, tmp_path / "out", f"among@{one}")
    (tmp_path / "real.json").write_text("[[0], [1]]")
    (tmp_path / "beyond/cat").mkdir(parents=True)
    for number in (1, 3):
        (tmp_path / f"beyond/cat/ILSVRC2012_val_{number:08d}.JPEG").write_bytes(images[0])
    rows = write_parquet(tmp_path / "rows", images[:3], [0, 1, 2], 3)
    for place, said in ((one, r"dog/000\.png"), (rows, r"0\.parquet"), (tmp_path / "beyond", r"val_00000003\.JPEG")):
        with pytest.raises(InputError, match=f"{said}: is none of the 2 images of --on real"):
            judged(network, tmp_path / "out", f"real:{tmp_path}/real.json@{place}")
    assert not (tmp_path / "out").exists()


VIEWS = ("noise/gaussian_noise/1", "noise/gaussian_noise/4", "fog/5", "extra/saturate/2")


@pytest.fixture
def published(pictures: Callable[..., list[bytes]], tmp_path: Path) -> Path:
    """Part of ImageNet-C as it is laid out: six images, others in each folder."""
    images = pictures(6 * len(VIEWS))
    images[7] = b""
    for at, view in enumerate(VIEWS):
        write_classes(tmp_path / "c" / view, images[6 * at : 6 * at + 6], [0, 0, 1, 1, 2, 2])
    return tmp_path / "c"


def test_published_corruptions_are_read_whole_from_their_folders(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = DATA.read_as(fit="crop", crop_share="paper", interpolation="bicubic")
    (tmp_path / "network").mkdir()
    for name, content in network_files(NAMES, 0.5, own).items():
        (tmp_path / "network" / name).write_bytes(content)
    found = judged(tmp_path / "network", tmp_path / "out", f"imagenet-c@{published}", published / "fog/5")
    files = network_files(NAMES, 0.5, own)
    errors: dict[str, list[float]] = {}
    row, clean = found.report["rows"]
    parts = sorted((tmp_path / "out" / row["folder"]).rglob("predictions.parquet"))
    for view, part in zip(VIEWS, parts, strict=True):
        paths = sorted((published / view).rglob("*.png"))
        probabilities, readable = by_hand(files, [it.read_bytes() for it in paths], ROWS, own.read_as(crop_share=1.0))
        rows = pq.read_table(part)
        assert rows["path"].to_pylist() == [str(it.relative_to(published / view)) for it in paths]
        assert rows["truth"].to_pylist() == [0, 0, 1, 1, 2, 2]
        np.testing.assert_array_equal(rows["confidence"].drop_null(), probabilities.max(1)[readable])
        wrong = (probabilities.argmax(1) != np.array([0, 0, 1, 1, 2, 2])) | ~readable
        errors.setdefault(view.split("/")[-2], []).append(pytest.approx(wrong.mean(), abs=1e-6))
    figures = row["figures"]
    assert figures["corruptions"] == errors
    assert (figures["images"], figures["unreadable"], figures["mce"]) == (6, 1, None)
    assert (figures["variant"], figures["crop"]) == ("published", "whole")
    assert {"gaussian_noise:2", "fog:1", "snow", "spatter"} < {*figures["left_out"]}
    own_crop = by_hand(files, [it.read_bytes() for it in sorted((published / "fog/5").rglob("*.png"))], ROWS, own)[0]
    nll = -np.log(own_crop[np.arange(6), [0, 0, 1, 1, 2, 2]]).mean()
    assert clean["figures"]["nll"] == pytest.approx(nll, abs=1e-5)  # the same folder as any other: by its own crop
    report.show(found.report, found.url, found.names)
    said = " ".join(capsys.readouterr().out.split())
    assert "mean of 2 of ImageNet-C's 15" in said
    assert "as published, each shown whole (CenterCrop(224) where it has 224 px)" in said
    assert "missing: gaussian_noise:2, gaussian_noise:3, gaussian_noise:5, shot_noise," in said
    assert "no mCE, which is of all 15 at every severity" in said


def test_published_corruptions_go_on_where_they_stopped(
    network: Path, published: Path, tmp_path: Path, dying: Callable[..., list[str]]
) -> None:
    written = dying(None)
    whole = judged(network, tmp_path / "whole", f"imagenet-c@{published}")
    for at in range(0, len(written), 3):
        dying(at)
        with pytest.raises(Killed):
            judged(network, tmp_path / "killed", f"imagenet-c@{published}")
        dying(None)
        assert judged(network, tmp_path / "killed", f"imagenet-c@{published}").report == whole.report
        assert records(tmp_path / "killed") == records(tmp_path / "whole")
        (tmp_path / "killed").rename(tmp_path / f"killed-{at}")
    write_classes(
        published / "fog/4", [it.read_bytes() for it in sorted((published / "fog/5").rglob("*.png"))], [0] * 6
    )
    with pytest.raises(InputError, match="another -o"):
        judged(network, tmp_path / "whole", f"imagenet-c@{published}")


def test_published_corruptions_of_other_images_are_refused_before_anything_is_written(
    network: Path, published: Path, tmp_path: Path
) -> None:
    (published / "fog/5/cat/000.png").rename(published / "fog/5/cat/009.png")
    said = (
        r"fog/5 has other images than .*gaussian_noise/1: 6 and 6, the first that differ are cat/000\.png and cat/001"
    )
    with pytest.raises(InputError, match=said):
        judged(network, tmp_path / "out", f"imagenet-c@{published}")
    (published / "fog/5/cat/009.png").rename(published / "fog/5/cat/000.png")
    (published / "fog/5/eel/005.png").unlink()
    with pytest.raises(InputError, match="5 and 6, the first that differ are the last ones"):
        judged(network, tmp_path / "out", f"imagenet-c@{published}")
    assert not (tmp_path / "out").exists()


def test_a_tar_for_each_severity_gives_the_figures_of_its_files(network: Path, published: Path, tmp_path: Path) -> None:
    for view in VIEWS:
        (tmp_path / "tars" / view).mkdir(parents=True)
        with tarfile.open(tmp_path / "tars" / view / "images.tar", "w") as tar:
            tar.add(published / view, ".")
    found = [
        judged(network, tmp_path / f"out-{it.name}", f"imagenet-c@{it}").report["rows"][0]["figures"]
        for it in (published, tmp_path / "tars")
    ]
    assert found[0] == found[1]


def test_the_lines_of_the_docs_convert_the_arrays_of_cifar_10_c(network: Path, tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/design/evaluation.md").read_text()
    lines = text.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "arrays").mkdir()
    rng = np.random.default_rng(0)
    pixels = {name: rng.integers(0, 256, (15, 16, 16, 3), np.uint8) for name in ("fog", "saturate")}
    labels = np.tile([0, 1, 2], 5).astype(np.uint8)
    for name, array in {**pixels, "labels": labels}.items():
        np.save(tmp_path / "arrays" / f"{name}.npy", array)
    (tmp_path / "convert.py").write_text(lines)
    subprocess.run([sys.executable, tmp_path / "convert.py", tmp_path / "arrays", tmp_path / "c"], check=True)
    figures = judged(network, tmp_path / "out", f"imagenet-c@{tmp_path / 'c'}").report["rows"][0]["figures"]
    assert {name: len(it) for name, it in figures["corruptions"].items()} == {"fog": 5, "saturate": 5}
    teacher = Teacher(from_files(network_files()), DATA, ROWS, "float32", torch.device("cpu"))
    image = io.BytesIO()
    Image.fromarray(pixels["fog"][9]).save(image, "PNG")
    first = teacher(np.asarray(Decode(16, 1)(image.getvalue()))[None])
    rows = table(tmp_path / "out").to_pylist()
    assert rows[9]["confidence"] == pytest.approx(first.max(), abs=1e-6)
    assert [it["truth"] for it in rows[:15]] == labels.tolist()
    with pytest.raises(InputError, match=r"holds no folder.*arrays"):
        judged(network, tmp_path / "no", f"imagenet-c@{tmp_path / 'arrays'}")
