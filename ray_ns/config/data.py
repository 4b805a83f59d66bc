"""Settings ``data``: the images, and how one of them is read."""

from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from ray_ns.config.schema import AsWritten, ClassCount, PathSetting, Section, Share, earlier, how

CorpusName = Literal["labelled", "validation", "test", "pool"]
Interpolation = Literal["bilinear", "bicubic"]
CropShare = Annotated[float, Field(gt=0, le=1)] | Literal["paper"]
MIDDLE = 0.875  # of the short side: what fit=crop keeps where nothing else is said
PAPER_MARGIN = 32  # pixels around the middle in the released Noisy Student code (preprocessing.py, CROP_PADDING)
FED = ("size", "fit", "crop_share", "interpolation", "channels", "mean", "std")  # how a network is fed with images


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
    held_out: Literal["auto", 0] | Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=2)] = earlier(
        "auto",
        {3: 0.2},
        "what of each class of labelled never trains, half for validation, half for test, each where it "
        "is null: a share, or a number of images from 2 on; auto: a tenth for each from 2,000 images on, up to 1,000, "
        "and less of fewer; 0: all images train, and no figure is reported",
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
    size: int = Field(
        224,
        ge=8,
        le=2048,
        description="images are resized to size x size pixels, antialiased; a recipe may have train_size and test_size",
    )
    fit: Literal["squash", "crop"] = Field(
        "squash",
        description="how an image becomes a square, for labels, evaluation and training alike; squash: all of it; "
        "crop: the middle one, crop_share of its short side",
    )
    crop_share: CropShare = Field(
        MIDDLE,
        description="fit=crop: share of the short side that is kept, 0 .. 1, in whole pixels of the resized image; "
        "paper: size / (size + 32), the released Noisy Student code",
    )
    interpolation: Interpolation = Field("bilinear", description="how images are resized (the paper: bicubic)")
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

    @model_validator(mode="after")
    def _cropped(self) -> "Data":
        if self.fit == "squash" and self.crop_share != MIDDLE:
            raise ValueError(f"crop_share = {self.crop_share} is for fit: crop, and fit is squash, which keeps all")
        return self

    @property
    def resized(self) -> int:
        """Side in pixels to which the short side would be resized, for its middle ``size`` pixels to be kept."""
        if self.fit == "squash":
            return self.size
        return self.size + PAPER_MARGIN if self.crop_share == "paper" else round(self.size / self.crop_share)

    def read_as(self, **changes: Any) -> "Data":
        """The same images, read with these settings instead; None leaves one as it is."""
        return self.model_copy(update={name: value for name, value in changes.items() if value is not None})
