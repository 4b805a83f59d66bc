"""Networks that are given, to label or to be round 0: fed as they were trained, copied, refused where another one."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from support.judged import DATA, NAMES, network_files, write_classes, write_network
from support.networks import SMALL, trained
from support.shards import write_as
from support.tiny_run import write_tiny

from ray_ns.artifacts.labels import LABELS, Labels
from ray_ns.artifacts.member import Member
from ray_ns.artifacts.report import report_of
from ray_ns.config import FED, Cluster, Config, Data, GivenTeacher, Label, Model
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine import teachers
from ray_ns.engine.check import check as look
from ray_ns.engine.judged import rivals
from ray_ns.engine.opening import drive
from ray_ns.engine.predict import in_this_process
from ray_ns.engine.run import Run
from ray_ns.engine.stages import label as labelling
from ray_ns.engine.stages.network import Copy
from ray_ns.engine.stages.report import Report
from ray_ns.engine.turns import Turns
from ray_ns.engine.workers.slices import Reader, Slice, decode_slice, decoded, distinct, read_all
from ray_ns.errors import InputError
from ray_ns.export import best
from ray_ns.export.network import given
from ray_ns.export.so_far import evaluated
from ray_ns.images.decode import Decode
from ray_ns.methods.outcome import Outcome
from ray_ns.models.files import CONFIG, WEIGHTS, from_files, to_files
from ray_ns.models.predictor import Teacher
from ray_ns.models.voting import Voting
from ray_ns.observe import Reporter
from ray_ns.seals import sha256
from ray_ns.store.commit import planned_inputs
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore
from ray_ns.store.verify import verify

ROWS = 8
FILES = network_files()
LARGER = DATA.model_copy(update={"size": 24, "mean": [0.2], "std": [0.3], "channels": 1})
Open = Callable[..., Run]


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a network of the same classes that sees larger images, normalised otherwise."""
    folder = tmp_path_factory.mktemp("larger")
    for name, content in to_files(trained(Model(name="resnet10t", args=SMALL), LARGER), LARGER, NAMES).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def images(pictures: Callable[..., list[bytes]]) -> list[bytes]:
    found = pictures(40)
    found[3] = b""
    return found


@pytest.fixture
def opened(images: list[bytes], tmp_path: Path) -> Open:
    own = Corpus.scan(str(write_classes(tmp_path / "own", images, [0, 1, 2, 2] * 10)), "image", "label", [], NAMES)
    pool = write_as("plain", tmp_path / "pool", images, ROWS)

    def open_(*others: Path, place: str = "run", **label: object) -> Run:
        told = {"slice_rows": ROWS, "precision": "float32", "teachers": ["round", *map(str, others)], **label}
        data = DATA.model_copy(update={"max_quarantined": 1.0})
        parts = {"data": data, "label": Label.model_validate(told), "cluster": Cluster(), "teacher": None}
        store, corpora = LocalStore(tmp_path / place), {"validation": own, "test": own, "pool": pool}
        config = Config.model_construct(**parts)  # type: ignore[arg-type]
        return Run(config, store, corpora, (len(pool.shards),), Lease(store), Reporter("plain"), NAMES)

    return open_


def begun(run: Run) -> Run:
    with run:
        teachers.take(run, teachers.check(run))
    return run


def labelled(run: Run) -> tuple[Labels, tuple[Member, ...]]:
    with run:
        run.execute = in_this_process()
        teacher = run.ensure("rounds/0/train", Copy(FILES))
        others = teachers.members(run)
        return run.ensure("rounds/1/label", labelling.Label(teacher, counted=False, others=others)), others


def table(labels: Labels, run: Run) -> pa.Table:
    return pa.concat_tables([pq.read_table(pa.BufferReader(it.objects[LABELS].read(run.store))) for it in labels.parts])


def by_hand(folder: Path | None, images: list[bytes], temperature: float = 1.0) -> np.ndarray:
    """Probabilities of the images that can be read, decoded as that network wants them."""
    data, files = DATA, FILES
    if folder is not None:
        data, files = LARGER, {it.name: it.read_bytes() for it in folder.iterdir()}
    pixels = np.stack([Decode(data.size, 1)(it) for it in images if it])  # type: ignore[misc]
    how = ROWS, "float32", torch.device("cpu")
    return Teacher(from_files(dict(files)), data, *how, voting=Voting(temperature))(pixels)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_labels_are_the_mean_of_networks_each_fed_as_it_was_trained(
    opened: Open, images: list[bytes], larger: Path, temperature: float
) -> None:
    run = begun(opened(larger, temperature=temperature, keep="full"))
    labels, _ = labelled(run)
    wanted = (by_hand(None, images, temperature) + by_hand(larger, images, temperature)) / 2
    found = table(labels, run)
    confidence = found["confidence"].drop_null().to_numpy()
    np.testing.assert_allclose(confidence, wanted.max(1), atol=1e-5)
    np.testing.assert_array_equal(found["label"].drop_null().to_numpy(), wanted.argmax(1))
    assert not np.allclose(confidence, by_hand(None, images, temperature).max(1), atol=1e-3)
    assert found["quarantine"].drop_null().to_pylist() == ["empty"]
    assert labels.others == 1


def test_each_has_a_temperature_of_its_own(opened: Open, larger: Path) -> None:
    run = begun(opened(larger, temperature="auto"))
    with run:
        run.execute = in_this_process()
        (other,) = teachers.members(run)
    assert run.store.get("teachers/1/calibrate/commit.json") is not None
    fed = other.network.fed(run.config.data)
    assert (fed.size, fed.mean, fed.classes) == (24, [0.2], 3)


def test_a_folder_that_is_gone_is_not_needed(opened: Open, larger: Path, tmp_path: Path) -> None:
    lent = tmp_path / "lent"
    shutil.copytree(larger, lent)
    begun(opened(lent))
    shutil.rmtree(lent)
    labels, _ = labelled(opened(lent))
    other, _ = labelled(begun(opened(larger, place="other")))
    assert labels.digest == other.digest, "where it lies decides nothing"


def test_another_network_in_its_place_is_refused_by_name(opened: Open, larger: Path, tmp_path: Path) -> None:
    lent = tmp_path / "lent"
    shutil.copytree(larger, lent)
    begun(opened(lent))
    shutil.rmtree(lent)
    write_network(lent)
    with pytest.raises(InputError, match=r"label.teachers: model.safetensors in .*lent is another one than when"):
        labelled(opened(lent))


def test_another_list_is_refused(opened: Open, larger: Path, tmp_path: Path) -> None:
    second = write_network(tmp_path / "second", bias=1.0)
    labelled(begun(opened(larger)))
    with pytest.raises(InputError, match="began with more than these 0"):
        labelled(opened())
    with pytest.raises(InputError, match="second is none of those that the run began with"):
        labelled(opened(larger, second))


def test_a_start_that_was_killed_takes_the_rest_later(opened: Open, larger: Path) -> None:
    late, _ = labelled(opened(larger))
    early, _ = labelled(begun(opened(larger, place="other")))
    assert late.digest == early.digest


def test_other_classes_are_refused_by_name(opened: Open, tmp_path: Path) -> None:
    other = write_network(tmp_path / "other", names=("cat", "dog", "eagle"))
    with pytest.raises(InputError, match=r"class 2 of .*other is 'eagle', that of the labelled images 'eel'"):
        teachers.check(opened(other))
    four = DATA.model_copy(update={"classes": 4})
    (tmp_path / "four").mkdir()
    for name, content in to_files(trained(Model(name="resnet10t", args=SMALL), four), four, None).items():
        (tmp_path / "four" / name).write_bytes(content)
    with pytest.raises(InputError, match=r"four has 4 classes, data.classes is 3"):
        teachers.check(opened(tmp_path / "four"))
    with pytest.raises(InputError, match=r"label.teachers: .*nowhere: no network is here"):
        teachers.check(opened(tmp_path / "nowhere"))


def test_alone_the_records_are_as_they_were(opened: Open) -> None:
    run = opened()
    labels, others = labelled(run)
    assert others == ()
    assert "others" not in labels.commit.summary
    assert "others" not in (planned_inputs(run.store, "rounds/1/label") or {})


def test_both_layouts_see_the_same_pixels_and_read_what_is_alike_once(opened: Open, larger: Path) -> None:
    run = begun(opened(larger))
    own, (member,) = run.config.data, teachers.members(run)
    other, normalised = member.network.fed(own), own.model_copy(update={"mean": [0.1], "std": [0.9]})
    feeds = distinct(run.config, [own, other, normalised, other])
    assert [it.data.size for it in feeds] == [16, 24]
    row = Slice("pool", 0, 0, 0, 0, ROWS).as_row()
    batch = {name: np.array([value], object) for name, value in row.items()}
    there = decoded(decode_slice(batch, run.corpora, feeds))
    here = read_all([Reader(it) for it in feeds], run.corpora, Slice.of_row(row))
    assert there is not None
    for one, two in zip(there[0], here[0], strict=True):
        np.testing.assert_array_equal(one, two)
    assert [it.shape[1] for it in here[0]] == [16, 24]
    assert there[1:] == here[1:]
    assert here[1][3] == "empty"


# A teacher that is given.


DIGITS = Data.model_validate(
    {"labelled": "l", "pool": "p", "classes": 10, "size": 24, "channels": 1, "mean": [0.2], "std": [0.4]}
)
TEN = {"channels": [8, 16, 16, 16], "stem_type": "deep", "stem_width": 4, "output_stride": 16}


def write_teacher(folder: Path, bias: float = 0.0, data: Data = DIGITS) -> Path:
    """A folder of a network as the teacher of ``tiny_run``, that is fed otherwise."""
    network = trained(Model(name="resnet10t", args=TEN), data)
    with torch.no_grad():
        network.fc.bias += bias
    folder.mkdir()
    for name, content in to_files(network, data).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def words(tmp_path: Path) -> Callable[..., list[str]]:
    def made(place: Path | str, **settings: str) -> list[str]:
        more = [f"teacher.{name}={value}" for name, value in settings.items()]
        return [f"run.dir={tmp_path / 'run'}", f"teacher.from={place}", *more]

    return made


def hash_of(folder: Path) -> str:
    return sha256((folder / WEIGHTS).read_bytes())


def test_round_0_is_the_network_that_was_given_fed_as_it_wants_and_nothing_is_trained(
    tiny: Path, words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lent = write_teacher(tmp_path / "lent")
    with drive(str(tiny), words(lent / WEIGHTS), "plain") as run:
        run.execute = in_this_process()
        taken = Turns(run).turn(0).take(cast(GivenTeacher, run.config.teacher))
        outcome = Outcome([taken], "auto")
        run.ensure("report", Report(outcome))
        best.put(run.store, cast(Any, report_of(run.store)), run.lease.check)
    assert json.loads((tmp_path / "run/run.json").read_text())["config"]["teacher"] == {"sha256": hash_of(lent)}
    network = evaluated(run.store, "rounds/0")
    assert network is not None
    assert (network.place, network.weights_sha256) == ("rounds/0/network", hash_of(lent))
    assert [getattr(network.fed(run.config.data), name) for name in FED] == [getattr(DIGITS, name) for name in FED]
    row = outcome.as_json()["rounds"][0]
    weights = trained(Model(name="resnet10t", args=TEN), DIGITS).parameters()
    assert (row["model"], row["given"], row["parameters"]) == ("resnet10t", True, sum(it.numel() for it in weights))
    assert row["test_top1"] == pytest.approx(top1_by_hand(lent, tiny.parent / "data/test"))
    assert not (tmp_path / "run/rounds/0/train").exists()
    assert not [fault for _, fault in verify(run.store) if fault]
    assert "**0: teacher, given (this network)**" in (tmp_path / "run/best/README.md").read_text()
    for place in (tmp_path / "run", tmp_path / "run/best"):  # which may be given in turn
        assert sha256(given(str(place)).files[WEIGHTS]) == hash_of(lent)
    (judged,) = rivals(str(tmp_path / "run"), ["teacher"])
    assert judged.given.data.size == DIGITS.size
    said = capsys.readouterr().err
    assert "teacher.from: resnet10t, " in said
    assert "taken by their numbers, which have no names" in said


def top1_by_hand(folder: Path, images: Path) -> float:
    """Of a teacher, on images decoded as it wants them."""
    decode = Decode.of(DIGITS)
    table = pq.read_table(sorted(images.glob("*.parquet")))
    pixels = np.stack([decode(it) for it in table["image"].to_pylist()])  # type: ignore[misc]
    network = from_files({name: (folder / name).read_bytes() for name in (WEIGHTS, CONFIG)})
    said = Teacher(network, DIGITS, 64, "float32", torch.device("cpu"))(pixels).argmax(1)
    return float((said == table["label"].to_numpy()).mean())


NINE = DIGITS.model_copy(update={"classes": 9})


@pytest.mark.parametrize(
    ("break_", "settings", "said"),
    [
        (lambda it: shutil.rmtree(it), {}, "teacher.from: .*lent: no network is here"),
        (lambda it: (it / WEIGHTS).write_bytes(b"none"), {}, "teacher.from: .* make no network"),
        (lambda it: (it / CONFIG).write_bytes(b"{}"), {}, "teacher.from: .* is not timm's description"),
        (lambda it: (it / CONFIG).unlink(), {}, f"teacher.from: .*no network is here .no {CONFIG}"),
        (lambda it: None, {"sha256": "0" * 64}, f"teacher.sha256: the weights in .*lent have .*, expected {'0' * 64}"),
        (lambda it: (shutil.rmtree(it), write_teacher(it, data=NINE)), {}, "has 9 classes, data.classes is 10"),
    ],
    ids=["missing", "no weights", "no config", "one file", "another hash", "other classes"],
)
def test_what_cannot_be_round_0_is_refused_before_anything_is_written(
    tiny: Path,
    words: Callable[..., list[str]],
    tmp_path: Path,
    break_: Callable[[Path], object],
    settings: dict[str, str],
    said: str,
) -> None:
    break_(write_teacher(tmp_path / "lent"))
    with pytest.raises(InputError, match=said), drive(str(tiny), words(tmp_path / "lent", **settings), "plain"):
        pass
    assert not (tmp_path / "run/run.json").exists()


def test_a_given_teacher_that_cannot_be_noised_as_its_student_is_is_refused(
    tiny: Path, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    lent, data = tmp_path / "lent", DIGITS.model_copy(update={"size": 32})
    lent.mkdir()
    for name, content in to_files(trained(Model(name="lcnetv2_small"), data), data).items():
        (lent / name).write_bytes(content)
    asked = [*words(lent), "label.noised=true"]
    refusal = r"label\.noised: teacher\.from labels .* lcnetv2_small takes no drop_path .*, found 0\.1\. Set it to 0"
    with pytest.raises(InputError, match=refusal), drive(str(tiny), asked, "plain"):
        pass
    with pytest.raises(InputError, match=refusal):
        list(look(str(tiny), asked))
    assert not (tmp_path / "run/run.json").exists()
    with drive(str(tiny), [*asked, "student.model.drop_path=0"], "plain"):
        pass


WIDER = "student.model.args={channels: [8, 16, 16, 32], stem_type: deep, stem_width: 4, output_stride: 16}"
UNLIKE = r"round {}: its teacher may be resnet10t of .*lent.*layer4.* is \[16, .*\] there, \[32, .*\] here"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["student.init=teacher"], None),
        ([WIDER], None),
        (["student.init=teacher", WIDER], UNLIKE.format(1)),
        (["student.init=teacher", "student.model.name=resnet18"], "round 1: .* there, .* here"),
        (["student.init=teacher", "student.model={name: test_vit, args: {img_size: 28, patch_size: 4}}"], "nothing"),
    ],
)
def test_a_student_begins_with_its_weights_only_where_they_fit(
    tiny: Path, words: Callable[..., list[str]], tmp_path: Path, more: list[str], said: str | None
) -> None:
    told = [*words(write_teacher(tmp_path / "lent")), *more]
    with pytest.raises(InputError, match=said) if said else nullcontext(), drive(str(tiny), told, "plain"):
        pass
    assert (tmp_path / "run/run.json").exists() == (said is None)


@pytest.mark.parametrize(("patience", "refused"), [(1, False), (2, True)])
def test_a_later_student_too_where_round_0_may_still_be_its_teacher(
    tiny: Path, words: Callable[..., list[str]], tmp_path: Path, patience: int, refused: bool
) -> None:
    values = yaml.safe_load(tiny.read_text())
    wide = {**values["student"]["model"], "args": yaml.safe_load(WIDER.partition("=")[2])}
    later = {**values["student"], "model": wide, "init": "teacher"}
    values |= {"student": [{**values["student"], "model": wide}, later], "teacher": {"from": str(tmp_path / "lent")}}
    values["run"] |= {"dir": str(tmp_path / "run"), "rounds": 2, "patience": patience}
    write_teacher(tmp_path / "lent")
    with pytest.raises(InputError, match=UNLIKE.format(2)) if refused else nullcontext(), drive(values, [], "plain"):
        pass


def test_a_smaller_student_is_told_of(
    tiny: Path, words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    less = "student.model.args={channels: [4, 8, 8, 8], stem_type: deep, stem_width: 4, output_stride: 16}"
    with drive(str(tiny), [*words(write_teacher(tmp_path / "lent")), less], "plain"):
        pass
    assert "warning: student.model: " in capsys.readouterr().err


def change_feed(folder: Path) -> None:
    told = json.loads((folder / CONFIG).read_text())
    told["pretrained_cfg"]["mean"] = [0.9]
    (folder / CONFIG).write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: (shutil.rmtree(it), write_teacher(it, bias=1.0)), f"{WEIGHTS} in .* is another one than when"),
        (change_feed, f"{CONFIG} in .* is another one than when the run began"),
        (shutil.rmtree, None),
        (lambda it: it.rename(it.parent / "elsewhere"), None),
    ],
    ids=["weights", "config", "gone", "moved"],
)
def test_a_run_goes_on_with_the_network_that_it_began_with(
    tiny: Path,
    words: Callable[..., list[str]],
    tmp_path: Path,
    change: Callable[[Path], object],
    said: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lent = write_teacher(tmp_path / "lent")
    with drive(str(tiny), words(lent), "plain") as run:
        began = teachers.first(run, cast(GivenTeacher, run.config.teacher)).digest
    change(lent)
    with drive(str(tiny), words(lent), "plain") as run:
        teacher = cast(GivenTeacher, run.config.teacher)
        if said is not None:
            with pytest.raises(InputError, match=f"teacher.from: {said}"):
                teachers.first(run, teacher)
            return
        assert teachers.first(run, teacher).digest == began
    assert "The run goes on with its own copy" in capsys.readouterr().err
    moved = tmp_path / "elsewhere"
    if moved.exists():
        with drive(str(tiny), words(moved), "plain") as run:
            assert teachers.first(run, cast(GivenTeacher, run.config.teacher)).digest == began
        assert "goes on with its own copy" not in capsys.readouterr().err, "where it lies decides nothing"


def test_a_pin_that_is_another_hash_than_the_runs_is_refused_by_name(
    tiny: Path, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    lent = write_teacher(tmp_path / "lent")
    for _ in range(2):
        with drive(str(tiny), words(lent), "plain"):
            pass
    with drive(str(tiny), words(lent, sha256=hash_of(lent)), "plain"):
        pass
    with (
        pytest.raises(InputError, match=f"teacher.sha256: '{hash_of(lent)}' -> '{'a' * 64}'"),
        drive(str(tiny), words(lent, sha256="a" * 64), "plain"),
    ):
        pass


@pytest.mark.parametrize("began", ["trained", "given"])
def test_a_run_does_not_change_between_a_recipe_and_a_network(
    tiny: Path, words: Callable[..., list[str]], tmp_path: Path, began: str
) -> None:
    given = words(write_teacher(tmp_path / "lent"))
    first, second = (given[:1], given) if began == "trained" else (given, given[:1])
    with drive(str(tiny), first, "plain"):
        pass
    with (
        pytest.raises(InputError, match=r"belongs to another config; it differs in: teacher\."),
        drive(str(tiny), second, "plain"),
    ):
        pass


def test_a_start_that_was_killed_before_it_was_copied_takes_it_later(
    tiny: Path, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    lent = write_teacher(tmp_path / "lent")
    with drive(str(tiny), words(lent), "plain"):
        pass
    shutil.rmtree(tmp_path / "run/rounds")
    write_teacher(tmp_path / "other", bias=1.0)
    other = drive(str(tiny), words(tmp_path / "other"), "plain")
    with other as run, pytest.raises(InputError, match=r"teacher\.sha256: the weights in .*other have"):
        teachers.first(run, cast(GivenTeacher, run.config.teacher))
    with drive(str(tiny), words(lent), "plain") as run:
        assert teachers.first(run, cast(GivenTeacher, run.config.teacher)).weights_sha256 == hash_of(lent)


def test_a_fork_may_have_another_teacher_and_takes_one_that_is_the_same(
    tiny: Path, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    lent, other = write_teacher(tmp_path / "lent"), write_teacher(tmp_path / "other", bias=1.0)
    with drive(str(tiny), words(lent), "plain"):
        pass
    for name, place in {"same": lent, "another": other}.items():
        override = [f"run.dir={tmp_path / name}", *words(place)[1:]]
        with drive(str(tiny), override, "plain", fork=str(tmp_path / "run")) as run:
            assert teachers.first(run, cast(GivenTeacher, run.config.teacher)).weights_sha256 == hash_of(place)
        assert (tmp_path / name / "rounds/0/network/data").exists() == (place == other)


def test_check_labels_with_it_and_estimates_no_training(
    tiny: Path, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    found = {it.what: it for it in look(str(tiny), words(write_teacher(tmp_path / "lent")))}
    assert "train teacher" not in found
    assert found["teacher"].figures["model"] == "resnet10t"
    assert found["evaluate"].figures["images"] == 64
    assert {"label", "select", "train student"} < found.keys()
    assert found["in all"].figures["seconds"]["teacher"] == 0
    assert found["in all"].figures["bytes"] > 4 * found["teacher"].figures["parameters"]
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="the weights in"):
        list(look(str(tiny), words(tmp_path / "lent", sha256="a" * 64)))
