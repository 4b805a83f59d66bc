"""Refuse what cannot run before anything expensive starts: corpora, classes, networks, resources."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ray_ns.config import (
    Cluster,
    Config,
    CorpusName,
    Data,
    MetaStudent,
    ReducedStudent,
    Student,
    Training,
    TwoViewStudent,
    read,
)
from ray_ns.config.unused import unused
from ray_ns.corpora import layout
from ray_ns.corpora.classes import class_count, class_names
from ray_ns.corpora.corpus import Corpus, Shard, count_per_class
from ray_ns.engine import sorting
from ray_ns.engine.overlap import EVALUATED, LABELLED, class_name
from ray_ns.engine.resources import check_resources, local_cpus
from ray_ns.engine.run import Run
from ray_ns.engine.workers.teacher import noise_of
from ray_ns.errors import InputError
from ray_ns.evaluate import verdict
from ray_ns.observe import Reporter

if TYPE_CHECKING:
    from torch import nn


def scan_corpora(
    config: Config, known: dict[str, list[Shard]], reporter: Reporter, grow: bool = False
) -> dict[str, Corpus]:
    """The run's corpora by name. ``known``: the shards that an earlier start of the run saw, with their ordinals.

    Known files that differ in their time alone are ``Corpus.touched``; ``touched.compare`` reads them. New shards are
    reported and left out, except of the pool where it may ``grow``. Validation or test images that are held out of the
    labelled corpus are all of it at first; ``overlap.divide`` splits it.
    """
    data = config.data
    corpora: dict[str, Corpus] = {}
    for name in (*LABELLED, "pool"):
        own = cast(CorpusName, name if getattr(data, name) is not None else "labelled")  # held out of it
        image_column = data.image_columns.get(own, data.image_column)
        label_column = data.label_columns.get(own, data.label_column) if name in LABELLED else None
        root = getattr(data, name) or data.labelled
        try:
            names = corpora["labelled"].class_names() if name in EVALUATED else None
            corpus = Corpus.scan(root, image_column, label_column, known.get(name, ()), names, True)
        except InputError as error:
            raise InputError(f"data.{name}: {error}") from error
        if name not in known and root == getattr(data, name):
            layout.refuse(corpus, f"data.{name}", data.max_passed_over)
        corpora[name] = corpus
        if name in known and not (grow and name == "pool"):
            note = reporter if getattr(data, name) is not None else None  # else the labelled corpus has noted it
            corpora[name] = as_known(
                corpus, known[name], f"data.{name}", "--grow" if name == "pool" else "a new run.dir", note
            )
    return corpora


def as_known(corpus: Corpus, known: Sequence[Shard], name: str, taken_in_by: str, reporter: Reporter | None) -> Corpus:
    """The corpus with the ``known`` shards alone. Notes how many new ones are left out, and what would take them in."""
    new = len(corpus.shards) - len(known)
    if new and reporter is not None:
        reporter.note(f"{name}: new shards left out: {new}; {taken_in_by} takes them in.")
    return replace(corpus, shards=tuple(known))


def with_classes(config: Config, corpora: dict[str, Corpus]) -> tuple[Config, tuple[str, ...] | None]:
    """The config with the number of classes, from the corpora where it names none; and the names of the classes."""
    names = class_names(config.data, corpora)
    return read.with_classes(config, class_count(config.data, names)), names


def check_writable(url: str, setting: str = "run.dir") -> None:
    """Raise ``InputError`` where the run directory, which ``setting`` names, cannot be made or written."""
    if "://" in url:
        return  # an object store: the first write shows it, before anything expensive
    folder = Path(url)
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{setting}={url}: {folder} cannot be written ({error.strerror}). Give another {setting}."
        ) from error


def fewest_images(recipe: Training, cluster: Cluster) -> int:
    """The fewest images that a network sees at once in training: a worker's microbatch, with the most workers."""
    share = _together(recipe) // cluster.worker_counts[-1]
    parts = -(-share // (cluster.train_microbatch or share))
    return share // parts


def _together(recipe: Training) -> int:
    """The fewest images, over all workers, that go through a recipe's network together."""
    if not isinstance(recipe, Student):
        return recipe.batch
    selected = recipe.batch * recipe.ratio
    if isinstance(recipe, MetaStudent | ReducedStudent):  # labelled images alone, where it is asked how the step went
        return selected if recipe.mpl.feedback == "none" else recipe.batch
    return recipe.batch + selected * (2 if isinstance(recipe, TwoViewStudent) else 1)


def check_models(config: Config) -> list[str]:
    """Build every network without memory for its weights. Returns a warning for each student that is too small.

    Raises ``InputError`` where a network, its first weights, its optimiser or its fine-tuning cannot be built.
    """
    known: list[tuple[Training, int]] = []  # rounds often share a recipe
    sizes = []
    for place, recipe in config.recipes().items():
        try:
            size = next((size for same, size in known if same == recipe), None)
            sizes.append(_parameters(config, recipe) if size is None else size)
        except InputError as error:
            raise InputError(f"{place}.{error}") from error
        known.append((recipe, sizes[-1]))
    for student in config.students:
        if isinstance(student, MetaStudent):
            _check_beside(student, config)
    _check_labelling(config)
    pairs = zip(list(config.recipes())[1:], sizes, sizes[1:], strict=False)
    return [warning for place, before, after in pairs for warning in _smaller(place, after, before)]


def smaller(config: Config, given: int) -> list[str]:
    """A warning where the first student has fewer parameters than a teacher that is ``given``."""
    from ray_ns.models import zoo

    place, recipe = next(iter(config.recipes().items()))
    return _smaller(place, zoo.parameters(zoo.check(recipe.model, recipe.used_on(config.data))), given)


def _smaller(place: str, student: int, teacher: int) -> list[str]:
    if student >= teacher:
        return []
    return [
        f"{place}.model: {student:,} parameters, its teacher has {teacher:,}. Noisy Student wants an equal or larger "
        f"student; a smaller one is distillation."
    ]


def unlabelled(config: Config) -> list[str]:
    """A warning for a student that sees no true label, beside controls that do."""
    return [
        f"student.finetune.steps = 0: by run.method: {config.run.method} the student then sees no true label; UDA, "
        f"pseudo labels and labels alone beside it do. student.finetune.steps: {max(1, it.steps // 100)} with a small "
        f"student.finetune.optimizer.lr mends it."
        for it in config.students
        if isinstance(it, MetaStudent | ReducedStudent) and not it.finetune.steps
    ]


def truncated(config: Config) -> list[str]:
    """A warning for each student whose temperature works on labels of which only the top few are kept."""
    label, classes = config.label, config.data.classes
    if label.keep != "top" or label.top >= classes:
        return []
    return [
        f"{place}.temperature = {recipe.temperature:g} changes all {classes:,} probabilities of a soft label, and "
        f"label.keep: top keeps {label.top}; the others count as equal. label.keep: full keeps all."
        for place, recipe in config.recipes().items()
        if isinstance(recipe, Student) and recipe.targets == "soft" and recipe.temperature != 1
    ]


def shrunk(config: Config) -> list[str]:
    """A warning for each network that is fine-tuned on larger images than it is then used on."""
    found = {place: recipe for place, recipe in config.recipes().items() if recipe.tuning is not None}
    sizes = {place: (it.tuned_on(config.data).size, it.in_the_end(config.data).size) for place, it in found.items()}
    return [
        f"{place}: it is fine-tuned at {tuned} px (finetune.size), then labels and is evaluated at {used} px "
        f"(test_size). test_size: null uses it at {tuned}."
        for place, (tuned, used) in sizes.items()
        if used < tuned
    ]


def crops(config: Config) -> list[str]:
    """A warning for each recipe whose random crops are resized otherwise than its test images."""
    return [
        f"{place}.noise.crop: random_resized resizes bicubic, and its test images are resized {used.interpolation}. "
        f"{place}.interpolation: bicubic makes both alike."
        for place, recipe in config.recipes().items()
        if recipe.noise.crop == "random_resized" and (used := recipe.used_on(config.data)).interpolation != "bicubic"
    ]


def _parameters(config: Config, recipe: Training) -> int:
    """How many parameters the network of a recipe has, where it can be trained, tuned and corrected as that says."""
    from ray_ns.models import zoo
    from ray_ns.models.batch_norm import check_shareable
    from ray_ns.train.optim import optimizer

    trained = config.as_trained(recipe) if isinstance(recipe, Student) else recipe
    network = _check_model(trained, config.data, config.cluster)
    if config.cluster.bn_group > 1:
        check_shareable(network)
    zoo.pretrained_file(recipe.model)
    if recipe.tuning is not None:
        tuned = _check_model(recipe.tuning, recipe.tuned_on(config.data), config.cluster)
        zoo.freeze(tuned, recipe.finetune.freeze)
        optimizer(tuned, recipe.tuning)
    if recipe.fixing is not None:
        check_fixres(config, recipe, recipe.fixing)
    return zoo.parameters(network)


def _check_model(recipe: Training, data: Data, cluster: Cluster) -> "nn.Module":
    """The network of one training, without memory for its weights, checked at the sizes it trains and is used at."""
    from ray_ns.models import spared, zoo
    from ray_ns.train.optim import optimizer

    trained, used = recipe.trained_on(data), recipe.used_on(data)
    if used.size != trained.size:
        zoo.check(recipe.model, used)
    network = zoo.check(recipe.model, trained)
    zoo.check_batch(network, trained, fewest_images(recipe, cluster) * cluster.bn_group)
    if isinstance(recipe, Student):
        spared.check(network, trained, fewest_images(recipe, cluster), recipe.pseudo_noise)
    optimizer(network, recipe)
    return network


def _check_beside(student: MetaStudent, config: Config) -> None:
    """Raise ``InputError`` where the teacher cannot be trained beside the ``student``, on that one's images."""
    from ray_ns.models import zoo
    from ray_ns.train.optim import optimizer

    teacher, data = student.of_teacher, student.trained_on(config.data)
    images = student.batch * (1 + 2 * student.ratio) // config.cluster.worker_counts[-1]
    try:
        network = zoo.check(teacher.model, data)
        zoo.check_batch(network, data, images * config.cluster.bn_group)
        optimizer(network, teacher)
    except InputError as error:
        raise InputError(
            f"teacher.{error} run.method: meta_pseudo_labels trains it beside the student, on that one's images: "
            f"student.train_size, student.batch."
        ) from error


def _check_labelling(config: Config) -> None:
    """Raise ``InputError`` where a network that is trained here, and may label the pool, cannot as ``label`` says."""
    from ray_ns.models.files import made

    named = config.recipes()
    students = [place for place, recipe in named.items() if isinstance(recipe, Student)]
    rounds = {at for number in range(1, config.run.rounds + 1) for at in config.may_teach(number)}
    places = dict.fromkeys("teacher" if at == 0 else students[min(at, len(students)) - 1] for at in sorted(rounds))
    for place in places:
        if place in named:
            recipe, data = named[place], named[place].in_the_end(config.data)
            args = {"num_classes": data.classes, "in_chans": data.channels, **recipe.model.args}
            check_noised(config, f"{place}.model", data, partial(made, recipe.model.name, args=args))


def check_noised(config: Config, called: str, data: Data, make: Callable[[Mapping[str, float]], "nn.Module"]) -> None:
    """Raise ``InputError`` where a network cannot be noised as ``label.noised`` asks, and it does.

    ``called``: the network, in words; ``make``: builds it with such rates of dropout and drop path.
    """
    import torch

    if not config.label.noised or not config.uses_pool:
        return
    by = noise_of(config)
    with torch.device("meta"):
        try:
            network = make(by.rates).eval()
        except InputError as error:
            raise InputError(
                f"label.noised: {called} labels with the first student's dropout and drop_path, and {error}. Set it to "
                f"0 in student.model, or label.noised to false, or give another network than {called}"
            ) from error
        with by.noising(data.size).on(network, np.arange(2)):
            network(torch.empty(2, data.channels, data.size, data.size))


def check_fixres(config: Config, recipe: Training, fixing: Training) -> None:
    """Raise ``InputError`` where the recipe's correction for larger images cannot be made, or its shifts not be had."""
    from ray_ns.evaluate.fixed import views
    from ray_ns.models import fixres

    size, train = recipe.fixres.size, recipe.fixed_from(config.data)
    if size is None or size <= train:
        raise InputError(
            f"fixres.size = {size}: the network is trained at {train} pixels; FixRes is for larger ones, such as "
            f"{round(1.25 * train)}. Raise it, or leave it out."
        )
    try:
        network = _check_model(fixing, config.data, config.cluster)
    except InputError as error:
        raise InputError(f"fixres.{error}") from error
    fixres.prepare(network, recipe.fixres.variant)
    if recipe.fixres.variant == "affine":
        fixres.linear(network)
    views(train)


def what_shows(run: Run) -> tuple[str, dict[str, Any]]:
    """How small a gain the validation images, which choose, and the test images can show: in words, and in points."""
    classes = run.config.data.classes
    images = {name: sum(map(len, run.corpora[name].labels(classes))) for name in EVALUATED}
    return "; ".join(f"data.{name}: {sorting.foretold(run, name, it)}" for name, it in images.items()), {
        name: {"images": it, "visible_points": verdict.foretold(it) if it else None} for name, it in images.items()
    }


def check(run: Run) -> None:
    """Raise ``InputError`` for what would fail later: the cluster, data, models, resources of a local cluster."""
    config = run.config
    run.check_cluster()
    for name in LABELLED:
        counts = count_per_class(run.corpora[name].labels(config.data.classes), config.data.classes)
        own = getattr(config.data, name)
        if name in EVALUATED and own is None and config.data.held_out == 0:
            continue
        if not counts.sum():
            raise InputError(f"data.{name}: {getattr(config.data, name)} holds no image")
        if own is not None:
            run.reporter.note(layout.line(f"data.{name}", run.corpora[name], counts, run.class_names))
        missing = np.flatnonzero(counts == 0)
        if name == "labelled" and len(missing):
            lacks = ", ".join(class_name(run, int(label)) for label in missing[:10])
            raise InputError(
                f"data.labelled: no labelled image of class {lacks} (data.classes = "
                f"{config.data.classes}). Add some, or lower data.classes and renumber the labels."
            )
    pool = run.corpora["pool"]
    if not any(sum(pool.open(shard).group_rows) for shard in pool.shards):
        raise InputError(f"data.pool: {config.data.pool} holds no image")
    run.reporter.note(layout.line("data.pool", pool, None, None))
    told = (truncated, shrunk, crops, unused, unlabelled)
    for warning in (*check_models(config), *(line for told_by in told for line in told_by(config))):
        run.reporter.warn(warning)
    if run.local:
        import torch

        gpus = torch.cuda.device_count() if config.cluster.gpus is None else config.cluster.gpus
        check_resources(config, local_cpus(config), gpus)
