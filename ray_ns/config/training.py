"""Settings ``teacher`` and ``student``: a network, its optimiser, its noise and its fine-tuning."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ray_ns.config.data import CropShare, Data, Interpolation
from ray_ns.config.schema import PRECISION, PathSetting, Positive, Precision, Section, Share, earlier, how

Side = Annotated[int, Field(ge=8, le=2048)]


class Model(Section):
    """A timm model."""

    name: str = Field(..., description="timm model name, such as efficientnet_b0 (timm.list_models())")
    args: dict[str, Any] = Field({}, description="further arguments of the network, as timm.create_model takes them")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="dropout before the classifier (drop_rate)")
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="stochastic depth, linear from 0 to this rate at the last block (drop_path_rate)"
    )
    own_rates: bool = earlier(
        False,
        {5: True},
        "what a dropout or drop_path of 0 is; false: none; true: what timm gives that network by itself (a drop_path "
        "of 0.1 to swin, of 0.5 to nest; a dropout of 0.2 to rexnet)",
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

    @property
    def rates(self) -> dict[str, float]:
        """The drop_rate and drop_path_rate that timm is given. One that is not there is for timm to choose."""
        said = {"drop_rate": self.dropout, "drop_path_rate": self.drop_path}
        return {name: rate for name, rate in said.items() if rate or not self.own_rates}


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
    sam: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0,
        description="sharpness-aware minimisation: each step takes the gradient at the weights moved so far (rho; the "
        "paper: 0.05 to 0.2) up their gradient; a step takes twice as long; 0: none",
    )
    clip: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="largest norm of the gradient over all weights of a network: what is longer is cut to it (the "
        "released code of Meta Pseudo Labels on ImageNet: 5); null: none",
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

    crop: Literal["none", "padded", "padded_last", "random_resized"] = Field(
        "none",
        description="none: the image as data.fit has it; padded: that, moved by up to 1/8 of its side (CIFAR); "
        "padded_last: the same after all other noise but affine, as the released code does on SVHN; random_resized: 8 "
        "to 100 % of its area at aspect 3/4 to 4/3, always bicubic (the paper on ImageNet)",
    )
    augment: Literal["none", "flip", "affine", "randaugment"] = Field(
        "randaugment",
        description="flip: mirroring alone (the paper's B0 and B1); affine: rotation, scale, shear, shift, brightness, "
        "contrast, cutout; randaugment: timm's operations",
    )
    magnitude: Annotated[float, Field(ge=0, le=10)] = Field(
        9.0,
        description="randaugment: M in 0..10 (timm, increasing); affine: 1 is up to 20 degrees, 20 % of shift",
    )
    operations: Annotated[int, Field(ge=1, le=8)] = Field(2, description="randaugment: operations per image (N)")
    probability: Share = earlier(
        1.0, {3: 0.5}, "randaugment: of applying each of the N operations (the paper and its code: 1; timm's own: 0.5)"
    )
    cutout_operation: bool = earlier(
        True, {3: False}, "randaugment: a small Cutout is one of the operations, the released code's 16th"
    )
    flip: bool = Field(True, description="mirror half of the images left to right; not with augment=none")
    cutout: Share = Field(0.0, description="side of a grey square at a random place, as a share of the image's")

    @model_validator(mode="after")
    def _visible(self) -> "Noise":
        if self.augment == "affine" and self.magnitude > 2:
            raise ValueError(f"magnitude = {self.magnitude:g} leaves nothing to see; affine takes 0 .. 2, such as 0.7")
        return self

    @model_validator(mode="after")
    def _mirrored(self) -> "Noise":
        if "flip" in self.model_fields_set and self.flip and self.augment == "none":
            raise ValueError("flip: true does nothing with augment: none. To mirror and nothing else: augment: flip")
        if self.augment == "flip" and not self.flip:
            raise ValueError("augment: flip does nothing with flip: false. Write augment: none")
        return self


class Finetune(Section):
    """A short training at a higher resolution after the main one, on labelled images without input noise."""

    steps: Annotated[int, Field(ge=0)] = Field(
        0, description="optimiser steps (the paper: those of 1.5 epochs of the labelled images); 0: no fine-tuning"
    )
    size: Side | None = Field(
        None, description="side of its images, at which the network is then used without a test_size; null: data.size"
    )
    freeze: Annotated[int, Field(ge=0)] = Field(
        0, description="first layers that stay as they are (the paper: the shallow ones): the stem, then every block"
    )
    optimizer: Optimizer = Field(Optimizer(), description="optimiser and learning rate")


class Fixres(Section):
    """A correction of the trained network for larger test images (Touvron et al. 2019), on labelled images."""

    size: Annotated[int, Field(ge=8, le=2048)] | None = Field(
        None,
        description="side of the test images, larger than the training's (the paper: about 1.25 times); the network is "
        "corrected for it, and then used at it; null: no correction",
    )
    variant: Literal["statistics", "affine", "head", "head_and_norm"] = Field(
        "head_and_norm",
        description="statistics: mean and variance of every batch norm anew; affine: those of what the classifier "
        "sees, put back to what they were; head: the classifier is trained on; head_and_norm: so, and mean and "
        "variance of the last batch norm follow (the released code)",
    )
    steps: Positive = Field(
        200, description="optimiser steps; statistics and affine: batches of images that are looked at"
    )
    optimizer: Optimizer = Field(
        Optimizer(), description="optimiser and learning rate (the released code: sgd, lr 8e-3, lr_batch 512)"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="0.1 in the paper's note on EfficientNet, none in the released code"
    )
    crop_share: CropShare | None = Field(
        None,
        description="data.crop_share for its images, which the network then has wherever it is used; null: the "
        "recipe's",
    )

    @model_validator(mode="after")
    def _cropped(self) -> "Fixres":
        if self.crop_share is not None and self.size is None:
            raise ValueError(f"crop_share = {self.crop_share} is of the test images, and size is null; set size")
        return self


class Training(Section):
    """How one network is trained."""

    model: Model = Field(..., description="the network")
    steps: Positive = Field(..., description="optimiser steps")
    batch: Positive = Field(..., description="labelled images per step, over all workers")
    train_size: Side | None = Field(None, description="side of its training images; null: data.size")
    test_size: Side | None = Field(
        None, description="side of the images that it is scored on, labels and is evaluated at; null: data.size"
    )
    crop_share: CropShare | None = Field(None, description="data.crop_share for its images; null: that")
    interpolation: Interpolation | None = Field(None, description="data.interpolation for its images; null: that")
    optimizer: Optimizer = Field(Optimizer(), description="optimiser and learning rate")
    noise: Noise = Field(Noise(), description="input noise")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="on true labels and on hard pseudo labels; not on soft ones (the released code: 0.1)",
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="moving average of the weights, with warm-up; it is what labels and is evaluated; null: none"
    )
    ema_warmup: Literal["tensorflow", "timm"] = earlier(
        "tensorflow",
        {3: "timm"},
        "decay after t updates; tensorflow: min(ema_decay, (1 + t) / (10 + t)), as the released code; timm: "
        "min(ema_decay, 1 - t ** (-2/3)), which reaches 0.9999 after a million updates",
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
    fixres: Fixres = Field(Fixres(), description="a correction for larger test images, after that")

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
            "train_size": None,
            "fixres": Fixres(),
        }
        kept: dict[str, Any] = {name: getattr(self, name) for name in Training.model_fields if name not in own}
        return Training(**kept, **own)

    def trained_on(self, data: Data) -> Data:
        """How its training images are read, where ``data`` is the run's."""
        return data.read_as(size=self.train_size, crop_share=self.crop_share, interpolation=self.interpolation)

    def used_on(self, data: Data) -> Data:
        """How images are read for the network of this training, whoever uses it; a fine-tuning is one of its own."""
        return data.read_as(size=self.test_size, crop_share=self.crop_share, interpolation=self.interpolation)

    def tuned_on(self, data: Data) -> Data:
        """What takes the place of ``data`` for the fine-tuning ``tuning``."""
        return data.read_as(size=self.finetune.size)

    def in_the_end(self, data: Data) -> Data:
        """``used_on`` of the network that all of it leads to, fine-tuned or not, corrected by FixRes or not."""
        tuning = self.tuning
        if self.fixing is not None:
            return self.fixing.used_on(data)
        return self.used_on(data) if tuning is None else tuning.used_on(self.tuned_on(data))

    def fixed_from(self, data: Data) -> int:
        """Side in pixels of the images that it is trained on last, from which FixRes corrects it."""
        tuning = self.tuning
        return (self.trained_on(data) if tuning is None else tuning.trained_on(self.tuned_on(data))).size

    @property
    def fixing(self) -> "Fixing | None":
        """The correction for larger images as a training of its own, where there is one. Nothing is averaged."""
        if self.fixres.size is None:
            return None
        own: dict[str, Any] = {
            "steps": self.fixres.steps,
            "optimizer": self.fixres.optimizer,
            "label_smoothing": self.fixres.label_smoothing,
            "noise": Noise(augment="none", flip=False),
            "ema_decay": None,
            "eval_steps": None,
            "patience": None,
            "finetune": Finetune(),
            "fixres": Fixres(),
            "train_size": self.fixres.size,
            "test_size": self.fixres.size,
            "crop_share": self.crop_share if self.fixres.crop_share is None else self.fixres.crop_share,
            "variant": self.fixres.variant,
        }
        kept: dict[str, Any] = {name: getattr(self, name) for name in Training.model_fields if name not in own}
        return Fixing(**kept, **own)

    @property
    def peak_lr(self) -> float:
        """The highest learning rate."""
        scale = self.batch / self.optimizer.lr_batch if self.optimizer.lr_batch else 1.0
        return self.optimizer.lr * scale


class PseudoNoise(Section):
    """Which of a student's noise its pseudo-labelled images get; its labelled ones always get all of it.

    The paper's ablation takes noise from the unlabelled images alone (section 4.1): so does ``false`` here.
    """

    input: bool = Field(True, description="their input noise (noise); false: they are read as the teacher reads them")
    dropout: bool = Field(True, description="dropout (model.dropout) for them")
    drop_path: bool = Field(True, description="stochastic depth (model.drop_path) for them")


class Fixing(Training):
    """A correction for larger test images: ``Fixres`` of a recipe as a training. See ``models.fixres``."""

    variant: Literal["statistics", "affine", "head", "head_and_norm"] = Field(..., description="of Fixres")


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
        description="mean: over all images of the step (the paper's text); sum: mean(labelled) + ratio x "
        "mean(pseudo-labelled), (1 + ratio) times as much, as the released code does and its learning rates want",
    )
    pseudo_noise: PseudoNoise = Field(PseudoNoise(), description="noise of the pseudo-labelled images")
    joint: bool = Field(
        True,
        description="true: a step has labelled and pseudo-labelled images (the paper); false: as many, all of them "
        "pseudo-labelled; finetune.steps then tunes on labelled ones",
    )
