"""``RUN/best/``: the best network at a place whose name never changes, with its class names and its model card.

It is made of what the newest report names and is no record: it may be lost, and is made again when the run is opened.
Nobody finds a mix of two networks in it. It is taken down before a report is committed, ``config.json`` (without which
nothing loads it) first of all; then the files are written, the weights first, the card last.
"""

from collections.abc import Callable

from ray_ns.artifacts.report import Report, network_in
from ray_ns.export.lineage import card_of
from ray_ns.export.model_card import card
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.printed import plain
from ray_ns.seals import sha256
from ray_ns.store import layout
from ray_ns.store.objects import ObjectStore

LABELS = "labels.txt"
CARD = "README.md"
OTHER_FORMS = ("model.onnx", "model.pt2")  # of the same network, from ``ray-ns export``


def take_down(store: ObjectStore, fence: Callable[[], None]) -> None:
    """Remove what tells a whole ``best/``, before another report is committed, and other forms of its network."""
    for name in (CONFIG, CARD, *OTHER_FORMS):
        if store.get(layout.BEST + name) is not None:
            fence()
            store.delete(layout.BEST + name)


def is_whole(store: ObjectStore, report: Report) -> bool:
    """Whether ``best/`` is of that report. The card may have been edited, but names the report still."""
    if mark(report).encode() not in (store.get(layout.BEST + CARD) or b""):
        return False
    files = network_in(store, report).files
    return store.get(layout.BEST + LABELS) == _labels(store) and all(
        sha256(store.get(layout.BEST + name) or b"") == files[name].sha256 for name in (CONFIG, WEIGHTS)
    )


def put(store: ObjectStore, report: Report, fence: Callable[[], None]) -> None:
    """Write ``best/`` anew. Raises what the store raises; then no whole one is there."""
    network = network_in(store, report)
    text = card(card_of(store, report, network)) + f"\n{mark(report)}\n"
    take_down(store, fence)
    for name, content in (
        (WEIGHTS, network.files[WEIGHTS].read(store)),
        (LABELS, _labels(store)),
        (CONFIG, network.files[CONFIG].read(store)),
        (CARD, text.encode()),
    ):
        fence()
        store.put(layout.BEST + name, content)


def mark(report: Report) -> str:
    """The card's last line, which no reader shows: of which report it is."""
    return f"<!-- Written by ray-ns for the report {report.digest}; another report replaces this folder. -->"


def _labels(store: ObjectStore) -> bytes:
    """A class a line, in the order of their numbers; a name with a line end is written with an escape."""
    classes = layout.classes(store)
    return "".join(f"{plain(name)}\n" for name in classes.names or range(classes.count)).encode()
