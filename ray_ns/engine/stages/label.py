"""Label the pool and commit its labels, label shard by label shard."""

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns import __version__
from ray_ns.artifacts.calibration import Calibration
from ray_ns.artifacts.digests import Digests
from ray_ns.artifacts.labels import OTHERS, TEMPERATURE, VIEWS, Labels, label_objects
from ray_ns.artifacts.member import Member
from ray_ns.artifacts.network import Network
from ray_ns.artifacts.selection import SELECTION, Selection
from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus, split_ids
from ray_ns.corpora.known import check_of, in_words, parted
from ray_ns.corpora.unreadable import refuse_above
from ray_ns.engine.bench import Bench, Finding, memory_in_words
from ray_ns.engine.predict import predict
from ray_ns.engine.run import Run
from ray_ns.engine.stages.counts import Counts
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.engine.workers.slices import CONTENT, Job, Piece
from ray_ns.engine.workers.teacher import noise_of
from ray_ns.errors import InputError
from ray_ns.export.network import given
from ray_ns.images import decode
from ray_ns.labels import counting, schema
from ray_ns.models.voting import ALONE, Voting
from ray_ns.seals import digest
from ray_ns.store import layout
from ray_ns.store.commit import Commit, Output, Part, planned_inputs
from ray_ns.store.fork import chain


@dataclass(frozen=True)
class Label(Stage[Labels]):
    """The committed labels of the pool by ``teacher``: one part per label shard.

    ``known``: images that get no label but the reason where they are known from. ``only``: a selection from labels of
    the same pool, to whose images the labelling is restricted. Where the pool has grown, the parts that the same
    teacher made of the pool as it was are taken as they are. ``counted``: whether a selection may follow, which wants
    the counts. ``calibration``: the teacher's, where its temperature was found and is no setting.
    ``others``: the networks with whose probabilities the teacher's are averaged.
    """

    teacher: Network
    known: Digests | None = None
    only: Selection | None = None
    counted: bool = True
    calibration: Calibration | None = None
    others: tuple[Member, ...] = ()

    name = "label"
    within = (Counts.name.partition("/")[2],)

    def inputs(self, run: Run) -> dict[str, Any]:
        config = run.config
        return {
            "teacher": self.teacher.digest,
            "pool": digest([vars(shard) for shard in run.corpora["pool"].shards]),
            "label": run.settings.of(config.label),
            "data": run.settings.of(config.data),
            "decode": decode.VERSION,
            "only": self.only.digest if self.only else None,
            "known": self.known.digest if self.known else None,
            **({"calibration": self.calibration.digest} if self.calibration else {}),
            **({"others": self._told_of_others()} if self.others else {}),
            **self._noised(run),
        }

    def _noised(self, run: Run) -> dict[str, Any]:
        """How the teacher is noised, where it is."""
        if not run.config.label.noised:
            return {}
        by = noise_of(run.config)
        return {"noised": {"noise": run.settings.of(by.noise), "rates": dict(by.rates), "key": str(by.key)}}

    def work(self, run: Run, output: Output) -> Done:
        config, prefix = run.config, output.prefix
        jobs = self._jobs(run)
        done = output.done()
        for part, made in self._made_before(run, prefix).items():
            done[part] = done.get(part) or output.adopt(part, made)
        resumed = bool(done)
        left = {job: part for part, job in enumerate(jobs) if part not in done}
        run.reporter.begin(prefix, len(jobs), "label shards", len(done))
        images = 0
        tally = counting.tally(config.data.classes)
        voting = Voting.asked(config.label, self.calibration.temperature if self.calibration else None)
        lineage = {"teacher": self.teacher.digest, "decode": decode.VERSION, "ray_ns": __version__}
        lineage |= {name: str(value) for name, value in _told(voting).items()}
        lineage |= {"others": json.dumps(self._told_of_others())} if self.others else {}
        about = run.about("pool")
        for job, table in predict(run, [Member(self.teacher, voting), *self.others], list(left), self.known):
            counting.add(tally, table, f"{prefix}, label shard {left[job]}")
            objects, checksum = label_objects(table.drop_columns(CONTENT), lineage, about)
            facts = _facts(job, table, config.data.classes) | checksum
            done[left[job]] = output.publish(left[job], objects, facts)
            images += table.num_rows
            run.reporter.progress(len(done), images=images)
        summary = _summary([part.facts for part in done.values()], config.data.classes) | _told(voting)
        summary |= {OTHERS: self._told_of_others()} if self.others else {}
        left_out = check_pool(config, summary)
        told = (
            f"{summary['rows'] - left_out:,} images labelled, {sum(summary['quarantine'].values()):,} of them in "
            f"quarantine{f'; of the pool {in_words(found)}' if (found := summary['left_out']) else ''}"
        )

        def count(labels: Commit) -> None:
            counted = Counts(Labels(labels), config.data.classes, tally.counts)
            run.ensure(counted.place, counted)

        # A resumed labelling has not counted every shard; the first selection then counts them all.
        then = count if self.counted and not resumed else None
        return Done(summary, [_committed(done[part]) for part in range(len(jobs))], told, then)

    def artifact(self, run: Run, commit: Commit) -> Labels:
        return Labels(commit)

    @classmethod
    def in_round(cls, config: Config) -> bool:
        return config.uses_pool

    @classmethod
    def probe(cls, bench: Bench, turn: int) -> Iterator[Finding]:
        """A slice of the pool, decoded and labelled by the teacher."""
        if turn == 0:
            return
        label, classes = bench.config.label, bench.config.data.classes
        first = bench.first("pool", label.slice_rows)
        began = time.monotonic()
        probabilities, reasons = bench.labelled(first.encoded, label.views)
        for place in label.others:  # for the rate: what they say is averaged where there is a run
            Bench(bench.config, bench.corpora, given(place)).labelled(first.encoded, label.views)
        top = min(label.top, classes)
        bench.labels = schema.label_table(first.ids, probabilities, reasons, label.keep, top)
        seconds = time.monotonic() - began
        figures = {
            "images": len(first.encoded),
            "img_s": round(len(first.encoded) / seconds, 1),
            "unreadable": sum(reason is not None for reason in reasons),
            **bench.memory(bench.device(bool(label.gpus_per_actor))),
        }
        line = (
            f"a slice of {len(first.encoded)} images, {figures['unreadable']} in quarantine, decoded and labelled at "
            f"{figures['img_s']:,.0f} images/s; memory {memory_in_words(figures)}"
        )
        yield Finding(cls.name, line, figures)

    def _told_of_others(self) -> list[dict[str, Any]]:
        """The other networks, as records name them."""
        return [{"weights": it.network.weights_sha256, TEMPERATURE: it.voting.temperature} for it in self.others]

    def _jobs(self, run: Run) -> list[Job]:
        """A job per label shard: those of each generation of the pool, so that a grown pool keeps its first ones."""
        pool = run.corpora["pool"]
        bounds = itertools.pairwise([0, *run.pools])
        generations = [replace(pool, shards=pool.shards[begin:end]) for begin, end in bounds]
        jobs = [job for part in generations for job in label_shards(part, run.config.label.shard_rows)]
        if self.only is None:
            return jobs
        only = [tuple(part.objects[SELECTION] for part in parts) for parts in self.only.of_shards]
        return [replace(job, only=stored) for job, stored in zip(jobs, only, strict=True)]

    def _made_before(self, run: Run, prefix: str) -> dict[int, Part]:
        """The same stage's finished parts for the pool as it was, where all other inputs are the same.

        A run that was forked has taken a commit without the records of its parts: those are where they were made.
        """
        if len(run.pools) == 1:
            return {}
        before, inputs = layout.place(len(run.pools) - 1) + prefix.removeprefix(run.place), self.inputs(run)
        for store in chain(run.store):
            planned = planned_inputs(store, before)
            if planned is not None and {**planned, "pool": inputs["pool"]} == inputs:
                made = Output(store, before, run.lease.check).done()
                if made:
                    return made
        return {}


def label_shards(pool: Corpus, rows: int) -> list[Job]:
    """Which images each label shard holds: runs of small shards, or runs of row groups of a large one.

    A pure function of the shards' sizes and of the first one's row count, which is all that is read; so a shard's
    rows are estimated, and a label shard holds about ``rows`` images.
    """
    first = pool.shards[0]
    per_byte = sum(pool.open(first).group_rows) / max(first.size, 1)
    jobs: list[Job] = []
    run: list[Piece] = []
    held = 0.0
    for shard in pool.shards:
        expected = shard.size * per_byte
        parts = max(1, round(expected / rows))
        if run and (parts > 1 or held + expected / 2 > rows):
            jobs.append(Job("pool", tuple(run)))
            run, held = [], 0.0
        if parts > 1:
            jobs += [Job("pool", (Piece(shard, part, parts),)) for part in range(parts)]
        else:
            run.append(Piece(shard))
            held += expected
    return jobs + ([Job("pool", tuple(run))] if run else [])


def check_pool(config: Config, summary: Mapping[str, Any]) -> int:
    """How many images of the pool are known already. ``InputError`` where all are, or too many of the rest unreadable.

    ``summary``: of the labels, or of some that stand for all: ``rows``, ``quarantine`` and ``left_out`` by reason.
    """
    left_out = sum(summary["left_out"].values())
    if left_out and left_out == summary["rows"]:
        raise InputError(
            f"data.pool: each of its {left_out:,} images is a labelled, validation or test image. Give others."
        )
    check_quarantine(config, "pool", summary["rows"] - left_out, summary["quarantine"])
    return left_out


def check_quarantine(config: Config, corpus: str, rows: int, reasons: dict[str, int]) -> None:
    """Raise ``InputError`` where more of a corpus is unreadable than ``data.max_quarantined`` allows, or all of it."""
    refuse_above(config.data.max_quarantined, rows, reasons, f"data.{corpus}", "data.max_quarantined")


def _facts(job: Job, table: pa.Table, classes: int) -> dict[str, Any]:
    labels = table["label"].drop_null().to_numpy()
    reasons = table["quarantine"].drop_null().value_counts()
    return {
        "shards": [[it.shard.path, it.part, it.parts] for it in job.pieces],
        **({} if job.only else {CONTENT: _content(job, table)}),
        "rows": table.num_rows,
        "per_class": np.bincount(labels, minlength=classes).tolist(),
        "quarantine": {str(it["values"]): it["counts"] for it in reasons.to_pylist()},
    }


def _content(job: Job, table: pa.Table) -> list[str]:
    """A checksum of each piece: of those of its images in order of rows (``touched`` compares them)."""
    ordinals, _ = split_ids(table["image_id"].to_numpy())
    found = []
    for piece in job.pieces:
        begin, end = ordinals.searchsorted([piece.shard.ordinal, piece.shard.ordinal + 1])
        found.append(check_of(b"".join(table[CONTENT][begin:end].to_pylist())).hex())
    return found


def _told(voting: Voting) -> dict[str, Any]:
    """What is recorded of how the labels came of the teacher; nothing where it labels as it is."""
    return {
        name: getattr(voting, name) for name in (TEMPERATURE, VIEWS) if getattr(voting, name) != getattr(ALONE, name)
    }


def _committed(part: Part) -> Part:
    """A part without its counts per class: the commit has their sum, and with many classes they are most of it."""
    return replace(part, facts={name: value for name, value in part.facts.items() if name != "per_class"})


def _summary(facts: list[Any], classes: int) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    for part in facts:
        for reason, count in part["quarantine"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    unreadable, left_out = parted(reasons)
    per_class = sum((np.array(part["per_class"]) for part in facts), np.zeros(classes, np.int64))
    return {
        "rows": sum(part["rows"] for part in facts),
        "per_class": per_class.tolist(),
        "quarantine": unreadable,
        "left_out": left_out,
    }
