"""How many more images to sort until a difference shows: where they are held out of labelled images, many more."""

import math
from collections.abc import Sequence
from dataclasses import replace

from ray_ns.corpora.corpus import count_per_class
from ray_ns.corpora.hold_out import MOST, labelled_for
from ray_ns.engine.overlap import EVALUATED
from ray_ns.engine.run import Run
from ray_ns.evaluate import verdict
from ray_ns.export.verdicts import Judged


def foretold(run: Run, name: str, images: int) -> str:
    """How small a gain so many ``images`` of a corpus will show, and what it takes to see a small one."""
    if not images:
        return "no images: no figure"
    lacking = images < verdict.ENOUGH
    return verdict.foretold_in_words(images, more(run, name, images, verdict.ENOUGH) if lacking else None)


def more(run: Run, name: str, images: int, wanted: int) -> str:
    """What to do so that the ``images`` of a corpus, ``validation`` or ``test``, become ``wanted``."""
    data = run.config.data
    if getattr(data, name) is not None:
        return f"sort {wanted - images:,} more {name} images"
    drawn = ("labelled", *(it for it in EVALUATED if getattr(data, it) is None))
    labels = (part for it in drawn for part in run.corpora[it].labels(data.classes))
    counts = count_per_class(labels, data.classes)
    needed = labelled_for(data.held_out, counts, wanted)
    if needed is not None and needed > counts.sum():
        return (
            f"sort about {needed - counts.sum():,} more labelled images ({needed:,} in all hold {wanted:,} out for it)"
        )
    if data.held_out == "auto":
        return f"give {wanted:,} {name} images of your own (data.held_out: auto holds out {MOST:,} at most)"
    return f"give {wanted:,} {name} images of your own, or data.held_out: {2 * math.ceil(wanted / data.classes)}"


def advised(run: Run, judged: Sequence[Judged]) -> list[Judged]:
    """The comparisons, with what to do where nobody can tell."""
    found = []
    for it in judged:
        wanted, images = verdict.enough(it.verdict), it.verdict.images
        lacking = it.verdict.word == "cannot tell" and images < wanted
        found.append(replace(it, more=more(run, it.corpus, images, wanted)) if lacking else it)
    return found
