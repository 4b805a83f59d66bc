"""A survey of a corpus in words, as data, and as a sheet of sampled pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ray_ns.corpora.corpus import Corpus, split_ids
from ray_ns.corpora.survey import TILE, Survey, Tile, quantiles
from ray_ns.errors import InputError
from ray_ns.images.decode import Reason
from ray_ns.printed import plain, say
from ray_ns.report.terminal import columns

SHARES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}
CLASSES_SHOWN = 20
SAMPLE = 96
COLUMNS = 12
GAP, CAPTION = 6, 16
INK, FAULT, PAPER, BLANK = "#222222", "#b00020", "#ffffff", "#e8e8e8"


def as_json(corpus: Corpus, found: Survey) -> dict[str, Any]:
    """All figures of the survey; ``per_class`` as pairs [label, images], None without labels."""
    sizes = {name: getattr(found, name) for name in ("bytes", "widths", "heights")}
    return {
        "corpus": corpus.root,
        "shards": len(corpus.shards),
        "bytes_of_shards": sum(shard.size for shard in corpus.shards),
        "images": found.images,
        "formats": dict(found.formats.most_common()),
        "sizes": {
            name: dict(zip(SHARES, quantiles(counted, tuple(SHARES.values())), strict=False))
            for name, counted in sizes.items()
        },
        "labels_from": corpus.labels_from,
        "beside": corpus.found.in_words(),
        "per_class": None if corpus.label_column is None else [[it, found.labels[it]] for it in _ordered(found.labels)],
        "unreadable": found.reasons.total(),
        "reasons": dict(sorted(found.reasons.items())),
        "first_unreadable": dict(sorted(found.bad.items())),
    }


def show(corpus: Corpus, found: Survey) -> None:
    """Print the survey."""
    report = as_json(corpus, found)
    for line in words(report):
        say(line)
    rows = [[name, *(f"{value:,}" for value in values.values())] for name, values in report["sizes"].items() if values]
    if rows:
        columns.show(("", *SHARES), rows)


def words(report: dict[str, Any]) -> list[str]:
    """The survey without its table of sizes, line by line."""
    lines = [
        f"{report['corpus']}: {report['images']:,} images in {report['shards']:,} shards, "
        f"{report['bytes_of_shards'] / 1e6:,.1f} MB",
        "formats: " + (", ".join(f"{name} {count:,}" for name, count in report["formats"].items()) or "none read"),
    ]
    lines += report["beside"]
    if report["per_class"] is not None:
        shown = [f"{label}: {count:,}" for label, count in report["per_class"][:CLASSES_SHOWN]]
        more = len(report["per_class"]) - len(shown)
        source = f" (from {report['labels_from']})" if report["labels_from"] else ""
        lines.append(
            f"{len(report['per_class'])} classes{source}: " + ", ".join(shown) + (f", and {more} more" * bool(more))
        )
    bad = report["unreadable"]
    lines.append(f"unreadable: {bad:,} ({bad / report['images']:.2%})" if bad else "unreadable: none")
    for reason, count in report["reasons"].items():
        first = report["first_unreadable"][reason]
        lines.append(f"  {reason} {count:,}: {', '.join(first)}" + ", ..." * (count > len(first)))
    return lines


def save_sheet(found: Survey, path: str) -> None:
    """Write the contact sheet as PNG. Raises ``InputError`` where it cannot be written."""
    try:
        sheet(found).save(Path(path), "PNG")
    except OSError as error:
        raise InputError(
            f"{path}: the sheet cannot be written ({error.strerror or error}). Give another path."
        ) from error


def sheet(found: Survey) -> Image.Image:
    """The sampled images as a network sees them, squashed to squares, each above its label, or else its shard/row.

    An unreadable one shows the reason. Sorted by class, then in the corpus's order.
    """
    order = {label: at for at, label in enumerate(_ordered(found.labels))}
    tiles = sorted(found.tiles.items(), key=lambda it: (order.get(it[1].label, 0), it[0]))
    rows = max(1, -(-len(tiles) // COLUMNS))
    across, down = TILE + GAP, TILE + CAPTION + GAP
    page = Image.new("RGB", (GAP + COLUMNS * across, GAP + rows * down), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for at, (number, tile) in enumerate(tiles):
        x, y = GAP + at % COLUMNS * across, GAP + at // COLUMNS * down
        if isinstance(tile.content, Reason):
            draw.rectangle((x, y, x + TILE - 1, y + TILE - 1), BLANK)
            text = tile.content.replace("_", "\n")
            draw.multiline_text((x + TILE / 2, y + TILE / 2), text, FAULT, font, "mm", align="center")
        else:
            page.paste(Image.fromarray(tile.content), (x, y))
        draw.rectangle((x - 1, y - 1, x + TILE, y + TILE), outline=BLANK)  # so that a white picture is seen
        draw.text((x + TILE / 2, y + TILE + 1), _fitting(_caption(number, tile, found), draw, font), INK, font, "ma")
    return page


def _caption(number: int, tile: Tile, found: Survey) -> str:
    if found.labels:
        return plain(tile.label)
    ordinal, row = split_ids(np.array(number))
    return f"{ordinal}/{row}"


def _fitting(text: str, draw: ImageDraw.ImageDraw, font: Any) -> str:
    """As much of a caption as fits below its tile."""
    if draw.textlength(text, font) <= TILE:
        return text
    while text and draw.textlength(text + "…", font) > TILE:
        text = text[:-1]
    return text + "…"


def _ordered(labels: Any) -> list[Any]:
    """Labels in their order; None, for rows without one, comes last."""
    return sorted(labels, key=lambda it: (it is None, str(type(it)), it if it is not None else 0))
