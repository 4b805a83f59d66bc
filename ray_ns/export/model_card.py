"""The model card of a run's best network, in the form of the Hugging Face hub: values in, Markdown out."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from ray_ns.config import MIDDLE, Data, Method
from ray_ns.evaluate.intervals import wilson
from ray_ns.evaluate.verdict import Verdict
from ray_ns.methods.outcome import ONE_STUDENT
from ray_ns.printed import plain

TAGS = ["timm", "transformers", "image-classification", "self-training", "semi-supervised"]
PAPER = "https://arxiv.org/abs/1911.04252"
NAMES_SHOWN = 100
_MARKS = str.maketrans({it: f"\\{it}" for it in "\\`*_[]#|~"})

COMES_FROM: Mapping[Method, tuple[str, str]] = {  # by method: its name, and what it does
    "noisy_student": (
        "Noisy Student",
        f"Noisy Student self-training ([Xie et al. 2020]({PAPER})) with ray_ns: {{teacher}} labels a pool; a noised "
        f"student learns from labelled images and that pool, and becomes the teacher.",
    ),
    "supervised": ("labels alone", "a training on labelled images alone with ray_ns."),
    "pseudo_label": (
        "pseudo labels",
        "plain pseudo labels (Lee 2013) with ray_ns: {teacher} labels a pool; a student learns from labelled images "
        "and the teacher's class of each pool image.",
    ),
    "uda": (
        "UDA",
        "unsupervised data augmentation ([Xie et al. 2020](https://arxiv.org/abs/1904.12848)) with ray_ns: a network "
        "learns from labelled images, and to say the same of two views of a pool image.",
    ),
    "meta_pseudo_labels": (
        "Meta Pseudo Labels",
        "Meta Pseudo Labels ([Pham et al. 2021](https://arxiv.org/abs/2003.10580)) with ray_ns: a student learns a "
        "teacher's labels of pool images, and the teacher from what they did to the student.",
    ),
}


@dataclass(frozen=True)
class Trained:
    """A row of the round table: a network, what it was trained on beside the labelled images, and its top-1 (0..1).

    Top-1 is None where there were no such images. ``kept``, ``copies``: selected pool images, and how many times they
    are used in all; None without a pool. ``given``: it was not trained by the run.
    """

    title: str
    model: str
    parameters: int
    validation: float | None
    test: float | None
    kept: int | None = None
    copies: int | None = None
    given: bool = False


@dataclass(frozen=True)
class Origin:
    """Where a corpus comes from, without its place: its images (None: not counted), and two digests in hex.

    ``listing`` is of its files' names, sizes and times; ``content`` of the images' bytes, None where nobody read them.
    """

    images: int | None
    listing: str
    content: str | None = None


@dataclass(frozen=True)
class Selected:
    """How pool images were chosen: the rule, the thresholds (0..1) and images per class, smallest and largest."""

    rule: str
    thresholds: tuple[float, float]
    per_class: tuple[int, int]


@dataclass(frozen=True)
class Card:
    """All that the card says. ``rounds``: the teacher's row first; ``best``: which of them the network is of.

    ``over_teacher``, ``over_control``: that network against them on test; None where it is the teacher, or there is no
    control. Of a method with one student it is that one against the control, and, by their titles, against
    ``over_others``. ``data``: how the network is fed. ``names``: of the classes by number, None where they have none.
    ``images``, ``unreadable``: of the validation and test images; an unreadable one counts as wrong. ``calibration``:
    expected calibration error on test, 0..1, None without test images. ``quarantine``, ``left_out``: pool images
    without a label, by reason. ``why``: why it is the best, where that was not by top-1 alone. ``top5``: on test, 0..1,
    None where it is not measured. ``facts``: what else identifies the run, printed as it is.
    """

    rounds: Sequence[Trained]
    best: int
    controls: Sequence[Trained]
    method: Method
    over_teacher: Verdict | None
    over_control: Verdict | None
    data: Data
    names: Sequence[str] | None
    images: Mapping[str, int]
    unreadable: Mapping[str, int]
    calibration: float | None
    origins: Mapping[str, Origin]
    quarantine: Mapping[str, int]
    left_out: Mapping[str, int]
    selected: Selected | None
    facts: Mapping[str, Any]
    why: str | None = None
    top5: float | None = None
    over_others: Mapping[str, Verdict] = field(default_factory=dict)

    @property
    def teacher(self) -> str:
        """How the first teacher came to be, before what it did."""
        return "a teacher that was given" if self.rounds[0].given else "a teacher learns from labelled images and"


def card(it: Card) -> str:
    """The whole card: YAML front matter, then what the network is, how to use it, its data, figures and limits."""
    parts = (_what(it), _use(it), _data(it), _figures(it), _limits(it))
    body = "\n\n".join("\n".join(part) for part in parts)
    return f"---\n{yaml.safe_dump(front_matter(it), sort_keys=False, allow_unicode=True)}---\n\n{body}\n"


def front_matter(it: Card) -> dict[str, Any]:
    """The card's metadata. No licence is in it: it depends on the images, which only their owner knows."""
    best = it.rounds[it.best]
    task = {"type": "image-classification", "name": "Image classification"}
    held = {"type": "imagefolder", "name": "test images of the run, which chose nothing", "split": "test"}
    measured = {
        ("accuracy", "Top-1"): best.test,
        ("accuracy", "Top-5"): it.top5,
        ("expected_calibration_error", "ECE, 15 bins"): it.calibration,
    }
    figures = [
        {"type": kind, "name": name, "value": round(value, 6)}
        for (kind, name), value in measured.items()
        if value is not None
    ]
    name = f"{plain(best.model)}, {COMES_FROM[it.method][0]}"
    found = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": [*TAGS, it.method.replace("_", "-"), "ray-ns"],
    }
    if not figures:
        return found
    return found | {"model-index": [{"name": name, "results": [{"task": task, "dataset": held, "metrics": figures}]}]}


def _what(it: Card) -> Iterator[str]:
    best = it.rounds[it.best]
    sees = f"{it.data.size} x {it.data.size} pixels, {'RGB' if it.data.channels == 3 else 'grey'}"
    method, told = COMES_FROM[it.method]
    yield f"# {_text(best.model)}, {method}"
    yield ""
    yield (
        f"An image classifier: `{_code(best.model)}` of timm, {best.parameters:,} parameters, {it.data.classes} "
        f"classes, images of {sees}. It comes from {told.format(teacher=it.teacher)}"
    )
    if it.best == 0:
        yield ""
        reason = "No student was better on the validation images" if it.why is None else f"Why: {it.why}"
        learned = "is as it was given" if best.given else "has learned from the labelled images alone"
        yield f"**This network is the teacher.** {reason}, so it {learned}."
    elif it.why is not None:
        yield ""
        yield f"Why this network: {it.why}."
    yield ""
    if it.names is None:
        yield "The classes have no names, only their numbers."
    elif len(it.names) <= NAMES_SHOWN:
        yield f"Classes, in the order of their numbers: {', '.join(map(_text, it.names))}."
    else:
        yield f"The names of the {len(it.names):,} classes, a line each in the order of their numbers: `labels.txt`."


def _use(it: Card) -> Iterator[str]:
    mode = "RGB" if it.data.channels == 3 else "L"
    yield "## Use"
    yield "With timm, which needs nothing else of the folder than `model.safetensors` and `config.json`:"
    yield "```python"
    yield "import timm, torch"
    yield "from PIL import Image"
    yield ""
    yield 'model = timm.create_model("local-dir:path/to/this/folder", pretrained=True).eval()'
    yield "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
    yield f'image = Image.open("picture.jpg").convert("{mode}")'
    yield "with torch.inference_mode():"
    yield "    probabilities = model(transform(image)[None]).softmax(1)[0]"
    yield 'print(model.pretrained_cfg["label_names"][int(probabilities.argmax())], float(probabilities.max()))'
    yield "```"
    if it.data.channels == 3:
        yield "With transformers:"
        yield "```python"
        yield "from transformers import pipeline"
        yield ""
        yield 'print(pipeline("image-classification", model="path/to/this/folder")("picture.jpg"))'
        yield "```"
    else:
        yield "The pipeline of transformers makes every image RGB; this network is for grey ones."
    yield "A whole folder, tar or Parquet shard, with ray_ns:"
    yield "```"
    yield "ray-ns predict path/to/this/folder pictures/ -o labels.csv"
    yield "```"
    yield _fed(it.data)


def _fed(data: Data) -> str:
    share = "7/8" if data.crop_share == MIDDLE else f"{data.size}/{data.resized}"
    fits = {
        "squash": "the whole image is resized to a square, whatever its shape",
        "crop": f"the square in the middle, {share} of the short side, is resized",
    }
    return (
        f"How an image is fed: {fits[data.fit]}, to {data.size} x {data.size} pixels, {data.interpolation} and "
        f"antialiased; then (pixel / 255 - mean) / std with mean {data.mean} and std {data.std}. EXIF orientation and "
        f"colour profiles are ignored, transparent images are drawn on white."
    )


def _data(it: Card) -> Iterator[str]:
    yield "## Data"
    yield "| corpus | images | digest of its listing | digest of its images |"
    yield "|---|---:|---|---|"
    for name, origin in it.origins.items():
        images = "not counted" if origin.images is None else f"{origin.images:,}"
        content = f"`{origin.content[:16]}`" if origin.content else "not read as a whole"
        yield f"| {name} | {images} | `{origin.listing[:16]}` | {content} |"
    yield ""
    yield (
        f"Of the pool, {_counted(it.quarantine, 'could not be read')}, and "
        f"{_counted(it.left_out, 'were left out because they are labelled, validation or test images too')}."
    )
    if it.selected is not None:
        yield ""
        yield _chosen(it.selected)
    yield ""
    yield from (f"- {name}: {_text(str(value))}" for name, value in it.facts.items())


def _counted(reasons: Mapping[str, int], words: str) -> str:
    told = ", ".join(f"{_text(reason)} {count:,}" for reason, count in sorted(reasons.items()))
    return f"{sum(reasons.values()):,} images {words}" + (f" ({told})" if told else "")


def _chosen(it: Selected) -> str:
    low, high = it.thresholds
    threshold = f"{low:g}" if low == high else f"{low:g} to {high:g}, by class"
    least, most = it.per_class
    count = (
        f"{most:,} images of each class that has any" if least == most else f"{least:,} to {most:,} images of a class"
    )
    return (
        f"Pool images were selected by confidence: threshold {threshold}; rule `{_code(it.rule)}`; after the balance, "
        f"{count}, copies counted."
    )


def _figures(it: Card) -> Iterator[str]:
    images = it.images["test"]
    yield "## Figures"
    if images:
        yield f"Top-1 in percent. The interval is Wilson's 95 % interval for {images:,} test images."
    else:
        yield "**Not measured on test**: the run had no test images (`data.held_out: 0`)."
    yield ""
    yield "| | network | parameters | pool images | copies | validation | test | interval on test |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for number, row in enumerate([*it.rounds, *it.controls]):
        title = f"**{row.title} (this network)**" if number == it.best else row.title
        kept, copies = (f"{count:,}" if count is not None else "-" for count in (row.kept, row.copies))
        yield (
            f"| {title} | {_text(row.model)} | {row.parameters:,} | {kept} | {copies} | {_percent(row.validation)} | "
            f"{_percent(row.test)} | {_interval(row.test, images)} |"
        )
    yield ""
    if it.over_teacher is not None:
        which = "was given" if it.rounds[0].given else "learned from the labelled images alone"
        yield f"- Against the teacher, which {which}: {_compared(it.over_teacher)}"
    of_student = it.best == 0 and it.method in ONE_STUDENT
    against = "Student 1, not this network, against" if of_student else "Against"
    if it.over_control is not None:
        told = _control(it.best, "student" if of_student else "first student")
        yield f"- {against} the control: {_compared(it.over_control)} {told}"
    for title, found in it.over_others.items():
        yield f'- {against} the control "{title.partition(": ")[2]}": {_compared(found)}'
    if not it.controls:
        yield "- No control was trained: what a larger network or more noise bring without the pool is unknown."
    if it.top5 is not None:
        yield f"- Top-5 on test: {100 * it.top5:.1f}."
    if it.calibration is not None:
        yield _calibration(it.calibration)
    yield from (
        f"- {count:,} unreadable {name} images count as wrong." for name, count in it.unreadable.items() if count
    )


def _calibration(error: float) -> str:
    return (
        f"- Expected calibration error on test: {100 * error:.1f} points (15 bins). It is how far the confidence is "
        f"from the share of right answers, on average."
    )


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.1f}"


def _interval(share: float | None, images: int) -> str:
    if share is None:
        return "-"
    low, high = wilson(share, images)
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _control(best: int, whose: str) -> str:
    if best == 0:
        return f"The control is the {whose}'s architecture, recipe, steps and noise, without the pool."
    return (
        "The control is this network's own architecture, recipe, steps and noise, trained on the labelled images "
        "alone: a true difference comes from the pool."
    )


def _compared(found: Verdict) -> str:
    """A difference on test with its interval, and in words where it may be none."""
    told = f"{found.in_words}."
    if found.word != "cannot tell":
        return told
    why = "the interval includes 0" if found.low <= 0 <= found.high else f"McNemar's exact p is {found.p:.2g}"
    return f"{told} **This is not significant**: {why}."


def _limits(it: Card) -> Iterator[str]:
    images, best = it.images["test"], it.rounds[it.best]
    yield "## Limits"
    if best.test is not None:
        low, high = wilson(best.test, images)
        yield (
            f"- The test set has {images:,} images: one image is {100 / images:.2f} points, and the interval is "
            f"{100 * (high - low):.1f} points wide."
        )
    if best.validation is not None:
        yield (
            f"- The round was chosen on {it.images['validation']:,} validation images, so its validation figure is "
            f"flattering. Test images chose nothing."
        )
    if it.rounds[0].given:
        yield (
            "- The teacher was given. Nothing here says what it has learned from: where that was the validation or "
            "test images, its figures are flattering, and so are those of its students."
        )
    yield "- All figures are of one run with one seed. Another seed gives others; nothing here says how far apart."
    yield (
        "- Not tried: other data than the run's own test images, robustness to corruptions, shifts or attacks, "
        "behaviour on images of no class (it names a class for every image), differences between groups of people."
    )
    yield (
        "- Labels of the pool are the teacher's, its errors and biases included. Nobody has looked at the pool's "
        "images or their licences; before you share this network, add the licence that they allow."
    )


def _text(words: str) -> str:
    """A name of others as Markdown text: no mark, tag or line end in it does anything."""
    return html.escape(plain(words), quote=False).translate(_MARKS)


def _code(words: str) -> str:
    return plain(words).replace("`", "'")
