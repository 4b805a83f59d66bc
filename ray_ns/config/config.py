"""The one schema of a run: every setting with its unit, range and default; what may not be is refused by name.

``config_read.py`` reads it from a file, ``config_help.py`` prints it as commented YAML. A setting marked ``how()`` says
how the work is done and may change between two runs of the same command; ``results_of`` is all the others, which decide
the result.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Precision = Literal["auto", "float32", "bfloat16"]
PRECISION = (
    "autocast of the forward pass; auto: bfloat16 where the hardware computes in it, else float32, decided when the "
    "run begins and recorded"
)


def _number(key: Any) -> Any:
    """A class, as JSON and dotted overrides write it, as the integer it is."""
    return int(key) if isinstance(key, str) and key.isdecimal() else key


ClassNumber = Annotated[int, Field(ge=0), BeforeValidator(_number)]


def _or_unknown(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """None passes: the labelled corpus says how many classes there are, before anything asks (``with_classes``)."""
    return None if value is None else check(value)


ClassCount = Annotated[int, Field(ge=2, le=32_767), WrapValidator(_or_unknown)]


def how(default: Any, description: str, **limits: Any) -> Any:
    """A field that says how the work is done, not what comes out."""
    return Field(default, description=description, json_schema_extra={"result": False}, **limits)


class AsWritten:
    """Marks a setting whose text is taken as it stands, whatever YAML would make of it: no date, number or yes."""


def _absolute(path: str) -> str:
    """A path from ``/``, its ``~`` the home folder; a URL as it is, but ``file://`` as the path that it means."""
    if not path.strip() or "\0" in path or (not path.isprintable() and any("\ud800" <= it <= "\udfff" for it in path)):
        raise ValueError(f"found {path!r}; expected a path or a URL")
    scheme, separator, rest = path.partition("://")
    if separator and scheme == "file":
        if not rest.startswith("/"):
            raise ValueError(f"found {path!r}; three slashes begin a file's URL: file:///folder")
        return unquote(rest)
    if separator and scheme.isalnum():
        return path
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError:  # no such user: it is a name that begins with ~
        return str(Path(path).absolute())
    except OSError as error:
        raise ValueError(f"found {path!r}, and the working directory is gone. cd to one that exists") from error


PathSetting = Annotated[str, AsWritten(), Field(min_length=1), AfterValidator(_absolute)]


class Section(BaseModel):
    """A group of settings: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Run(Section):
    """Where the run lives and how long it turns."""

    dir: PathSetting = how(..., "directory that holds everything this run makes; the same command on it resumes")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of every random choice of the run")
    rounds: Positive = Field(2, le=20, description="turns of the loop after the teacher of round 0, at most")
    mode: Literal["every_round", "filter_once"] = Field(
        "every_round",
        description="every_round: each teacher labels the whole pool, which is filtered again; filter_once: the first "
        "teacher chooses the images, later ones label only those (the paper's way)",
    )
    patience: Positive = Field(
        1, description="stop after this many rounds in a row without a better top-1 on the validation images"
    )


CorpusName = Literal["labelled", "validation", "test", "pool"]
MIDDLE = 0.875  # of the short side, where an image is cropped: the papers resize that to size / 0.875


class Data(Section):
    """The images: corpora of Parquet shards, WebDataset tars or image files, and how one image is read."""

    classes: ClassCount = Field(
        cast(int, None),
        description="number of classes; labels are 0 .. classes-1; null: as many as the labelled corpus has names for",
    )
    labelled: PathSetting = how(
        ...,
        "folder (or URL) of images with labels: Parquet shards, tars with .cls members, one sub-folder per class, or "
        "files and a CSV with a column of files and one of labels; what is in it decides, not where it lies",
    )
    validation: PathSetting | None = how(
        None, "the same, never trained on: chooses the best round; null: held out of labelled"
    )
    test: PathSetting | None = how(
        None, "the same, for the reported figures only: chooses nothing; null: held out of labelled"
    )
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2,
        description="share of each class of labelled that never trains: half for validation, half for test, each "
        "where it is null",
    )
    pool: PathSetting = how(..., "folder (or URL) of images, labels not needed: Parquet shards, tars or files")
    image_column: Annotated[str, AsWritten()] = Field(
        "image",
        description="Parquet: column of encoded images: bytes, or a struct {bytes, path}; CSV: column of files, "
        "where it has none of the usual names (file, file_name, image_id, ...)",
    )
    label_column: Annotated[str, AsWritten()] = Field(
        "label",
        description="Parquet and CSV: column of labels, numbers or names; tars: their key in .json members",
    )
    image_columns: dict[CorpusName, str] = Field(
        {}, description="labelled | validation | test | pool: image_column, where a corpus has its own"
    )
    label_columns: dict[CorpusName, str] = Field(
        {}, description="labelled | validation | test: label_column, where a corpus has its own"
    )
    size: int = Field(224, ge=8, le=2048, description="images are resized to size x size pixels, bilinear, antialiased")
    fit: Literal["squash", "crop"] = Field(
        "squash",
        description="how an image becomes a square, for labels, evaluation and training alike; squash: all of it; "
        "crop: the middle one, 7/8 of its short side (the papers: short side to size / 0.875, then the middle)",
    )
    channels: Literal[1, 3] = Field(3, description="1: grey, 3: RGB")
    mean: list[Share] = Field([0.485, 0.456, 0.406], description="subtracted from pixels in 0..1, one per channel")
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [0.229, 0.224, 0.225], description="divides them afterwards, one per channel"
    )
    max_passed_over: Share = how(
        0.05, "share of the files below a corpus's folder that may be no image that can be read (archives, videos, ...)"
    )
    max_quarantined: Share = how(
        0.01, "share of a corpus that may be unreadable before a stage refuses to commit; unreadable ones are left out"
    )

    @model_validator(mode="after")
    def _per_channel(self) -> "Data":
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise ValueError(f"{name} has {len(getattr(self, name))} values, channels is {self.channels}")
        return self


class Model(Section):
    """A timm model."""

    name: str = Field(..., description="timm model name, such as efficientnet_b0 (timm.list_models())")
    args: dict[str, Any] = Field({}, description="further arguments of the network, as timm.create_model takes them")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="dropout before the classifier (drop_rate)")
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="stochastic depth, linear from 0 to this rate at the last block (drop_path_rate)"
    )
    pretrained: bool | PathSetting = how(
        False,
        "true: begin from timm's weights of this name (Hugging Face hub); a path: from this .safetensors file; its "
        "hash decides (sha256), not where it lies; a classifier for other classes begins anew",
    )
    sha256: str | None = Field(
        None, description="hash of the pretrained weights' file, which must match", pattern=r"^[0-9a-f]{64}$"
    )

    @model_validator(mode="after")
    def _pinned(self) -> "Model":
        if self.sha256 is not None and not self.pretrained:
            raise ValueError("sha256 pins pretrained weights; pretrained is false")
        return self

    @field_validator("args")
    @classmethod
    def _json(cls, args: dict[str, Any]) -> dict[str, Any]:
        """What run.json cannot hold could not be compared when the run is resumed."""
        try:
            if json.loads(json.dumps(args, allow_nan=False)) == args:
                return args
        except (TypeError, ValueError):
            pass
        raise ValueError(f"found {args!r}; only what JSON can hold: no NaN, dates, sets, bytes or keys but strings")


class Optimizer(Section):
    """An optimiser of timm and its learning rate over the steps."""

    name: str = Field("sgd", description="timm optimizer name: sgd (nesterov), adamw, rmsproptf, lamb, ...")
    lr: Annotated[float, Field(gt=0)] = Field(0.1, description="peak learning rate")
    lr_batch: Positive | None = Field(
        None,
        description="labelled images per step that lr is meant for: the peak is lr x batch / lr_batch (the paper: lr "
        "0.016, lr_batch 256); null: lr as it is",
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="momentum, where the optimiser has one")
    eps: Annotated[float, Field(gt=0)] | None = Field(
        None, description="the optimiser's epsilon (the paper: 1e-3 with rmsproptf); null: its own"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        5e-4, description="on weights with 2 dimensions or more: none on biases and norms"
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="steps of linear warm-up from 0")
    schedule: Literal["cosine", "step", "constant"] = Field(
        "cosine",
        description="after the warm-up: cosine to 0 at the last step; step: x decay_rate every decay_steps, counted "
        "from step 0 (the paper); or flat",
    )
    decay_steps: Positive | None = Field(
        None, description="schedule=step: steps between two decays (the paper: those of 2.4 epochs; 4.8 up to B4)"
    )
    decay_rate: Annotated[float, Field(gt=0, lt=1)] = Field(0.97, description="schedule=step: factor of one decay")

    @model_validator(mode="after")
    def _decays(self) -> "Optimizer":
        if (self.schedule == "step") != (self.decay_steps is not None):
            raise ValueError(
                f"decay_steps is {self.decay_steps} and schedule is {self.schedule}; step needs decay_steps, the "
                f"others take none"
            )
        return self


class Noise(Section):
    """Input noise: what is done to a training image (the paper's RandAugment; affine for small images)."""

    crop: Literal["none", "padded", "random_resized"] = Field(
        "none",
        description="none: the image as data.fit has it; padded: that, moved by up to 1/8 of its side (CIFAR, "
        "SVHN); random_resized: 8 to 100 % of its area at aspect 3/4 to 4/3 (the paper on ImageNet)",
    )
    augment: Literal["none", "affine", "randaugment"] = Field(
        "randaugment",
        description="affine: rotation, scale, shear, shift, brightness, contrast, cutout; randaugment: timm's",
    )
    magnitude: Annotated[float, Field(ge=0, le=10)] = Field(
        9.0,
        description="randaugment: M in 0..10 (timm, increasing); affine: 1 is up to 20 degrees, 20 % of shift",
    )
    operations: Annotated[int, Field(ge=1, le=8)] = Field(2, description="randaugment: operations per image (N)")
    flip: bool = Field(True, description="mirror half of the images left to right; not with augment=none")
    cutout: Share = Field(0.0, description="side of a grey square at a random place, as a share of the image's")

    @model_validator(mode="after")
    def _visible(self) -> "Noise":
        if self.augment == "affine" and self.magnitude > 2:
            raise ValueError(f"magnitude = {self.magnitude:g} leaves nothing to see; affine takes 0 .. 2, such as 0.7")
        return self


class Finetune(Section):
    """A short training at a higher resolution after the main one, on labelled images without input noise."""

    steps: Annotated[int, Field(ge=0)] = Field(
        0, description="optimiser steps (the paper: those of 1.5 epochs of the labelled images); 0: no fine-tuning"
    )
    size: Annotated[int, Field(ge=8, le=2048)] | None = Field(
        None, description="side of its images, at which the network is then used; null: data.size"
    )
    freeze: Annotated[int, Field(ge=0)] = Field(
        0, description="first layers that stay as they are (the paper: the shallow ones): the stem, then every block"
    )
    optimizer: Optimizer = Field(Optimizer(), description="optimiser and learning rate")


class Training(Section):
    """How one network is trained."""

    model: Model = Field(..., description="the network")
    steps: Positive = Field(..., description="optimiser steps")
    batch: Positive = Field(..., description="labelled images per step, over all workers")
    optimizer: Optimizer = Field(Optimizer(), description="optimiser and learning rate")
    noise: Noise = Field(Noise(), description="input noise")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="on true labels only")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="moving average of the weights, with warm-up; it is what labels and is evaluated; null: none"
    )
    precision: Precision = Field("auto", description=PRECISION)
    eval_steps: Positive | None = Field(
        None, description="optimiser steps between two scores on the validation images while it trains; null: none"
    )
    patience: Positive | None = Field(
        None,
        description="end after this many scores in a row without a better one, and in any case keep the weights of the "
        "best score; null: all steps, and the last one's weights",
    )
    finetune: Finetune = Field(Finetune(), description="a short training at a higher resolution afterwards")

    @model_validator(mode="after")
    def _scored(self) -> "Training":
        if self.patience is not None and self.eval_steps is None:
            raise ValueError(f"patience = {self.patience} counts scores and eval_steps is null; set eval_steps")
        return self

    @property
    def tuning(self) -> "Training | None":
        """The fine-tuning as a training of its own, where there is one."""
        if not self.finetune.steps:
            return None
        own: dict[str, Any] = {
            "steps": self.finetune.steps,
            "optimizer": self.finetune.optimizer,
            "noise": Noise(augment="none"),
            "eval_steps": None,
            "patience": None,
            "finetune": Finetune(),
        }
        kept: dict[str, Any] = {name: getattr(self, name) for name in Training.model_fields if name not in own}
        return Training(**kept, **own)

    @property
    def peak_lr(self) -> float:
        """The highest learning rate."""
        scale = self.batch / self.optimizer.lr_batch if self.optimizer.lr_batch else 1.0
        return self.optimizer.lr * scale


class Student(Training):
    """How a student is trained: as any network, with pseudo-labelled images beside the labelled ones.

    A list of such recipes is one per round; the last one also serves the rounds after it.
    """

    init: Literal["scratch", "teacher"] = Field(
        "scratch", description="first weights: new ones (the paper), or the teacher's, which must be of the same model"
    )

    ratio: Annotated[int, Field(ge=1, le=64)] = Field(3, description="pseudo-labelled images per labelled image")
    targets: Literal["soft", "hard"] = Field("soft", description="the teacher's probabilities, or its class alone")
    temperature: Annotated[float, Field(gt=0, le=10)] = Field(
        1.0, description="soft targets become p ** (1/temperature), renormalised"
    )
    loss: Literal["mean", "sum"] = Field(
        "mean",
        description="mean: over all images of the step (paper); sum: mean(labelled) + ratio x mean(pseudo-labelled), "
        "as the released code does",
    )


class Label(Section):
    """How the teacher labels the pool."""

    keep: Literal["hard", "top", "full"] = Field(
        "top", description="soft labels stored beside class and confidence: none, the top few, or all"
    )
    top: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="keep=top: how many probabilities per image")
    slice_rows: Annotated[int, Field(ge=1, le=65_536)] = Field(
        256, description="images per slice: the batch that is decoded, labelled and retried as one"
    )
    shard_rows: Positive = Field(100_000, description="images per label shard, about: the unit that is committed")
    precision: Precision = Field("auto", description=PRECISION)
    threads: Positive = Field(1, description="CPU threads of one teacher actor (changes the last bits of a label)")
    compile: bool = Field(False, description="torch.compile the teacher: minutes to start, faster for long pools")
    actors: Positive = how(1, "teacher actors in the pool")
    gpus_per_actor: Annotated[float, Field(ge=0, le=8)] = how(0.0, "GPUs of one teacher actor; 0: CPU")
    layout: Literal["auto", "actor", "tasks"] = how(
        "auto",
        "where images are decoded: in the teacher's actor, or in CPU tasks that feed it; auto: tasks for GPUs",
    )
    image_seconds: Annotated[float, Field(ge=1)] = how(
        30.0, "an image that is not decoded in so many seconds is quarantined as too_slow"
    )
    open_shards: Positive = how(
        64, "label shards under way at once: the most that a crash of the driver can cost (at least 2 per actor)"
    )

    @property
    def layout_here(self) -> Literal["actor", "tasks"]:
        """The layout, with ``auto`` decided."""
        if self.layout == "auto":
            return "tasks" if self.gpus_per_actor else "actor"
        return self.layout


class Select(Section):
    """Which labels train the student."""

    rule: Literal["paper", "official"] = Field(
        "paper",
        description="paper: exactly the K most confident of each class; official: the released code's threshold per "
        "class in steps of 0.01, and about K by keyed coins",
    )
    threshold: Share = Field(0.3, description="lowest confidence that is kept")
    thresholds: dict[ClassNumber, Share] = Field({}, description="class: threshold, where a class has its own")
    per_class: Positive | Literal["auto"] = Field(
        "auto", description="images per class, K; auto: images at or over the threshold / classes"
    )
    quotas: dict[ClassNumber, Annotated[int, Field(ge=0)]] = Field(
        {}, description="class: K, where a class has its own; 0 leaves it out"
    )
    balance: bool = Field(
        True, description="true: the K most confident of each class, scarce classes duplicated to K; false: all"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> "Select":
        if not self.balance and (self.quotas or self.rule == "official"):
            raise ValueError("quotas and rule: official balance the classes; balance is false")
        off = [it for it in (self.threshold, *self.thresholds.values()) if abs(100 * it - round(100 * it)) > 1e-9]
        if self.rule == "official" and off:
            raise ValueError(f"rule: official takes thresholds in steps of 0.01, found {off[0]:g}")
        return self


class Control(Section):
    """The fair control: the student's own recipe and steps on labelled images only."""

    enabled: bool = Field(True, description="train and report it; a run without it shows no honest gain")


MOST_LOADERS = 16  # by auto: each takes some 300 MB, and 16 decode 5,000 to 10,000 images a second


class Cluster(Section):
    """What the work runs on."""

    address: str | None = how(
        None, "Ray cluster to join; null: the one in RAY_ADDRESS (ray job submit), else a local one for this run"
    )
    cpus: Positive | None = how(None, "local: logical CPUs Ray may use; null: all, at least 2")
    gpus: Annotated[int, Field(ge=0)] | None = how(None, "local: logical GPUs Ray may use; null: all there are")
    object_store_mb: Annotated[int, Field(ge=80)] | None = how(
        None, "local: size of Ray's object store, MB; null: 256, and room for the pixels that cross it"
    )
    train_workers: Positive | Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        1,
        description="training workers (changes the order of sums, not of images); [least, most]: as many as the "
        "cluster can hold, more or fewer as it grows and shrinks",
    )
    train_threads: Positive = Field(1, description="CPU threads of one training worker (changes the last bits)")
    train_gpus: Annotated[int, Field(ge=0, le=1)] = how(0, "GPUs of one training worker")
    train_loaders: Annotated[int, Field(ge=0)] | Literal["auto"] = how(
        "auto",
        "processes that read and decode images ahead of each training worker; 0: the worker does it itself; auto: for "
        "a GPU worker its share of the machine's CPUs (of cluster.cpus), 16 at most; for a CPU worker none",
    )
    train_microbatch: Positive | None = how(
        None,
        "most images that go through a worker's network at once: the gradients of its share of the batch are summed "
        "over them, so that it fits a small memory (batch norm sees so many at a time); null: its whole share",
    )
    max_failures: Annotated[int, Field(ge=0)] = how(3, "worker losses a training survives before it gives up")
    checkpoint_steps: Positive = how(100, "optimiser steps between two checkpoints of a training")
    checkpoints_kept: Annotated[int, Field(ge=2)] = how(
        2, "newest checkpoints of a training that are kept: where one is damaged, the one before it is used"
    )
    timeout_seconds: Annotated[float, Field(gt=0)] = how(1800.0, "a stage without progress for so long has failed")
    store_seconds: Annotated[float, Field(gt=0)] = how(
        300.0, "how long a request to a run in S3 is tried before the run stops, to be gone on with later"
    )

    def loaders(self, cpus: int) -> int:
        """``train_loaders`` with ``auto`` decided. ``cpus``: those of the machine per training worker.

        A GPU waits for images unless several processes decode them; a CPU worker's own processor is the bottleneck.
        """
        if self.train_loaders != "auto":
            return self.train_loaders
        return min(MOST_LOADERS, max(1, cpus - self.train_threads)) if self.train_gpus else 0

    @property
    def worker_counts(self) -> range:
        """Every number of training workers that there may be."""
        least, most = (
            (self.train_workers, self.train_workers) if isinstance(self.train_workers, int) else self.train_workers
        )
        return range(least, most + 1)

    @model_validator(mode="after")
    def _least_first(self) -> "Cluster":
        if not self.worker_counts:
            raise ValueError(f"train_workers = {self.train_workers}; expected [least, most]")
        return self


class Config(Section):
    """A whole run."""

    run: Run
    data: Data
    teacher: Training
    student: Annotated[
        Annotated[Student, Tag("one")] | Annotated[list[Student], Tag("list"), Field(min_length=1)],
        Discriminator(lambda it: "list" if isinstance(it, list) else "one"),
    ]
    label: Label = Label()
    select: Select = Select()
    control: Control = Control()
    cluster: Cluster = Cluster()

    @property
    def students(self) -> list[Student]:
        """The recipe of each round from 1 on."""
        listed = self.student if isinstance(self.student, list) else [self.student]
        return [listed[min(number, len(listed) - 1)] for number in range(self.run.rounds)]

    def at_size(self, size: int) -> "Config":
        """The same run with images of ``size`` x ``size`` pixels."""
        return self.model_copy(update={"data": self.data.model_copy(update={"size": size})})

    def recipes(self) -> dict[str, Training]:
        """Every recipe that the file names, by its dotted name."""
        if isinstance(self.student, list):
            return {"teacher": self.teacher, **{f"student.{at}": it for at, it in enumerate(self.student)}}
        return {"teacher": self.teacher, "student": self.student}

    @model_validator(mode="after")
    def _possible(self) -> "Config":
        for name, recipe in self.recipes().items():
            totals = {f"{name}.batch": recipe.batch}
            if isinstance(recipe, Student):
                totals[f"{name}.batch x ratio"] = recipe.batch * recipe.ratio
                if recipe.targets == "soft" and self.label.keep == "hard":
                    raise ValueError(f"{name}.targets: soft needs label.keep: top or full, found hard")
            for what, total in totals.items():
                for workers in self.cluster.worker_counts:
                    if total % workers:
                        raise ValueError(
                            f"{what} = {total} does not divide by cluster.train_workers = {workers} "
                            f"({total} = {workers} x {total // workers} + {total % workers})"
                        )
        if isinstance(self.student, list) and len(self.student) > self.run.rounds:
            raise ValueError(f"student lists {len(self.student)} recipes, run.rounds is {self.run.rounds}")
        self._check_init()
        for name in ("thresholds", "quotas"):
            unknown = [label for label in getattr(self.select, name) if label >= (self.data.classes or math.inf)]
            if unknown:
                raise ValueError(f"select.{name}: class {unknown[0]} is not one of data.classes = {self.data.classes}")
        return self

    def _check_init(self) -> None:
        """A student may only take up weights that fit it, whichever round its teacher comes from."""
        networks = [self.teacher.model, *(student.model for student in self.students)]
        for number, student in enumerate(self.students, 1):
            first = number - 1 if self.run.patience == 1 else 0  # the first round that may be this one's teacher
            for before in networks[first:number] if student.init == "teacher" else ():
                if (before.name, before.args) != (student.model.name, student.model.args):
                    raise ValueError(
                        f"student.init: teacher in round {number}: its teacher may be {before.name} {before.args}, the "
                        f"student is {student.model.name} {student.model.args}. Make them equal, or init: scratch"
                    )


def results_of(section: BaseModel) -> dict[str, Any]:
    """The settings of ``section`` that decide the result, as JSON values."""
    values = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("result") is False:
            continue
        value = getattr(section, name)
        if isinstance(value, dict):  # keys as JSON has them, so that a setting equals itself read back
            value = {str(key): it for key, it in value.items()}
        values[name] = _plain(value)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(it) for it in value]
    return results_of(value) if isinstance(value, BaseModel) else value


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """``path: old -> new`` for every leaf in which two nested mappings, or lists of mappings, differ."""
    if isinstance(old, list) and isinstance(new, list) and all(isinstance(it, Mapping) for it in (*old, *new)):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        rows = []
        for key in sorted({*old, *new}):
            rows += differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        return rows
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def decided(precision: str) -> str:
    """``precision`` itself. ``ValueError`` for auto: ``engine.precision`` decides it before anything computes."""
    if precision == "auto":
        raise ValueError("precision: auto was not decided when the run began")
    return precision


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, or holds a list of; None for a value."""
    return next((kind for kind in _kinds(field) if isinstance(kind, type) and issubclass(kind, Section)), None)


def is_as_written(field: FieldInfo) -> bool:
    """Whether a field's text is taken as it stands."""
    return any(isinstance(it, AsWritten) for it in (*field.metadata, *_kinds(field)))


def _kinds(field: FieldInfo) -> Iterator[Any]:
    for kind in (field.annotation, *get_args(field.annotation)):
        yield kind
        if get_origin(kind) is Annotated:
            yield from (get_args(kind)[0], *kind.__metadata__)
