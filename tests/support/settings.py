"""All settings there are, a config with nothing but what has no default, and ways to look at both."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ray_ns.config import Config
from ray_ns.config.read import load
from ray_ns.config.schema import sections_of
from ray_ns.errors import InputError

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"


# The settings that decide the result. A new one is a deliberate act: it is a promise to every user's config file.
DECIDING = [
    "cluster.bn_group",
    "cluster.train_threads",
    "cluster.train_workers",
    "control.enabled",
    "data.channels",
    "data.classes",
    "data.crop_share",
    "data.fit",
    "data.held_out",
    "data.image_column",
    "data.image_columns",
    "data.interpolation",
    "data.label_column",
    "data.label_columns",
    "data.mean",
    "data.size",
    "data.std",
    "label.compile",
    "label.keep",
    "label.noised",
    "label.precision",
    "label.shard_rows",
    "label.slice_rows",
    "label.temperature",
    "label.threads",
    "label.top",
    "label.views",
    "mpl.adjuster_clip",
    "mpl.adjuster_lr",
    "mpl.baseline",
    "mpl.feedback",
    "mpl.labelled",
    "mpl.labels",
    "mpl.preset",
    "mpl.reduced",
    "mpl.scale",
    "mpl.student_wait",
    "run.method",
    "run.mode",
    "run.patience",
    "run.promote",
    "run.rounds",
    "run.seed",
    "select.balance",
    "select.per_class",
    "select.pool_share",
    "select.quotas",
    "select.rule",
    "select.threshold",
    "select.thresholds",
    "student.batch",
    "student.crop_share",
    "student.ema_decay",
    "student.ema_warmup",
    "student.eval_steps",
    "student.finetune.freeze",
    "student.finetune.optimizer.clip",
    "student.finetune.optimizer.decay_rate",
    "student.finetune.optimizer.decay_steps",
    "student.finetune.optimizer.eps",
    "student.finetune.optimizer.lr",
    "student.finetune.optimizer.lr_batch",
    "student.finetune.optimizer.momentum",
    "student.finetune.optimizer.name",
    "student.finetune.optimizer.sam",
    "student.finetune.optimizer.schedule",
    "student.finetune.optimizer.warmup_steps",
    "student.finetune.optimizer.weight_decay",
    "student.finetune.size",
    "student.finetune.steps",
    "student.fixres.crop_share",
    "student.fixres.label_smoothing",
    "student.fixres.optimizer.clip",
    "student.fixres.optimizer.decay_rate",
    "student.fixres.optimizer.decay_steps",
    "student.fixres.optimizer.eps",
    "student.fixres.optimizer.lr",
    "student.fixres.optimizer.lr_batch",
    "student.fixres.optimizer.momentum",
    "student.fixres.optimizer.name",
    "student.fixres.optimizer.sam",
    "student.fixres.optimizer.schedule",
    "student.fixres.optimizer.warmup_steps",
    "student.fixres.optimizer.weight_decay",
    "student.fixres.size",
    "student.fixres.steps",
    "student.fixres.variant",
    "student.init",
    "student.interpolation",
    "student.joint",
    "student.label_smoothing",
    "student.loss",
    "student.model.args",
    "student.model.drop_path",
    "student.model.dropout",
    "student.model.name",
    "student.model.own_rates",
    "student.model.sha256",
    "student.noise.augment",
    "student.noise.crop",
    "student.noise.cutout",
    "student.noise.cutout_operation",
    "student.noise.flip",
    "student.noise.magnitude",
    "student.noise.operations",
    "student.noise.probability",
    "student.optimizer.clip",
    "student.optimizer.decay_rate",
    "student.optimizer.decay_steps",
    "student.optimizer.eps",
    "student.optimizer.lr",
    "student.optimizer.lr_batch",
    "student.optimizer.momentum",
    "student.optimizer.name",
    "student.optimizer.sam",
    "student.optimizer.schedule",
    "student.optimizer.warmup_steps",
    "student.optimizer.weight_decay",
    "student.patience",
    "student.precision",
    "student.pseudo_noise.drop_path",
    "student.pseudo_noise.dropout",
    "student.pseudo_noise.input",
    "student.ratio",
    "student.steps",
    "student.targets",
    "student.temperature",
    "student.test_size",
    "student.train_size",
    "teacher.batch",
    "teacher.crop_share",
    "teacher.ema_decay",
    "teacher.ema_warmup",
    "teacher.eval_steps",
    "teacher.finetune.freeze",
    "teacher.finetune.optimizer.clip",
    "teacher.finetune.optimizer.decay_rate",
    "teacher.finetune.optimizer.decay_steps",
    "teacher.finetune.optimizer.eps",
    "teacher.finetune.optimizer.lr",
    "teacher.finetune.optimizer.lr_batch",
    "teacher.finetune.optimizer.momentum",
    "teacher.finetune.optimizer.name",
    "teacher.finetune.optimizer.sam",
    "teacher.finetune.optimizer.schedule",
    "teacher.finetune.optimizer.warmup_steps",
    "teacher.finetune.optimizer.weight_decay",
    "teacher.finetune.size",
    "teacher.finetune.steps",
    "teacher.fixres.crop_share",
    "teacher.fixres.label_smoothing",
    "teacher.fixres.optimizer.clip",
    "teacher.fixres.optimizer.decay_rate",
    "teacher.fixres.optimizer.decay_steps",
    "teacher.fixres.optimizer.eps",
    "teacher.fixres.optimizer.lr",
    "teacher.fixres.optimizer.lr_batch",
    "teacher.fixres.optimizer.momentum",
    "teacher.fixres.optimizer.name",
    "teacher.fixres.optimizer.sam",
    "teacher.fixres.optimizer.schedule",
    "teacher.fixres.optimizer.warmup_steps",
    "teacher.fixres.optimizer.weight_decay",
    "teacher.fixres.size",
    "teacher.fixres.steps",
    "teacher.fixres.variant",
    "teacher.interpolation",
    "teacher.label_smoothing",
    "teacher.model.args",
    "teacher.model.drop_path",
    "teacher.model.dropout",
    "teacher.model.name",
    "teacher.model.own_rates",
    "teacher.model.sha256",
    "teacher.noise.augment",
    "teacher.noise.crop",
    "teacher.noise.cutout",
    "teacher.noise.cutout_operation",
    "teacher.noise.flip",
    "teacher.noise.magnitude",
    "teacher.noise.operations",
    "teacher.noise.probability",
    "teacher.optimizer.clip",
    "teacher.optimizer.decay_rate",
    "teacher.optimizer.decay_steps",
    "teacher.optimizer.eps",
    "teacher.optimizer.lr",
    "teacher.optimizer.lr_batch",
    "teacher.optimizer.momentum",
    "teacher.optimizer.name",
    "teacher.optimizer.sam",
    "teacher.optimizer.schedule",
    "teacher.optimizer.warmup_steps",
    "teacher.optimizer.weight_decay",
    "teacher.patience",
    "teacher.precision",
    "teacher.steps",
    "teacher.test_size",
    "teacher.train_size",
    "uda.ramp_steps",
    "uda.temperature",
    "uda.threshold",
    "uda.weight",
]

# Those that say how the work is done and may change between two runs of one command.
HOW = {
    "cluster.address",
    "cluster.checkpoint_steps",
    "cluster.checkpoints_kept",
    "cluster.cpus",
    "cluster.decode_on",
    "cluster.gpus",
    "cluster.max_failures",
    "cluster.object_store_mb",
    "cluster.store_seconds",
    "cluster.teachers_on",
    "cluster.timeout_seconds",
    "cluster.train_gpus",
    "cluster.train_loaders",
    "cluster.train_microbatch",
    "cluster.train_on",
    "data.labelled",  # the images in these four folders decide, not where they lie
    "data.max_passed_over",
    "data.max_quarantined",
    "data.pool",
    "data.test",
    "data.validation",
    "label.actors",
    "label.gpus_per_actor",
    "label.image_seconds",
    "label.layout",
    "label.open_shards",
    "label.teachers",  # the copies in the run decide
    "run.dir",
    "student.model.pretrained",  # the hash of the weights decides
    "teacher.model.pretrained",
}

SETTINGS = sorted([*DECIDING, *HOW])

# The defaults of those that decide the result, by section; what a student shares with any training is not repeated.
DEFAULTS: dict[str, dict[str, Any]] = {
    "Cluster": {
        "bn_group": 1,
        "train_threads": 1,
        "train_workers": 1,
    },
    "Control": {
        "enabled": True,
    },
    "Data": {
        "channels": 3,
        "classes": None,
        "crop_share": 0.875,
        "fit": "squash",
        "held_out": "auto",
        "image_column": "image",
        "image_columns": {},
        "interpolation": "bilinear",
        "label_column": "label",
        "label_columns": {},
        "mean": [0.485, 0.456, 0.406],
        "size": 224,
        "std": [0.229, 0.224, 0.225],
    },
    "Finetune": {
        "freeze": 0,
        "size": None,
        "steps": 0,
    },
    "Fixres": {
        "crop_share": None,
        "label_smoothing": 0.0,
        "size": None,
        "steps": 200,
        "variant": "head_and_norm",
    },
    "GivenTeacher": {
        "sha256": None,
    },
    "Label": {
        "compile": False,
        "keep": "top",
        "noised": False,
        "precision": "auto",
        "shard_rows": 100000,
        "slice_rows": 256,
        "temperature": 1.0,
        "threads": 1,
        "top": 10,
        "views": "one",
    },
    "Model": {
        "args": {},
        "drop_path": 0.0,
        "dropout": 0.0,
        "own_rates": False,
        "sha256": None,
    },
    "Noise": {
        "augment": "randaugment",
        "crop": "none",
        "cutout": 0.0,
        "cutout_operation": True,
        "flip": True,
        "magnitude": 9.0,
        "operations": 2,
        "probability": 1.0,
    },
    "MetaPseudoLabels": {
        "adjuster_clip": 1.0,
        "adjuster_lr": 0.1,
        "baseline": 0.99,
        "feedback": "difference",
        "labelled": 1.0,
        "labels": "sampled",
        "preset": "paper",
        "reduced": False,
        "scale": 1.0,
        "student_wait": 0,
    },
    "Optimizer": {
        "clip": None,
        "decay_rate": 0.97,
        "decay_steps": None,
        "eps": None,
        "lr": 0.1,
        "lr_batch": None,
        "momentum": 0.9,
        "name": "sgd",
        "sam": 0.0,
        "schedule": "cosine",
        "warmup_steps": 0,
        "weight_decay": 0.0005,
    },
    "PseudoNoise": {
        "drop_path": True,
        "dropout": True,
        "input": True,
    },
    "Run": {
        "method": "noisy_student",
        "mode": "every_round",
        "patience": 1,
        "promote": "auto",
        "rounds": 2,
        "seed": 0,
    },
    "Select": {
        "balance": True,
        "per_class": "auto",
        "pool_share": 1.0,
        "quotas": {},
        "rule": "paper",
        "threshold": 0.3,
        "thresholds": {},
    },
    "Student": {
        "init": "scratch",
        "joint": True,
        "loss": "mean",
        "ratio": 3,
        "targets": "soft",
        "temperature": 1.0,
    },
    "Training": {
        "crop_share": None,
        "ema_decay": None,
        "ema_warmup": "tensorflow",
        "eval_steps": None,
        "interpolation": None,
        "label_smoothing": 0.0,
        "patience": None,
        "precision": "auto",
        "test_size": None,
        "train_size": None,
    },
    "Uda": {"ramp_steps": 0, "temperature": 0.7, "threshold": 0.6, "weight": 8.0},
}

REQUIRED = {
    *("run.dir", "data.labelled", "data.pool"),
    *("teacher.model.name", "teacher.steps", "teacher.batch"),
    *("student.model.name", "student.steps", "student.batch"),
}

MINIMAL: dict[str, Any] = {
    "run": {"dir": "runs/x"},
    "data": {"labelled": "l", "pool": "p"},
    "teacher": {"model": {"name": "resnet10t"}, "steps": 4, "batch": 6},
    "student": {"model": {"name": "resnet10t"}, "steps": 4, "batch": 6},
}

TWO = "student=[{model: {name: resnet10t}, steps: 4, batch: 6}, {model: {name: resnet18}, steps: 5, batch: 6}]"


def fields(section: type[BaseModel] = Config, path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting of the schema with its dotted name; of what may be the one or the other, those of the one."""
    for name, field in section.model_fields.items():
        kinds = sections_of(field)
        if kinds:
            yield from fields(kinds[0], f"{path}{name}.")
        else:
            yield f"{path}{name}", field


def leaves(value: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of nested mappings with its dotted name; a setting that is a mapping is one setting."""
    for name, inner in value.items():
        if isinstance(inner, dict) and name not in {"args", "quotas", "thresholds", "image_columns", "label_columns"}:
            yield from leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner


def at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def refusal(path: Path, *overrides: str) -> str:
    """The message that ``load`` refuses with."""
    with pytest.raises(InputError) as caught:
        load(path, overrides)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    return message


# The defaults that have changed: by section and setting, by the last format of runs that have the old one.
EARLIER: dict[str, dict[str, dict[int, Any]]] = {
    "Data": {"held_out": {3: 0.2}},
    "Model": {"own_rates": {5: True}},
    "Noise": {"cutout_operation": {3: False}, "probability": {3: 0.5}},
    "Run": {"promote": {3: "validation"}},
    "Training": {"ema_warmup": {3: "timm"}},
}
