"""``ray-ns gc``: find what nothing in a run names, and remove it with the right to write to the run."""

from dataclasses import replace
from itertools import islice

from ray_ns.artifacts.judged import JUDGED
from ray_ns.artifacts.labels import LABELS
from ray_ns.artifacts.report import REPORT
from ray_ns.artifacts.scores import METRICS, PREDICTIONS
from ray_ns.artifacts.selection import SELECTION
from ray_ns.corpora import known
from ray_ns.corpora.pack import IMAGES
from ray_ns.engine.ingest.tasks import DUPLICATES, HASHES, LEFT_OUT
from ray_ns.engine.stages.counts import COUNTS
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.observe import Mode, Reporter
from ray_ns.store import gc
from ray_ns.store.fork import open_run
from ray_ns.store.lease import Lease
from ray_ns.store.objects import TEMPORARY

# What the objects of stages are called, so that what somebody else has put beside them is told from them.
NAMES = {
    *(LABELS, SELECTION, COUNTS, METRICS, REPORT, WEIGHTS, CONFIG, *PREDICTIONS.values(), *known.IN),
    *(HASHES, DUPLICATES, LEFT_OUT, IMAGES, JUDGED),
}
TOLD = 1000  # between two lines of progress


def find(url: str) -> gc.Found:
    """What nothing names in the run, prediction or packed folder at ``url``. Raises what ``gc.survey`` does."""
    return gc.survey(open_run(url), NAMES)


def remove(url: str, mode: Mode) -> gc.Found:
    """Remove what nothing names and is older than a day; what was found when no other driver could write.

    Raises ``ResumableError`` where another driver is at work.
    """
    store, reporter = open_run(url), Reporter(mode)
    found = gc.survey(store, NAMES)
    if not found.old:
        return found
    lease = Lease(store)
    lease.beat_with(reporter.snapshot)
    try:
        lease.check()
        swept = [it for it in found.old if it.folder == TEMPORARY]  # by whoever takes the lease
        found = gc.survey(store, NAMES)
        reporter.begin("gc", len(found.old), "files")
        done, gone = 0, gc.remove(store, found.old, lease.check)
        while some := sum(1 for _ in islice(gone, TOLD)):
            done += some
            reporter.progress(done)
        reporter.end(f"{done + len(swept):,} files removed")
        return replace(found, old=(*swept, *found.old))
    finally:
        lease.release()
