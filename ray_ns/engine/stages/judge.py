"""Judge a network on a suite: every image of a corpus in every view, by the very way that labels a pool."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_ns import __version__
from ray_ns.artifacts.judged import JUDGED, JudgedOn
from ray_ns.artifacts.member import Member
from ray_ns.artifacts.network import Network
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.unreadable import refuse_above
from ray_ns.engine.predict import predict
from ray_ns.engine.run import Run
from ray_ns.engine.stages.label import label_shards
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.engine.workers.slices import CONTENT, Job
from ray_ns.evaluate.figures import REAL_COLUMN, Judged, of_table, stacked
from ray_ns.evaluate.kinds import KINDS
from ray_ns.evaluate.real import Labels, of_files
from ray_ns.evaluate.suites import Suite
from ray_ns.export.labels import names_of
from ray_ns.images import decode
from ray_ns.labels import files
from ray_ns.models.voting import Voting
from ray_ns.seals import digest
from ray_ns.store.commit import Commit, Output

_LISTS = pa.list_(pa.field("element", pa.int16(), nullable=False))
NAMES = ("path", "member", "row")  # of an image, below the root of its corpus


@dataclass(frozen=True)
class Judge(Stage[JudgedOn]):
    """The committed figures of ``network`` on ``suite``, and what they are made of: one part per view and shard.

    ``corpus``: the suite's, by its name in the evaluation. ``real``: the reassessed labels that a suite names.
    ``of_views``: the corpus of each view, where each has its own; the first is ``corpus``.
    """

    network: Network
    suite: Suite
    corpus: str
    real: Labels | None = None
    of_views: tuple[str, ...] = ()

    name = "judge"

    @property
    def folder(self) -> str:
        """The stage's folder in a turn: its name and what the suite is."""
        return folder_of(self.suite, self.corpus, self.real)

    def inputs(self, run: Run) -> dict[str, Any]:
        return {
            **_identity(self.suite, self.corpus, self.real),
            "network": self.network.digest,
            "shards": digest(
                [vars(shard) for name in self.of_views or (self.corpus,) for shard in run.corpora[name].shards]
            ),
            "label": run.settings.of(run.config.label),
            "data": run.settings.of(run.config.data),
            "decode": decode.VERSION,
        }

    def work(self, run: Run, output: Output) -> Done:
        jobs, done = self._jobs(run), output.done()
        left = {job: part for part, job in enumerate(jobs) if part not in done}
        run.reporter.begin(output.prefix, len(jobs), "parts", len(done))
        lineage = {"network": self.network.digest, "decode": decode.VERSION, "ray_ns": __version__}
        for job, table in predict(run, [Member(self.network, Voting.asked(run.config.label))], list(left)):
            about = run.about(job.corpus)
            assert about is not None, "an evaluation is of the newest format"
            stored = files.to_parquet(self._named(run, job, table.drop_columns(CONTENT)), about, lineage)
            facts = {"view": job.view, "rows": table.num_rows, "unreadable": _reasons(table)}
            done[left[job]] = output.publish(left[job], {JUDGED: stored}, facts)
            run.reporter.progress(len(done))
        parts = [done[part] for part in range(len(jobs))]
        reasons: Counter[str] = Counter()
        images, times = sum(part.facts["rows"] for part in parts), len(self.suite.views)
        each = 1 if self.of_views else times  # how often a file is shown
        for part in parts[: len(parts) // each]:
            reasons.update(part.facts["unreadable"])
        refuse_above(
            run.config.data.max_quarantined, images // each, reasons, self.suite.source, "data.max_quarantined"
        )
        views = views_of(JudgedOn(Commit(output.prefix, "", "", tuple(parts), {})).tables(output.store))
        names = run.class_names or run.corpora[self.corpus].class_names()
        found = KINDS[self.suite.kind].figures(views, run.config.data.classes, names)
        found["size"] = self.network.fed(run.config.data).size
        told = f"{self.suite.name}: {_headline(self.suite, found)} on {images // times:,} images"
        return Done({"corpus": self.corpus, "figures": found}, parts, told)

    def artifact(self, run: Run, commit: Commit) -> JudgedOn:
        return JudgedOn(commit)

    def _jobs(self, run: Run) -> list[Job]:
        """A job per view and label shard, all shards of the first view first."""
        names = self.of_views or (self.corpus,) * len(self.suite.views)
        shards = {name: label_shards(run.corpora[name], run.config.label.shard_rows) for name in {*names}}
        views = zip(self.suite.views, names, strict=True)
        return [replace(job, corpus=name, view=view) for view, name in views for job in shards[name]]

    def _named(self, run: Run, job: Job, table: pa.Table) -> pa.Table:
        """The table with the names of its images, where there is one view of each file."""
        if len(self.suite.views) > 1 and not self.of_views:
            return table
        lie = names_of(run.corpora[job.corpus], table["image_id"].to_numpy())
        for at, name in enumerate(NAMES):
            table = table.add_column(1 + at, name, lie[name])
        if self.real is None:
            return table
        return table.append_column(REAL_COLUMN, pa.array(_of_real(table, self.real), _LISTS))


def folder_of(suite: Suite, corpus: str, real: Labels | None) -> str:
    """The folder in a turn of what a network is judged on, as ``Judge`` is told it."""
    return f"{Judge.name}-{digest(_identity(suite, corpus, real))[:12]}"


def _identity(suite: Suite, corpus: str, real: Labels | None) -> dict[str, Any]:
    found = {"corpus": corpus, "kind": suite.kind, "views": list(suite.views)}
    return found | ({} if real is None else {"real": digest(real)})


def check_named(corpus: Corpus, labels: Labels) -> None:
    """Raise ``InputError`` where an image has no name by which one of reassessed ``labels`` is its."""
    for shard in corpus.shards:
        reader = corpus.open(shard)
        _of_real(reader.origins(np.arange(sum(reader.group_rows))), labels)


def _of_real(names: pa.Table, labels: Labels) -> list[list[int]]:
    """Of images with such ``NAMES`` the classes in ``labels``."""
    return of_files(pc.coalesce(names["member"], names["path"]).to_pylist(), labels)


def views_of(tables: Iterable[tuple[str, pa.Table]]) -> dict[str, Judged]:
    """The rows of each view, from the tables of its parts in order."""
    found: dict[str, list[Judged]] = {}
    for view, table in tables:
        found.setdefault(view, []).append(of_table(table))
    return {view: stacked(parts) for view, parts in found.items()}


def _headline(suite: Suite, found: Mapping[str, Any]) -> str:
    name = KINDS[suite.kind].headline
    return f"{name} not measured" if found[name] is None else f"{name} {100 * found[name]:.1f} %"


def _reasons(table: pa.Table) -> dict[str, int]:
    return dict(Counter(table["quarantine"].drop_null().to_pylist()))
