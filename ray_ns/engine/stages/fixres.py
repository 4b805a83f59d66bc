"""FixRes: correct a trained network for larger test images, and say what that did (Touvron et al. 2019)."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns.artifacts import fixed
from ray_ns.artifacts.fixed import Fixed
from ray_ns.artifacts.network import At, Network, fed_facts
from ray_ns.config import Config, Fixing, Student, Training
from ray_ns.config.data import CropShare
from ray_ns.engine.bench import Bench, Finding
from ray_ns.engine.predict import predict
from ray_ns.engine.run import Run
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.engine.stages.train import two_steps
from ray_ns.engine.stages.training import NetworkStage, Plan
from ray_ns.engine.workers import mapping
from ray_ns.engine.workers.slices import CONTENT, Job, Piece
from ray_ns.errors import IntegrityError
from ray_ns.evaluate.fixed import BEFORE, CONTROL, SEEN, TUNED, UNTUNED, in_words, outcome, views
from ray_ns.images import decode
from ray_ns.keyed import seed
from ray_ns.labels import files, schema
from ray_ns.seals import digest
from ray_ns.store import layout
from ray_ns.store.commit import Commit, Output, find_commit

COLUMNS = ["image_id", "truth", "label", "confidence"]


@dataclass(frozen=True)
class Corrected(NetworkStage):
    """The committed network that ``recipe.fixres`` makes of ``network`` at the size that the subclass names."""

    recipe: Training
    number: int
    network: Network

    @abstractmethod
    def size(self, run: Run) -> int:
        """Side of the images by which it is corrected, pixels."""

    @abstractmethod
    def crop_share(self) -> CropShare | None:
        """Of these images; None: the data's."""

    @property
    def fixing(self) -> Fixing:
        """The recipe's correction."""
        found = self.recipe.fixing
        assert found is not None
        return found

    def plan(self, run: Run) -> Plan:
        size, key = self.size(run), seed(run.config.run.seed, self.number, 2)
        images = {"train_size": size, "test_size": size, "crop_share": self.crop_share()}
        recipe = run.settings.completed(self.fixing).model_copy(update=images)
        return Plan(run.config, recipe, recipe.batch, key, None, self.network)

    def inputs(self, run: Run) -> dict[str, Any]:
        return super().inputs(run) | {"from": self.recipe.fixed_from(run.config.data)}

    def work(self, run: Run, output: Output) -> Done:
        return super().work(run, output) if self.fixing.variant != "affine" else self._mapped(run, output)

    def _mapped(self, run: Run, output: Output) -> Done:
        """The variant ``affine``: nothing is trained, tasks look at images at both sizes."""
        from ray_ns.models import fixres
        from ray_ns.models.files import from_files, to_files
        from ray_ns.models.zoo import parameters

        own = self.network.fed(run.config.data)
        trained = own.read_as(size=self.recipe.fixed_from(run.config.data))
        tested = own.read_as(size=self.size(run), crop_share=self.crop_share())
        configs = run.config.reading(trained), run.config.reading(tested)
        images = self.fixing.steps * self.fixing.batch
        items = mapping.slices(run.corpora["labelled"], "labelled", images, run.config.label.slice_rows)
        run.reporter.begin(output.prefix, len(items), "slices")
        shared = run.store, dict(self.network.files), {"labelled": run.corpora["labelled"]}, configs
        found = {}
        for place, moments in run.fan_out(run).map(mapping.seen, items, *shared):
            found[place] = moments
            run.reporter.progress(len(found))
        # In the order of the images, so that the sums are the same whichever task ends first.
        train, test = (reduce(add, (found[place][at] for place in sorted(found))) for at in (0, 1))
        network = from_files({name: stored.read(run.store) for name, stored in self.network.files.items()})
        fixres.fold(network, train, test)
        fed = fed_facts(run.config.data, configs[1].data)
        facts = {"images": test.images, "parameters": parameters(network), **fed}
        output.publish(0, to_files(network, configs[1].data, run.class_names), facts)
        return Done(facts, 1, f"mapped by what {test.images:,} images give")


class Tuned(Corrected):
    """At the test size."""

    name = fixed.TUNED

    def size(self, run: Run) -> int:
        size = self.recipe.fixres.size
        assert size is not None
        return size

    def crop_share(self) -> CropShare | None:
        return self.fixing.crop_share


class Control(Corrected):
    """At the train size: what the same tuning does without other images."""

    name = fixed.CONTROL

    def size(self, run: Run) -> int:
        return self.recipe.fixed_from(run.config.data)

    def crop_share(self) -> CropShare | None:
        return self.recipe.crop_share


@dataclass(frozen=True)
class Fixres(Stage[Fixed]):
    """The committed comparison of ``network`` with what the recipe's correction makes of it, one part per look.

    The corrected network and its control lie in its folder. Which of the two goes on: ``evaluate.fixed``.
    """

    recipe: Training
    number: int
    network: Network

    name = "fixres"
    within = tuple(it.partition("/")[2] for it in (fixed.TUNED, fixed.CONTROL))

    @classmethod
    def in_round(cls, config: Config) -> bool:
        return config.students[0].fixing is not None

    def inputs(self, run: Run) -> dict[str, Any]:
        return {
            "tuned": digest(self._tuned.inputs(run)),
            "control": digest(self._control.inputs(run)),
            "corpora": digest([[vars(shard) for shard in run.corpora[name].shards] for name in ("validation", "test")]),
            "label": run.settings.of(run.config.label.of_one_network),
            "views": {name: list(view) for name, view in views(self.recipe.fixed_from(run.config.data)).items()},
        }

    def work(self, run: Run, output: Output) -> Done:
        turn = output.prefix.removesuffix(f"/{self.name}")
        tuned = run.ensure(f"{turn}/{Tuned.name}", self._tuned)
        looks = {
            BEFORE: At(self.network.commit, self.network.fed(run.config.data).size),
            UNTUNED: At(self.network.commit, self._tuned.size(run), self._tuned.crop_share()),
            TUNED: At(tuned.commit, self._tuned.size(run), self._tuned.crop_share()),
        }
        if self._tuned.fixing.variant != "affine":  # at the train size the map leaves all as it is
            control = run.ensure(f"{turn}/{Control.name}", self._control)
            looks[CONTROL] = At(control.commit, self._control.size(run))
        done = output.done()
        run.reporter.begin(output.prefix, len(looks), "looks", len(done))
        for part, (look, network) in enumerate(looks.items()):
            if part not in done:
                facts = {"look": look, "size": network.side}
                done[part] = output.publish(part, self._predictions(run, network), facts)
            run.reporter.progress(len(done))
        parts = [done[part] for part in range(len(looks))]
        right = {part.facts["look"]: _right(run, part.objects) for part in parts}
        sizes = {look: network.side for look, network in looks.items()}
        found = outcome(right, sizes, run.format >= layout.EXACT)
        told = in_words(found)
        for line in told[:-1]:
            run.reporter.note(f"{output.prefix}: {line}")
        if found["goes_on"] == TUNED:
            return Done(found, parts, told[-1])
        run.reporter.warn(f"{output.prefix}: {told[-1]}")
        return Done(found, parts)

    def artifact(self, run: Run, commit: Commit) -> Fixed:
        if commit.summary["goes_on"] != TUNED:
            return Fixed(commit, self.network)
        place = f"{commit.stage}/{self.within[0]}"
        tuned = find_commit(run.store, place)
        if tuned is None:
            raise IntegrityError(f"{run.store.url}: {place} has no commit, and {commit.stage} names it. Restore it.")
        return Fixed(commit, Network(tuned))

    @classmethod
    def probe(cls, bench: Bench, turn: int) -> Iterator[Finding]:
        """Turn 0: two steps of the teacher's correction. Turn 1: of each student's."""
        for place, recipe in bench.config.recipes().items():
            if recipe.fixing is None or isinstance(recipe, Student) != (turn > 0):
                continue
            _, found = two_steps(bench, place, recipe.fixing, None)
            yield replace(found, what=f"{cls.name} {place}", line=f"at {recipe.fixres.size} px: {found.line}")

    @property
    def _tuned(self) -> Tuned:
        return Tuned(self.recipe, self.number, self.network)

    @property
    def _control(self) -> Control:
        return Control(self.recipe, self.number, self.network)

    def _predictions(self, run: Run, network: Network) -> dict[str, bytes]:
        """What ``network`` says of each image in each view, a file per view."""
        named = views(self.recipe.fixed_from(run.config.data))
        jobs = {
            Job(corpus, tuple(map(Piece, run.corpora[corpus].shards)), view=view): name
            for name, (corpus, view) in named.items()
            if run.corpora[corpus].shards  # a run may hold out none
        }
        lineage = {"network": network.digest, "decode": decode.VERSION}
        found = {}
        for job, table in predict(run, network, list(jobs)):
            about = run.about(job.corpus)
            rows = table.drop_columns(CONTENT).select(COLUMNS)
            stored = files.to_parquet(rows, about, lineage) if about else schema.to_parquet(rows, lineage)
            found[_file(jobs[job])] = stored
        return found


def _file(name: str) -> str:
    return f"{name.replace('_', '-')}.parquet"


def _right(run: Run, objects: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Which images of each view are right, from the files of one look."""
    found = {}
    for name in SEEN:
        stored = objects.get(_file(name))
        if stored is None:
            found[name] = np.zeros(0, bool)
            continue
        table: pa.Table = schema.from_parquet(stored.read(run.store), stored.key, ["truth", "label"])
        found[name] = table["truth"].to_numpy() == table["label"].fill_null(-1).to_numpy()
    return found
