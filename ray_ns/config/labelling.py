"""Settings ``label`` and ``select``: how the teacher labels the pool, and which labels train the student."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ray_ns.config.schema import PRECISION, ClassNumber, NetworkSetting, Positive, Precision, Section, Share, how

Views = Literal["one", "flip", "five_crops", "ten_crops"]


OF_A_STUDENT = ("noised", "teachers")  # settings that only the labels which a student learns from are made with
OF_A_POOL = ("temperature", "views", *OF_A_STUDENT)  # those of all labels, and not of a network as it is evaluated


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
    temperature: Annotated[float, Field(ge=0.05, le=20)] | Literal["auto"] = Field(
        1.0,
        description="what the teacher's logits are divided by, so that a confidence is the share that is right; auto: "
        "found for each teacher on the validation images (at least 30), where their NLL is lowest",
    )
    views: Views = Field(
        "one",
        description="test-time augmentation: over which views of an image its probabilities are averaged; flip: it and "
        "its mirror image, wrong where that is another class, such as for digits; five_crops: it and its four corners; "
        "ten_crops: these and their mirror images. So many times as long takes the labelling",
    )
    compile: bool = Field(False, description="torch.compile the teacher: minutes to start, faster for long pools")
    teachers: list[Literal["round"] | NetworkSetting] = how(
        ["round"],
        "whose probabilities are averaged: round, the run's own teacher, and after it networks as teacher.from takes "
        "them, with the same classes; each is copied into the run and fed as it was trained; the networks "
        "decide, not where they lie",
    )
    noised: bool = Field(
        False,
        description="true: the teacher labels the pool noised as the first student is: its input noise on each image, "
        "its dropout and drop path in the network (an ablation of the paper, which labels without noise)",
    )
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

    @field_validator("teachers")
    @classmethod
    def _round_first(cls, teachers: list[str]) -> list[str]:
        if teachers[:1] != ["round"] or len({*teachers}) < len(teachers):
            raise ValueError(f"found {teachers}; expected round, then other networks, each of them once")
        return teachers

    @property
    def others(self) -> list[str]:
        """The teachers beside the run's own."""
        return self.teachers[1:]

    @model_validator(mode="after")
    def _not_compiled(self) -> "Label":
        if self.noised and self.compile:
            raise ValueError("noised changes the network from image to image, which compile cannot; set one to false")
        if self.noised and self.others:
            raise ValueError("noised is for the run's own teacher alone; leave teachers or noised out")
        return self

    @property
    def of_one_network(self) -> "Label":
        """How one network is evaluated: as it labels, without what only its labels of the pool are made with."""
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].get_default(call_default_factory=True) for name in OF_A_POOL})

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

    pool_share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="share of the pool's images that may be selected, by a keyed draw (the paper's study of how much "
        "unlabelled data it takes); per_class: auto counts those alone; 'labels' lists the others as beyond_quota",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> "Select":
        if not self.balance and (self.quotas or self.rule == "official"):
            raise ValueError("quotas and rule: official balance the classes; balance is false")
        off = [it for it in (self.threshold, *self.thresholds.values()) if abs(100 * it - round(100 * it)) > 1e-9]
        if self.rule == "official" and off:
            raise ValueError(f"rule: official takes thresholds in steps of 0.01, found {off[0]:g}")
        return self
