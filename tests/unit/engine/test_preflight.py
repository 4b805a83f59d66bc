"""What cannot run is refused before Ray starts and before anything is written."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.labelled_folders import as_class_folders
from support.settings import MINIMAL
from support.tiny_run import write_tiny

from ray_ns.config import Config
from ray_ns.config.read import load, with_classes
from ray_ns.corpora.corpus import Corpus, count_per_class
from ray_ns.engine import preflight
from ray_ns.engine.opening import drive
from ray_ns.engine.stages import digests
from ray_ns.errors import InputError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("preflight"))


@pytest.fixture
def refused(tiny: Path, tmp_path: Path):
    """Drive the tiny config with overrides; the text of the refusal. Nothing may be left in the run directory."""

    def attempt(*overrides: str) -> str:
        run = tmp_path / "run"
        with pytest.raises(InputError) as caught, drive(str(tiny), [f"run.dir={run}", *overrides], "plain"):
            pass
        assert not run.exists()
        return str(caught.value)

    return attempt


def copied(tiny: Path, tmp_path: Path, name: str, table: pa.Table) -> str:
    """A corpus of one shard; the override that puts it in the place of ``name``."""
    folder = tmp_path / "corpora" / name
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "0.parquet")
    return f"data.{name}={folder}"


def test_a_config_that_can_run_passes_and_is_written_down(tiny: Path, tmp_path: Path) -> None:
    with drive(str(tiny), [f"run.dir={tmp_path / 'run'}"], "plain"):
        pass
    assert (tmp_path / "run/run.json").exists()
    assert (tmp_path / "run/corpora-1.json").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.pool=/nowhere", ["data.pool", "/nowhere"]),
        ("student.ratio=-1", ["student.ratio", "-1", "greater than or equal to 1"]),
        ("student.model.name=resnet10", ["student.model.name", "did you mean", "resnet10t"]),
        ("teacher.model.args={chanels: [1, 2]}", ["teacher.model.args", "chanels"]),
        ("data.label_column=class", ["class", "image, label"]),
        ("data.image_column=jpg", ["jpg", "image"]),
        ("data.classes=11", ["class 10", "data.classes"]),
        ("data.classes=9", ["label is 9", "0 .. 8"]),
        ("label.actors=2", ["label.actors", "2 x 1", "make 3", "cluster has 2", "cluster.cpus"]),
        ("cluster.train_threads=3", ["cluster.train_threads", "make 3", "cluster has 2"]),
        ("label.gpus_per_actor=1", ["label.gpus_per_actor", "1 GPUs"]),
        (
            "teacher={model: {name: vgg11}, steps: 4, batch: 4, train_size: 64, test_size: 24}",
            ["teacher.model.name", "cannot take images of 24 x 24", "test_size of the recipe"],
        ),
        ("teacher.finetune={steps: 2, freeze: 99}", ["teacher.finetune.freeze = 99", "layers"]),
        ("student.steps=5", ["student.optimizer.warmup_steps = 5", "student.steps = 5", "Lower it"]),
        ("teacher.fixres.size=28", ["teacher.fixres.size = 28", "trained at 28 pixels", "such as 35"]),
        ("teacher.fixres={size: 36, optimizer: {name: nope}}", ["teacher.fixres.optimizer.name", "nope"]),
        ("student.model.pretrained=/nowhere.safetensors", ["student.model.pretrained", "/nowhere.safetensors"]),
    ],
)
def test_bad_settings_are_refused_by_name(refused, override: str, words: list[str]) -> None:
    found = refused("cluster.cpus=2", override)
    for word in words:
        assert word in found


def test_fixres_after_a_fine_tuning_is_for_larger_images_than_that_has(refused) -> None:
    found = refused("student.finetune={steps: 2, size: 40}", "student.fixres.size=36")
    assert "student.fixres.size = 36: the network is trained at 40 pixels" in found


def test_fixres_of_a_network_without_batch_norm_is_refused_where_it_needs_one(refused) -> None:
    model = "teacher.model={name: convnext_atto, args: {depths: [1, 1, 1, 1], dims: [8, 8, 8, 8]}}"
    assert "teacher.fixres.variant = statistics" in refused(
        "data.size=32", model, "teacher.fixres={size: 64, variant: statistics}"
    )


def test_an_empty_pool_is_refused(refused, tiny: Path, tmp_path: Path) -> None:
    empty = pa.table({"image": pa.array([], pa.binary())})
    assert "holds no image" in refused(copied(tiny, tmp_path, "pool", empty))
    (tmp_path / "nothing").mkdir()
    assert "no *.parquet" in refused(f"data.pool={tmp_path / 'nothing'}")


def test_a_class_with_no_labelled_image_is_named(refused, tiny: Path, tmp_path: Path) -> None:
    table = pq.read_table(tiny.parent / "data/labelled")
    without = table.filter(pa.compute.not_equal(table["label"], 4))
    assert "no labelled image of class 4" in refused(copied(tiny, tmp_path, "labelled", without))


@pytest.mark.parametrize("place", ["file", "/proc/ray-ns"])
def test_a_run_directory_that_cannot_be_written_is_refused(tiny: Path, tmp_path: Path, place: str) -> None:
    run = tmp_path / "file" if place == "file" else Path(place)
    if place == "file":
        run.write_text("not a folder")
        run = run / "run"
    with (
        pytest.raises(InputError, match=r"cannot be (written|used)"),
        drive(str(tiny), [f"run.dir={run}"], "plain"),
    ):
        pass


def test_a_pool_that_grew_is_told_of_and_left_out(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = tmp_path / "pool"
    shutil.copytree(tiny.parent / "data/pool", pool)
    words = [f"run.dir={tmp_path / 'run'}", f"data.pool={pool}"]
    with drive(str(tiny), words, "plain") as session:
        first = session.corpora["pool"]
    shutil.copy2(pool / "0.parquet", pool / "00-new.parquet")
    with drive(str(tiny), words, "plain") as session:
        assert session.corpora["pool"] == first
    assert "data.pool: new shards left out: 1; --grow takes them in" in capsys.readouterr().err
    for _ in range(2):
        with drive(str(tiny), words, "plain", grow=True) as session:
            assert session.corpora["pool"].shards[:3] == first.shards
            assert session.pools == (3, 4)
            assert session.place == "pool-2/"
    with drive(str(tiny), words, "plain") as session:
        assert session.pools == (3, 4), "what was taken in stays in"


def images_of(corpus: Corpus) -> set[bytes]:
    readers = [corpus.open(shard) for shard in corpus.shards]
    return {one for it in readers for group in range(len(it.group_rows)) for one in it.images(group).to_pylist()}


@pytest.fixture
def folders(tiny: Path, tmp_path: Path) -> list[str]:
    """Overrides that put class folders in the place of the labelled images, and nothing in that of the others."""
    root = as_class_folders(tiny, tmp_path / "classes")
    return [f"labelled={root}", "validation=null", "test=null", "data.classes=null", f"run.dir={tmp_path / 'run'}"]


def test_class_folders_name_the_classes_and_are_divided_once_for_all(tiny: Path, folders: list[str]) -> None:
    with drive(str(tiny), folders, "plain") as session:
        first = dict(session.corpora)
        assert session.config.data.classes == 10
        assert session.class_names == tuple(f"digit-{label}" for label in range(10))
    parts = [images_of(first[name]) for name in ("labelled", "validation", "test")]
    assert [len(part) for part in parts] == [20, 10, 10]
    assert len(set.union(*parts)) == 40
    for name in ("labelled", "validation", "test"):
        assert count_per_class(first[name].labels(10), 10).tolist() == [len(images_of(first[name])) // 10] * 10
    with drive(str(tiny), folders, "plain") as session:
        assert session.corpora == first
    with drive(str(tiny), [*folders[:-1], f"{folders[-1]}-2", "run.seed=4"], "plain") as session:
        assert session.corpora["validation"] != first["validation"]


def test_a_run_that_was_begun_with_another_folder_says_so(tiny: Path, folders: list[str], tmp_path: Path) -> None:
    with drive(str(tiny), folders, "plain"):
        pass
    other = tmp_path / "other"
    for number, image in enumerate(sorted((tmp_path / "classes").rglob("*.png"))):
        place = other / image.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy2(image, place / f"new-{number}.png")
    with (
        pytest.raises(InputError, match=r"other: none of the 40 files that this run was begun with is here"),
        drive(str(tiny), [f"labelled={other}", *folders[1:]], "plain"),
    ):
        pass


def test_one_missing_corpus_is_held_out_beside_the_one_given(tiny: Path, folders: list[str], tmp_path: Path) -> None:
    test = as_class_folders(tiny, tmp_path / "test", per_class=1)
    words = [word for word in folders if not word.startswith("test=")]
    with drive(str(tiny), [*words, f"test={test}"], "plain") as session:
        assert session.corpora["test"].root == str(test)
        # The test digits are those of the labelled folder too: whatever part they fell into, they are out of it.
        labelled, validation = images_of(session.corpora["labelled"]), images_of(session.corpora["validation"])
        assert len(labelled | validation) == 30
        assert not (labelled | validation) & images_of(session.corpora["test"])


def test_nothing_is_held_out_where_the_user_says_so(
    refused, tiny: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*folders, "data.held_out=0"]
    assert "data.held_out: 0 holds none out" in refused(*words, "run.promote=validation")
    assert "student.eval_steps needs validation images" in refused(*words, "student.eval_steps=10")
    assert "label.temperature: auto needs validation images" in refused(*words, "label.temperature=auto")
    for _ in range(2):
        with drive(str(tiny), words, "plain") as session:
            assert len(images_of(session.corpora["labelled"])) == 40
            assert [session.corpora[name].shards for name in ("validation", "test")] == [(), ()]
            assert preflight.what_shows(session)[1]["test"] == {"images": 0, "visible_points": None}
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("data.held_out: 0: every labelled image trains. There are no validation and test images") == 1
    assert "data.validation: no images: no figure" in said


def test_counts_are_held_out_of_each_class(refused, tiny: Path, folders: list[str]) -> None:
    assert "data.held_out leaves little: lower it" in refused(*folders[:-1], "data.held_out=4")
    with drive(str(tiny), [*folders, "data.held_out=2"], "plain") as session:
        parts = [images_of(session.corpora[name]) for name in ("labelled", "validation", "test")]
        assert [len(part) for part in parts] == [20, 10, 10]


def test_a_grown_labelled_folder_is_told_of_once_and_left_out(
    tiny: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with drive(str(tiny), folders, "plain") as session:
        first = dict(session.corpora)
    place = Path(folders[0].partition("=")[2])
    (place / "new").mkdir()
    (place / "new/1.png").write_bytes(b"x")
    with drive(str(tiny), folders, "plain") as session:
        assert session.corpora == first
    assert capsys.readouterr().err.count("new shards") == 1


def test_images_that_train_and_evaluate_are_left_out_with_a_warning(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled, test = (pq.read_table(tiny.parent / "data" / name) for name in ("labelled", "test"))
    mixed = copied(tiny, tmp_path, "labelled", pa.concat_tables([labelled, test.slice(5, 2)]))
    with drive(str(tiny), [f"run.dir={tmp_path / 'run'}", mixed], "plain") as session:
        assert images_of(session.corpora["labelled"]) == set(labelled["image"].to_pylist())
        assert session.corpora["test"].shards[0].kept == ""
    said = " ".join(capsys.readouterr().err.split())
    assert "data.labelled: 2 images are in data.validation or data.test too and are left out, such as" in said
    assert "labelled/0.parquet row 1" in said
    assert "test/0.parquet row " in said


def broken(table: pa.Table, rows: list[int]) -> pa.Table:
    """The same with the images of these rows cut in half."""
    images = table["image"].to_pylist()
    for row in rows:
        images[row] = images[row][: len(images[row]) // 2]
    return table.set_column(table.column_names.index("image"), "image", pa.array(images, pa.binary()))


def test_labelled_images_that_cannot_be_read_are_left_out_with_a_warning(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = pa.concat_tables([pq.read_table(tiny.parent / "data/labelled")] * 2)
    labelled = copied(tiny, tmp_path, "labelled", broken(twice, [11]))
    test = copied(tiny, tmp_path, "test", broken(pq.read_table(tiny.parent / "data/test"), [3, 8]))
    words = [f"run.dir={tmp_path / 'run'}", labelled, test, "data.max_quarantined=0.05"]
    for _ in range(2):
        with drive(str(tiny), words, "plain") as session:
            assert sorted(count_per_class(session.corpora["labelled"].labels(10), 10).tolist()) == [1, *[2] * 9]
            assert len(images_of(session.corpora["test"])) == 100, "what evaluates stays, as wrong answers"
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("data.labelled: 1 of 20 images cannot be read and are left out (truncated 1; such as") == 1
    assert "labelled/0.parquet row 11)" in said
    assert "data.test: 2 of 100 images cannot be read and count as wrong answers (truncated 2; such as" in said


def test_too_many_labelled_images_that_cannot_be_read_are_refused(refused, tiny: Path, tmp_path: Path) -> None:
    table = broken(pq.read_table(tiny.parent / "data/labelled"), [2, 4])
    found = refused(copied(tiny, tmp_path, "labelled", table), "data.max_quarantined=0.1")
    for word in ("data.labelled: 2 of 10 images", "truncated 2", "0.parquet row 2,", "data.max_quarantined = 0.1"):
        assert word in found
    assert "every image of class" in refused(f"data.labelled={tmp_path / 'corpora/labelled'}", "data.max_quarantined=1")


def test_images_are_held_out_of_those_that_can_be_read(tiny: Path, folders: list[str], tmp_path: Path) -> None:
    for bad in range(3):
        (tmp_path / f"classes/digit-{bad}/bad.png").write_bytes(b"no image")
    with drive(str(tiny), [*folders, "data.max_quarantined=0.1"], "plain") as session:
        parts = [images_of(session.corpora[name]) for name in ("labelled", "validation", "test")]
    assert [len(part) for part in parts] == [20, 10, 10]
    assert b"no image" not in set.union(*parts)


def test_a_corpus_too_large_to_look_at_is_left_as_it_is(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "READ_BYTES", 1000)
    labelled = copied(tiny, tmp_path, "labelled", broken(pq.read_table(tiny.parent / "data/labelled"), [2]))
    with drive(str(tiny), [f"run.dir={tmp_path / 'run'}", labelled], "plain") as session:
        assert len(images_of(session.corpora["labelled"])) == 10
    assert "too large to read every image" in capsys.readouterr().err


def test_a_class_of_which_nothing_is_left_is_named(refused, tiny: Path, folders: list[str], tmp_path: Path) -> None:
    for image in sorted((tmp_path / "classes/digit-3").iterdir())[2:]:
        image.unlink()
    assert "class digit-3 has too few images to hold some out" in refused(*folders[:-1])
    every = as_class_folders(tiny, tmp_path / "all")
    words = [f"labelled={every}", f"test={every}", "data.classes=null"]
    assert "data.validation: every image of it is a test image too" in refused(*words, f"validation={every}")
    other = as_class_folders(tiny, tmp_path / "others", per_class=5)
    assert "every image of class digit-0 is a validation or test image" in refused(*words, f"validation={other}")


def test_classes_that_nothing_counts_are_asked_for(refused) -> None:
    assert "data.classes: missing" in refused("data.classes=null")


CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid_and_its_networks_can_be_built(path: Path) -> None:
    found = load(path)
    assert preflight.check_models(with_classes(found, found.data.classes or 10)) == []
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("command", "hardware", "time", "expect"):
        assert any(line.startswith(f"# {word} ") for line in header), word


def test_the_papers_chain_is_b7_and_three_l2_at_14_14_28() -> None:
    found = load(next(path for path in CONFIGS if path.stem == "imagenet-l2-three-rounds"))
    assert found.teacher.model.name == "efficientnet_b7"
    assert [(it.model.name, it.ratio) for it in found.students] == [
        ("efficientnet_l2", ratio) for ratio in (14, 14, 28)
    ]
    assert found.teacher.peak_lr == pytest.approx(0.128)
    used = {(it.used_on(found.data).size, it.in_the_end(found.data).size) for it in found.students}
    assert used == {(475, 800)}, "as its header says"


def test_a_student_smaller_than_its_teacher_is_told_of(tiny: Path) -> None:
    (warning,) = preflight.check_models(
        load(tiny, ["student.model.args={channels: [8, 8, 8, 8], stem_type: deep, stem_width: 4}"])
    )
    assert "student.model: " in warning
    assert "its teacher has " in warning


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["student.temperature=2", "label.keep=top", "label.top=5"], True),
        (["student.temperature=2", "label.keep=top", "label.top=10"], False),  # all 10 classes are kept
        (["student.temperature=2", "label.keep=full"], False),
        (["student.temperature=1", "label.keep=top", "label.top=5"], False),
        (["student.temperature=2", "label.keep=top", "label.top=5", "student.targets=hard"], False),
    ],
)
def test_a_temperature_beside_labels_that_are_cut_off_is_told_of(tiny: Path, words: list[str], told: bool) -> None:
    warnings = preflight.truncated(load(tiny, words))
    assert bool(warnings) == told
    assert all("student.temperature = 2 " in it and "label.keep: full" in it for it in warnings)


@pytest.mark.parametrize(
    ("size", "test_size", "told"), [(64, None, False), (64, 64, False), (64, 48, True), (32, 48, False)]
)
def test_a_fine_tuning_on_larger_images_than_the_network_is_used_on_is_told_of(
    tiny: Path, size: int, test_size: int | None, told: bool
) -> None:
    tuned = [f"student.finetune={{steps: 2, size: {size}}}", f"student.test_size={test_size or 'null'}"]
    warnings = preflight.shrunk(load(tiny, tuned))
    assert bool(warnings) == told
    assert all("fine-tuned at 64 px" in it and "at 48 px (test_size)" in it for it in warnings)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", ["none", "padded", "random_resized"])
def test_random_crops_that_are_resized_otherwise_than_test_images_are_told_of(
    tiny: Path, crop: str, interpolation: str
) -> None:
    words = [f"{it}.noise={{crop: {crop}, augment: flip}}" for it in ("teacher", "student")]
    warnings = preflight.crops(load(tiny, [*words, f"data.interpolation={interpolation}"]))
    assert len(warnings) == (2 if (crop, interpolation) == ("random_resized", "bilinear") else 0)
    assert all(
        f"{it}.interpolation: bicubic" in line for it, line in zip(("teacher", "student"), warnings, strict=False)
    )


def test_a_norm_that_a_group_of_workers_cannot_share_is_refused_by_its_recipe(tiny: Path) -> None:
    words = ["cluster.train_workers=2", "student.model={name: test_efficientnet, args: {norm_layer: evonormb0}}"]
    preflight.check_models(load(tiny, words))
    with pytest.raises(InputError, match=r"student\.model\.name: \S+ is a EvoNorm2dB0, which cluster\.bn_group"):
        preflight.check_models(load(tiny, [*words, "cluster.bn_group=2"]))


# Batch norm needs more than one value per channel; resnet10t ends in a map of one pixel at 28 pixels and stride 32.
SMALL = "teacher.model.args={channels: [8, 8, 8, 8]}"


@pytest.mark.parametrize(
    "overrides",
    [
        ("teacher.batch=1",),
        ("teacher.batch=2", "cluster.train_workers=2", "cluster.cpus=3"),
        ("teacher.batch=2", "cluster.train_workers=[1, 2]", "cluster.cpus=3"),
        ("teacher.batch=8", "cluster.train_microbatch=1"),
        ("teacher.batch=3", "cluster.train_microbatch=2"),  # two images and one
    ],
)
def test_one_image_at_a_time_is_too_few_for_batch_norm(refused, overrides: tuple[str, ...]) -> None:
    found = refused(SMALL, *overrides)
    assert found.startswith("teacher.batch: a training worker's network sees 1 images of 28 x 28 pixels at once")
    assert "cluster.train_microbatch" in found


@pytest.mark.parametrize(
    "overrides",
    [
        ("teacher.batch=2",),
        ("teacher.batch=1", "teacher.model={name: convnext_atto}", "data.size=32"),  # layer norm
        ("teacher.batch=1", "teacher.model.args={channels: [8, 8, 8, 8], output_stride: 8}"),  # more than one pixel
        ("teacher.batch=2", "student.batch=1", "student.ratio=1"),
    ],
)
def test_as_few_images_as_the_network_can_learn_from_pass(
    tiny: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    with drive(str(tiny), [f"run.dir={tmp_path / 'run'}", SMALL, *overrides], "plain"):
        pass


META = "run.method=meta_pseudo_labels"
STRIDE_32 = "student.model.args={channels: [8, 8, 8, 8]}"


def refuses(config: Config, told: str) -> None:
    """The networks of a config cannot be trained, and the words say why; without words they can."""
    with pytest.raises(InputError, match=told) if told else nullcontext():
        preflight.check_models(config)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((META, "student.batch=1", STRIDE_32), True),
        ((META, "student.batch=1", STRIDE_32, "mpl.feedback=cosine"), True),
        ((META, "student.batch=1", STRIDE_32, "mpl.reduced=true"), True),
        ((META, "student.batch=2", STRIDE_32, "cluster.train_workers=[1, 2]", "cluster.cpus=3"), True),
        ((META, "student.batch=1", STRIDE_32, "mpl.feedback=none"), False),
        ((META, "student.batch=2", STRIDE_32), False),
        ((META, "student.batch=2", STRIDE_32, "cluster.train_workers=2", "cluster.bn_group=2"), False),
        (("run.method=uda", "student.batch=1", STRIDE_32), False),
        (("run.method=pseudo_label", "student.batch=1", STRIDE_32), False),
    ],
)
def test_the_labelled_images_of_the_feedback_are_enough_alone(
    tiny: Path, overrides: tuple[str, ...], told: bool
) -> None:
    config = load(tiny, ["student.ratio=3", "run.rounds=1", *overrides])
    refuses(config, r"^student\.batch: a training worker's network sees 1 images of 28 x 28 pixels" if told else "")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((META, "student.train_size=24"), "cannot take images of 24 x 24"),
        ((META, "student.train_size=28"), ""),
        ((META, "student.train_size=24", "mpl.reduced=true"), ""),
        (("run.method=uda", "student.train_size=24"), ""),
    ],
)
def test_the_teacher_beside_a_student_learns_from_that_ones_images(
    tiny: Path, overrides: tuple[str, ...], told: str
) -> None:
    vit = "{name: vit_tiny_patch16_224, args: {patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2, img_size: 28}}"
    config = load(tiny, [f"teacher.model={vit}", "run.rounds=1", *overrides])
    refuses(config, rf"^teacher\.model\.name: vit.* {told}.*beside the student.*student.train_size" if told else "")


def test_each_corpus_may_have_columns_of_its_own(tiny: Path, tmp_path: Path) -> None:
    table = pq.read_table(next((tiny.parent / "data/test").glob("*.parquet"))).rename_columns(["png", "digit"])
    asked = [
        copied(tiny, tmp_path, "test", table),
        "data.image_columns={test: png}",
        "data.label_columns={test: digit}",
    ]
    with drive(str(tiny), [f"run.dir={tmp_path / 'run'}", *asked], "plain") as session:
        found = {name: (it.image_column, it.label_column) for name, it in session.corpora.items()}
    assert found == {
        "labelled": ("image", "label"),
        "validation": ("image", "label"),
        "test": ("png", "digit"),
        "pool": ("image", None),
    }


def test_each_corpus_is_told_in_one_line_before_anything_starts(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with drive(str(tiny), [f"run.dir={tmp_path / 'run'}"], "plain"):
        told = capsys.readouterr().err
    for name, words in {
        "labelled": "10 images in 10 classes: 0 1, 1 1",
        "test": "100 images in",
        "pool": "600",
    }.items():
        assert f"data.{name}: {words}" in told


@pytest.mark.parametrize("mpl", [{}, {"reduced": True}])
@pytest.mark.parametrize("method", ["noisy_student", "pseudo_label", "uda", "meta_pseudo_labels"])
def test_a_student_that_sees_no_true_label_is_told_of(method: str, mpl: dict[str, bool]) -> None:
    values = {**MINIMAL, "run": {**MINIMAL["run"], "method": method}, "mpl": mpl}
    tuned = {"student": MINIMAL["student"] | {"finetune": {"steps": 2}}}
    assert preflight.unlabelled(Config.model_validate(values | tuned)) == []
    found = preflight.unlabelled(Config.model_validate(values))
    assert len(found) == (method == "meta_pseudo_labels")
    assert all("student.finetune.steps = 0" in it and "\n" not in it for it in found)


def test_a_student_without_true_labels_is_told_of_before_anything_starts(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with drive(str(tiny), [f"run.dir={tmp_path / 'run'}", "run.method=meta_pseudo_labels"], "plain"):
        pass
    assert "student.finetune.steps = 0" in capsys.readouterr().err


DENSE = "name: densenet121, args: {growth_rate: 4, block_config: [1, 1, 1, 1]}"  # takes no drop_path
VIEWED = ("label.noised=true", "data.size=32")


def recipe(model: str) -> str:
    return f"{{model: {{{model}}}, steps: 4, batch: 4}}"


def test_a_teacher_that_cannot_be_noised_as_its_student_is_is_refused_before_it_is_trained(refused) -> None:
    found = refused(*VIEWED, f"teacher={recipe(DENSE)}")
    assert "label.noised: teacher.model labels with the first student's dropout and drop_path, and densenet" in found
    assert "takes no drop_path (drop_path_rate), found 0.1. Set it to 0 in student.model, or label.noised" in found


def test_so_is_a_student_that_labels_in_a_later_round(refused) -> None:
    students = f"student=[{recipe('name: resnet10t, drop_path: 0.2')}, {recipe(DENSE)}]"
    found = refused(*VIEWED, students, "run.rounds=3")
    assert "label.noised: student.1.model labels with the first student's" in found


@pytest.mark.parametrize(
    "overrides",
    [
        (f"teacher={recipe(DENSE)}", "student.model.drop_path=0"),
        (f"teacher={recipe(DENSE)}", "label.noised=false"),
        (f"teacher={recipe(DENSE)}", "run.method=supervised"),
        (f"student=[{recipe('name: resnet10t, drop_path: 0.2')}, {recipe(DENSE)}]", "run.rounds=2"),
        ("student.model={name: test_vit, args: {img_size: 32, patch_size: 4}, dropout: 0.2, drop_path: 0.2}",),
    ],
    ids=["a rate of 0", "not noised", "nothing is labelled", "it labels nothing", "it can"],
)
def test_what_can_be_noised_or_is_not_is_not_refused(tiny: Path, overrides: tuple[str, ...]) -> None:
    preflight.check_models(load(str(tiny), [*VIEWED, *overrides]))


def test_a_network_whose_dropout_is_not_one_row_for_each_image_is_refused_where_it_is_to_label(tiny: Path) -> None:
    from torch import nn

    config = load(str(tiny), VIEWED)
    data = config.data
    folded = nn.Sequential(nn.Flatten(0, 1), nn.Dropout(0.1))  # two channels for each image, as rows
    with pytest.raises(InputError, match="the network drops among 4 rows where 2 images go through it"):
        preflight.check_noised(config, "it", data.model_copy(update={"channels": 2}), lambda _: folded)
