"""Reduced Meta Pseudo Labels on digits whose stored labels are wrong on 4 of 10 classes, and confirmation bias.

scikit-learn's 1,797 digits of 8 x 8 pixels. A logistic regression that was taught four classes for one another, on
images of its own, labels a pool once; nothing else of it is kept. A small student learns from those labels as an
adjuster changes them, and the adjuster, a linear map of log-probabilities that begins as the identity, learns from the
student's feedback on 50 labelled images alone: by the exact gradient of soft labels, or by drawn labels and the
difference of two losses, which needs more steps. Beside it plain pseudo labels (Lee 2013): the same student first
learns the stored labels, then from the 50 images and from its own labels.

``python -m benchmarks.reduced_mpl [--update]``: the last line is JSON; exit code 1 where a claim does not hold.
``--update`` writes the table into docs/RESULTS.md and the picture of wrong labels over time into docs/design/. Settings
were looked for on seeds 10 to 12.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Generator, Tensor
from torch.func import functional_call, stack_module_state, vmap

from benchmarks.results import RESULTS, put
from ray_ns.keyed import permutation, seed
from ray_ns.methods import feedback
from ray_ns.methods.two_moons import Weights, begin, cross_entropy, descend, logits_of
from ray_ns.models.adjuster import Adjuster
from ray_ns.report.drawing import INK, PALE, Drawing

CLASSES, LABELLED, TAUGHT, TEST = 10, 5, 700, 500  # labelled: of each class
WRONG = {2: 5, 5: 7, 7: 9, 9: 2}  # what the teacher was taught for what; every class keeps a name of its own
STEPS, BATCH, EVERY, HIDDEN = 1200, 128, 20, 64
STUDENT_LR, ADJUSTER_LR, FACTOR, CLIP = 0.3, 0.1, 30, 1.0
DRAWN_STEPS, DRAWN_LR, DECAY = 4800, 0.06, 0.99  # drawn labels: of a step, the noise is about 8 times the signal
PICTURE = RESULTS.parent / "design/confirmation-bias.svg"


@dataclass(frozen=True)
class Digits:
    """Of S seeds: images (S, n, 64) and classes (S, n); stored: a wrong teacher's log-probabilities (S, n, 10)."""

    labelled: Tensor
    truth: Tensor
    pool: Tensor
    pool_truth: Tensor
    test: Tensor
    test_truth: Tensor
    stored: Tensor
    stored_labelled: Tensor


@dataclass(frozen=True)
class Ended:
    """Of S seeds: accuracy on test (S), and which share of the pool's labels was wrong every ``EVERY`` steps (T, S)."""

    test: Tensor
    wrong: Tensor


@cache
def dealt(number: int) -> list[np.ndarray]:
    """One seed's images, dealt into heaps, and the labels of a teacher that is wrong on purpose; as ``Digits`` is."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    found = load_digits()
    images, labels = found.data.astype(np.float32) / 16, found.target.astype(np.int64)
    order = permutation(len(labels), number)
    rank = np.empty(len(labels), np.int64)
    for label in range(CLASSES):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    few, rest = order[rank[order] < LABELLED], order[rank[order] >= LABELLED]
    own, test, pool = rest[:TAUGHT], rest[TAUGHT : TAUGHT + TEST], rest[TAUGHT + TEST :]
    taught = np.array([WRONG.get(label, label) for label in labels.tolist()])
    teacher = LogisticRegression(C=0.1, max_iter=1000).fit(images[own], taught[own])
    heaps = [it for rows in (few, pool, test) for it in (images[rows], labels[rows])]
    return [*heaps, *(teacher.predict_log_proba(images[rows]).astype(np.float32) for rows in (pool, few))]


def digits(seeds: Sequence[int]) -> Digits:
    """The heaps of several seeds; a seed may come more than once."""
    heaps = zip(*(dealt(it) for it in seeds), strict=True)
    return Digits(*(torch.stack([torch.from_numpy(it) for it in heap]) for heap in heaps))


def generators_of(seeds: Sequence[int]) -> list[Generator]:
    """One for each."""
    return [Generator().manual_seed(seed(it) >> 1) for it in seeds]


def adjusters(count: int) -> tuple[dict[str, Tensor], Callable[[Mapping[str, Tensor], Tensor], Tensor]]:
    """The weights of so many adjusters, and what they make of log-probabilities (count, n, 10)."""
    one = Adjuster(CLASSES)
    weights, _ = stack_module_state([Adjuster(CLASSES) for _ in range(count)])  # type: ignore[arg-type]
    return weights, vmap(lambda its_own, known: functional_call(one, its_own, (known,)))


def some(data: Digits, generators: Sequence[Generator]) -> Tensor:
    """Every seed's next images of its pool, int64 (S, BATCH)."""
    return torch.stack([torch.randint(data.pool.shape[1], (BATCH,), generator=it) for it in generators])


def at(rows: Tensor, chosen: Tensor) -> Tensor:
    """The rows (S, n, d) of ``rows`` (S, N, d) at the indices (S, n)."""
    return rows.gather(1, chosen.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))


def share(found: Tensor, truth: Tensor) -> Tensor:
    """Which share (S) of labels (S, n) is wrong."""
    return (found != truth).double().mean(-1)


@dataclass(frozen=True)
class Variant:
    """What the adjuster's loss is made of. ``feedback``: the factor of the student's, by the exact soft gradient.

    ``labelled``: that of the labelled images' cross-entropy, by what the teacher stored of them: a control, since with
    it the adjuster needs no student.
    """

    feedback: float
    labelled: float = 0


def reduced(variants: Sequence[Variant], seeds: Sequence[int]) -> list[Ended]:
    """Train a student and an adjuster of the stored labels for every variant and seed, all rows at once."""
    rows = [number for _ in variants for number in seeds]
    data, generators = digits(rows), generators_of(rows)
    factor, labelled = (
        torch.tensor([float(getattr(it, name)) for it in variants]).repeat_interleave(len(seeds))
        for name in ("feedback", "labelled")
    )
    student = begin([data.pool.shape[-1], HIDDEN, CLASSES], generators)
    adjuster, adjusted = adjusters(len(rows))
    wrong = []
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                wrong.append(share(adjusted(adjuster, data.stored).argmax(-1), data.pool_truth))
        chosen = some(data, generators)
        own = adjusted(adjuster, at(data.stored, chosen))
        loss = factor * feedback_loss(student, own, data, at(data.pool, chosen))
        loss = loss + labelled * cross_entropy(adjusted(adjuster, data.stored_labelled), data.truth)
        weights = list(adjuster.values())
        descend(weights, clipped(torch.autograd.grad(loss.sum(), weights)), ADJUSTER_LR)
    test = 1 - share(logits_of(student, data.test).argmax(-1), data.test_truth)
    count = len(seeds)
    return [
        Ended(test[at_ : at_ + count], torch.stack(wrong)[:, at_ : at_ + count]) for at_ in range(0, len(rows), count)
    ]


def feedback_loss(student: Weights, own: Tensor, data: Digits, images: Tensor) -> Tensor:
    """The student's step on the adjusted labels, whose log-probabilities are ``own``; the adjuster's loss (rows)."""
    names = [str(it) for it in range(len(student))]
    before = {name: it.detach().clone() for name, it in zip(names, student, strict=True)}
    each = -(own.detach().exp() * logits_of(student, images).log_softmax(-1)).sum(-1)
    descend(student, torch.autograd.grad(each.mean(-1).sum(), student), STUDENT_LR)
    after = cross_entropy(logits_of(student, data.labelled), data.truth)
    wanted = dict(zip(names, torch.autograd.grad(after.sum(), student), strict=True))
    by_label = feedback.soft_gradient(
        lambda it: logits_of([it[name] for name in names], images).log_softmax(-1), before, wanted, STUDENT_LR, BATCH
    )
    return (own.exp() * by_label).sum((-1, -2))


def drawn(seeds: Sequence[int]) -> Ended:
    """As ``reduced`` with feedback, by labels that are drawn and by the difference of the student's labelled losses."""
    data, generators = digits(seeds), generators_of(seeds)
    student = begin([data.pool.shape[-1], HIDDEN, CLASSES], generators)
    adjuster, adjusted = adjusters(len(seeds))
    wrong, average = [], torch.zeros(len(seeds))
    for step in range(DRAWN_STEPS + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                wrong.append(share(adjusted(adjuster, data.stored).argmax(-1), data.pool_truth))
        chosen = some(data, generators)
        own = adjusted(adjuster, at(data.stored, chosen))
        labels = feedback.sampled(
            own.detach().exp(), torch.stack([torch.rand(BATCH, generator=it) for it in generators])
        )
        with torch.no_grad():
            before = cross_entropy(logits_of(student, data.labelled), data.truth)
        loss = cross_entropy(logits_of(student, at(data.pool, chosen)), labels)
        descend(student, torch.autograd.grad(loss.sum(), student), STUDENT_LR)
        with torch.no_grad():
            h = (before - cross_entropy(logits_of(student, data.labelled), data.truth)) / STUDENT_LR
        coefficient = (FACTOR * (h - average)).unsqueeze(-1)
        average = feedback.advance(average, h, DECAY)
        weights = list(adjuster.values())
        term = feedback.hard_term(labels, own, coefficient).mean(-1)
        descend(weights, clipped(torch.autograd.grad(term.sum(), weights)), DRAWN_LR)
    return Ended(1 - share(logits_of(student, data.test).argmax(-1), data.test_truth), torch.stack(wrong))


def clipped(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Every seed's gradient, at most ``CLIP`` long."""
    length = torch.cat([it.flatten(1) for it in gradients], 1).norm(dim=1)
    part = (CLIP / length).clamp_max(1)
    return [it * part.view(-1, *(1,) * (it.dim() - 1)) for it in gradients]


def plain(seeds: Sequence[int]) -> Ended:
    """The student learns the stored labels for as many steps, then the labelled images and its own labels."""
    data, generators = digits(seeds), generators_of(seeds)
    student, wrong = begin([data.pool.shape[-1], HIDDEN, CLASSES], generators), []
    for step in range(-STEPS, STEPS + 1):
        chosen = some(data, generators)
        if step >= 0 and step % EVERY == 0:
            with torch.no_grad():
                wrong.append(share(logits_of(student, data.pool).argmax(-1), data.pool_truth))
        logits = logits_of(student, at(data.pool, chosen))
        if step < 0:
            loss = cross_entropy(logits, at(data.stored, chosen).argmax(-1))
        else:
            loss = cross_entropy(logits, logits.argmax(-1)) + cross_entropy(
                logits_of(student, data.labelled), data.truth
            )
        descend(student, torch.autograd.grad(loss.sum(), student), STUDENT_LR)
    return Ended(1 - share(logits_of(student, data.test).argmax(-1), data.test_truth), torch.stack(wrong))


WITH, WITHOUT, FLIPPED, PLAIN = "with feedback", "feedback 0", "feedback flipped", "plain pseudo labels"
BY_LABELS = "feedback 0, labelled loss of the adjuster"
DRAWN = f"with feedback, drawn labels, {DRAWN_STEPS:,} steps"
VARIANTS = {
    WITH: Variant(FACTOR),
    WITHOUT: Variant(0),
    FLIPPED: Variant(-FACTOR),
    BY_LABELS: Variant(0, labelled=1),
}
CURVES = {PLAIN: "#c8691e", WITHOUT: "#888888", WITH: "#2f6fb0"}


def measured(seeds: Sequence[int]) -> dict[str, Ended]:
    """What every variant came to on all seeds."""
    soft = dict(zip(VARIANTS, reduced(list(VARIANTS.values()), seeds), strict=True))
    return soft | {DRAWN: drawn(seeds), PLAIN: plain(seeds)}


def points(shares: Tensor) -> str:
    """Shares as percentages."""
    return " ".join(f"{100 * it:.1f}" for it in shares.tolist())


def held(found: Mapping[str, Ended]) -> dict[str, bool]:
    """Which of the claims hold, each of a mean over the seeds."""
    mean = {name: it.test.mean().item() for name, it in found.items()}
    return {
        f"{WITH}: 90 or more": mean[WITH] >= 0.9,
        f"{WITHOUT}: 65 or less": mean[WITHOUT] <= 0.65,
        f"{FLIPPED}: 20 or less": mean[FLIPPED] <= 0.2,
        "fewer labels are wrong at the end than by plain pseudo labels, on every seed": bool(
            (found[WITH].wrong[-1] < found[PLAIN].wrong[-1]).all()
        ),
    }


def table(found: Mapping[str, Ended], seeds: Sequence[int]) -> list[str]:
    """A row per variant, in Markdown."""
    lines = [
        f"| seeds {', '.join(map(str, seeds))} | student on 500 test digits, % | mean ± deviation "
        "| wrong labels of the pool, %: at first, halfway, in the end |",
        "|---|---|---|---|",
    ]
    for name, it in found.items():
        over = " / ".join(f"{100 * it.wrong[step].mean():.1f}" for step in (0, len(it.wrong) // 2, -1))
        lines.append(
            f"| {name} | {points(it.test)} | {100 * it.test.mean():.1f} ± {100 * it.test.std():.1f} | {over} |"
        )
    return lines


def picture(found: Mapping[str, Ended]) -> Drawing:
    """The share of wrong labels over the steps: every seed thin, the mean of them thick."""
    wide, tall, left, top, foot = 520, 260, 50, 34, 50
    drawing = Drawing(left + wide + 20, top + tall + foot)
    drawing.text((left, 18), "Wrong labels of the pool, %: digits whose first teacher is wrong on 4 of 10 classes", 12)
    for share_ in range(0, 101, 20):
        y = top + tall * (1 - share_ / 100)
        drawing.line([(left, y), (left + wide, y)], 0.5, "#dddddd")
        drawing.text((left - 8, y + 4), str(share_), 11, PALE, to_left=True)
    for step in range(0, STEPS + 1, STEPS // 4):
        drawing.text((left + wide * step / STEPS - 8, top + tall + 16), str(step), 11, PALE)
    drawing.text((left + wide, top + tall + 34), "steps", 11, PALE, to_left=True)
    for at_, (name, colour) in enumerate(CURVES.items()):
        wrong = found[name].wrong
        for curve, width in [(it, 0.5) for it in wrong.T] + [(wrong.mean(1), 2.5)]:
            places = [
                (left + wide * step * EVERY / STEPS, top + tall * (1 - it)) for step, it in enumerate(curve.tolist())
            ]
            drawing.line(places, width, colour)
        drawing.line([(left + 300, top + 14 + 16 * at_), (left + 324, top + 14 + 16 * at_)], 2.5, colour)
        drawing.text((left + 330, top + 18 + 16 * at_), name, 11, INK)
    return drawing


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--update", action="store_true", help="write the table and the picture into docs/")
    words = parser.parse_args()
    torch.set_num_threads(1)
    found = measured(words.seeds)
    lines, claims = table(found, words.seeds), held(found)
    print("\n".join(lines))
    if words.update:
        put("reduced", lines)
        PICTURE.write_text(picture(found).svg())
    ended = {
        name: {"test": it.test.tolist(), "wrong": [round(rate, 4) for rate in it.wrong.mean(1).tolist()]}
        for name, it in found.items()
    }
    print(json.dumps({"seeds": words.seeds, "variants": ended, "held": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
