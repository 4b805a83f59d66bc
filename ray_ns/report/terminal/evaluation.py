"""What ``ray-ns evaluate`` prints: a table per kind of suites, then how the student differs from the others."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray_ns.evaluate.corruptions import COMMON
from ray_ns.evaluate.published import lacks_common
from ray_ns.evaluate.suites import CORRUPTIONS, PERTURBATIONS, PUBLISHED, REAL
from ray_ns.printed import say
from ray_ns.report.terminal import columns

CALLED = {"top1": "top-1", "error": "mean error", "flips": "flip rate"}  # what a kind of suites is compared by
OF_TOP1 = "they count as wrong in top-1 and top-5, and in ECE and NLL not at all"
# What images that cannot be read count as, by kind of suites; of the others it is ``OF_TOP1``.
UNREADABLE = {
    REAL: "they count as wrong by ReaL labels",
    **dict.fromkeys((CORRUPTIONS, PUBLISHED), "they count as wrong in the errors"),
    PERTURBATIONS: "the flip rates leave them out",
}
MISTAKES = 5  # pairs of classes that are named


def show(report: Mapping[str, Any], url: str, names: Mapping[str, Any]) -> None:
    """Print the report of ``stages.judged_report``.

    ``names``: ``suites``, what each row's suite is called, by its folder; ``classes``, by number, or None.
    """
    rows = report["rows"]
    single = [row for row in rows if "top1" in row["figures"]]
    corrupted = [row for row in rows if "corruptions" in row["figures"]]
    if single:
        _top1(single, names)
    for suite in dict.fromkeys(_name(row, names) for row in corrupted):
        _corruptions(suite, [row for row in corrupted if _name(row, names) == suite])
    perturbed = [row for row in rows if "perturbations" in row["figures"]]
    for suite in dict.fromkeys(_name(row, names) for row in perturbed):
        _perturbations(suite, [row for row in perturbed if _name(row, names) == suite])
    _unreadable(rows)
    for row in single:
        if row["kind"] in {"clean", "among"}:
            _mistakes(row, names)
    if len({row["kind"] for row in rows}) > 1:
        _summary(rows, names)
    _differences(report, names)
    say(f"what was said of each image, confusion and reliability tables: {url}")


def _unreadable(rows: Sequence[Mapping[str, Any]]) -> None:
    """A line for each way in which figures take images that cannot be read."""
    most: dict[str, int] = {}
    for row in rows:
        taken = UNREADABLE.get(row["kind"], OF_TOP1)
        most[taken] = max(most.get(taken, 0), row["figures"]["unreadable"])
    for taken, unreadable in most.items():
        if unreadable:
            say(f"up to {unreadable:,} images cannot be read: {taken}")


def _top1(rows: Sequence[Mapping[str, Any]], names: Mapping[str, Any]) -> None:
    columns.show(
        ("on", "network", "images", "top-1", "95 % interval", "top-5", "ECE", "NLL"),
        [[_name(row, names), row["network"], *_cells(row["figures"])] for row in rows],
        names=2,
    )
    say("top-1 and top-5 in %, with Wilson's interval; ECE: calibration error in 15 bins, in points; NLL: in nats")
    if any(row["kind"] == "among" for row in rows):
        say("among: the network chooses among the classes that the images have, as ImageNet-A and -R are judged")
    left_out = {_name(row, names): row["figures"]["left_out"] for row in rows if row["kind"] == REAL}
    if left_out:
        say("real: by ReaL labels, of which an image may have several")
    for suite, images in left_out.items():
        say(f"{suite}: {images:,} images without such labels are left out")
    if any(row["kind"] in {"fgsm", "pgd"} for row in rows):
        say("fgsm, pgd: on images changed against that very network, no pixel further than so far of its range 0 to 1")


def _summary(rows: Sequence[Mapping[str, Any]], names: Mapping[str, Any]) -> None:
    """A line per suite and figure, a column per network: all in one place, with intervals."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        figures, suite = row["figures"], _name(row, names)
        wanted = [it for it in CALLED if it in figures] + ["calibration_error"] * (row["kind"] == "clean")
        for figure in wanted:
            places = 2 if figure == "flips" else 1
            said = _number(figures[figure], 100, places)
            interval = _interval(figures[f"{figure}_interval"], places).replace(" to ", "-")
            lines.setdefault(f"{suite}, {CALLED.get(figure, 'ECE')}", {})[row["network"]] = f"{said} ({interval})"
    columns.show(("all in %", *networks), [[line, *(of.get(it, "-") for it in networks)] for line, of in lines.items()])
    say("of top-1 more is better, of all else less; intervals of 95 %")


def _corruptions(suite: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line per corruption: the mean error of its severities, of each network."""
    figures = [row["figures"] for row in rows]
    lines = [
        [name, *(f"{100 * sum(it['corruptions'][name]) / len(it['corruptions'][name]):.1f}" for it in figures)]
        for name in figures[0]["corruptions"]
    ]
    common = sum(name in COMMON for name in figures[0]["corruptions"])
    lines.append(
        [
            f"mean of {'' if common == 15 else f'{common} of '}ImageNet-C's 15",
            *(f"{100 * it['error']:.1f}" for it in figures),
        ]
    )
    lines.append(["95 % interval", *(_interval(it["error_interval"]) for it in figures)])
    lines.append([f"mean of all {len(figures[0]['corruptions'])}", *(f"{100 * it['error_all']:.1f}" for it in figures)])
    if figures[0]["mce"] is not None:
        lines.append([f"mCE ({_made(figures)}), AlexNet is 100", *(_number(it["mce"], 100, 1) for it in figures)])
    columns.show((suite, *(row["network"] for row in rows)), lines)
    if "crop" in figures[0]:
        _published(figures[0])
        return
    left_out = figures[0]["left_out"]
    made = "CIFAR-10-C" if figures[0]["variant"].startswith("cifar") else "ImageNet-C"
    say(
        f"errors in %, mean of 5 severities, on {figures[0]['images']:,} images made here with {made}'s constants "
        f"({_made(figures)}) as the network sees them, after its crop"
        + (f"; without {' and '.join(left_out)}" if left_out else "")
        + ("" if figures[0]["mce"] is not None else "; not normalised: AlexNet's errors are of ImageNet's classes")
    )


def _published(figures: Mapping[str, Any]) -> None:
    """What the errors are of, and what is missing from them."""
    left_out = figures["left_out"]
    if figures["mce"] is not None:
        mce = ""
    elif lacks_common(left_out):
        mce = "; no mCE, which is of all 15 at every severity"
    else:
        mce = "; not normalised: AlexNet's errors are of ImageNet's classes"
    say(
        f"errors in %, mean of the severities, on {figures['images']:,} images as published, each shown whole "
        f"(CenterCrop(224) where it has 224 px), resized to the network's size"
        + (f"; missing: {', '.join(left_out)}" if left_out else "")
        + mce
    )


def _perturbations(suite: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line per perturbation: the flip rate of each network."""
    figures = [row["figures"] for row in rows]
    lines = [
        [name, *(_number(it["perturbations"][name]["flips"], 100, 2) for it in figures)]
        for name in figures[0]["perturbations"]
    ]
    lines.append(["mean of the ten", *(_number(it["flips"], 100, 2) for it in figures)])
    lines.append(["95 % interval", *(_interval(it["flips_interval"], 2) for it in figures)])
    far = [[of["top5_distance"] for of in it["perturbations"].values()] for it in figures]
    if far[0][0] is not None:
        lines.append(["top-5 distance, mean of the ten, in ranks", *(f"{sum(it) / len(it):.3f}" for it in far)])
    if figures[0]["mfr"] is not None:
        lines.append([f"mFR ({_made(figures)}), AlexNet is 100", *(_number(it["mfr"], 100, 1) for it in figures)])
    columns.show((suite, *(row["network"] for row in rows)), lines)
    made = "CIFAR-10-P" if figures[0]["variant"].startswith("cifar") else "ImageNet-P"
    say(
        f"flips in % of the steps of sequences, on {figures[0]['images']:,} images made here with {made}'s constants "
        f"({_made(figures)}) as the network sees them, black beyond their edge"
        + ("" if figures[0]["mfr"] is not None else "; not normalised: AlexNet's rates are of ImageNet's classes")
        + ("" if far[0][0] is None else "; the top-5 distance is not normalised, so it is no mT5D")
    )


def _made(figures: Sequence[Mapping[str, Any]]) -> str:
    """With which constants the images were made, and of which size: ``imagenet-1.1.5, 224 px``."""
    sizes = sorted({it["size"] for it in figures if "size" in it})  # an evaluation of an earlier version has none
    return figures[0]["variant"] + (f", {' and '.join(map(str, sizes))} px" if sizes else "")


def _differences(report: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """Print by how much the student differs from the others."""
    for it in report["differences"]:
        interval = "no interval" if it["interval"] is None else f"{it['interval'][0]:+.1f} to {it['interval'][1]:+.1f}"
        say(
            f"{names['suites'][it['folder']]}: {CALLED[it['figure']]} of the student less that of the {it['against']}: "
            + ("not measured" if it["points"] is None else f"{it['points']:+.1f} points ({interval}): {it['verdict']}")
        )


def _cells(figures: Mapping[str, Any]) -> list[str]:
    return [
        f"{figures['images']:,}",
        _number(figures["top1"], 100, 1),
        _interval(figures["top1_interval"]),
        _number(figures["top5"], 100, 1),
        _number(figures["calibration_error"], 100, 1),
        _number(figures["nll"], 1, 3),
    ]


def _interval(shares: Sequence[float] | None, places: int = 1) -> str:
    return "-" if shares is None else f"{100 * shares[0]:.{places}f} to {100 * shares[1]:.{places}f}"


def _number(value: float | None, scale: float, places: int) -> str:
    return "-" if value is None else f"{scale * value:.{places}f}"


def _mistakes(row: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    found = row["figures"]["confused"][:MISTAKES]
    if found:
        said = ", ".join(f"{_called(true, names)} as {_called(label, names)} {count:,}" for true, label, count in found)
        say(f"{_name(row, names)}, {row['network']}: most often takes {said}")


def _name(row: Mapping[str, Any], names: Mapping[str, Any]) -> str:
    return str(names["suites"][row["folder"]])


def _called(label: int, names: Mapping[str, Any]) -> str:
    return str(names["classes"][label]) if names["classes"] else str(label)
