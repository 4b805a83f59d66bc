"""Images to label tables: the driver's half. ``workers.slices`` and ``workers.teacher`` are the other.

Pieces are cut into slices, and teachers label them: one in this process, for few images, or actors of Ray Data, in one
of two layouts. In the layout ``actor`` the teacher's
actor reads and decodes its slices itself, and no image crosses the object store. In ``tasks`` CPU tasks read and decode
them, and uint8 pixels travel through the object store to the teachers; so CPUs of other nodes keep a GPU busy.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.digests import Digests
from ray_ns.artifacts.member import Member
from ray_ns.artifacts.network import Network
from ray_ns.config import Config
from ray_ns.engine import placement, waiting
from ray_ns.engine.resources import check_resources, local_cpus
from ray_ns.engine.run import Run
from ray_ns.engine.workers.slices import LOGITS, Job, Row, Slice, decode_slice, distinct, list_slices
from ray_ns.engine.workers.teacher import TABLE, TeacherActor, Voter
from ray_ns.labels import sound
from ray_ns.labels.arrow import as_numpy

if TYPE_CHECKING:
    from torch import nn

# Listing reads a footer and waits for the disk; a whole CPU for it would be one less for decoding.
LISTING_CPUS = 0.25

# Up to so many images go through the network in this process, where one teacher is wanted: Ray would take 10 s to start
# and label no faster. With more, a worker that is lost should not cost the command.
FEW_IMAGES = 20_000

Execute = Callable[[Run, Sequence[Member], Sequence[Job], Digests | None], Iterator[tuple[Job, pa.Table]]]


def on_ray_data(
    run: Run, members: Sequence[Member], jobs: Sequence[Job], known: Digests | None
) -> Iterator[tuple[Job, pa.Table]]:
    """One execution of Ray Data that labels these jobs."""
    run.ray_libraries()
    import ray

    config, voters = _voters(run, members, jobs)
    feeds = distinct(config, [it.data for it in voters])
    label = config.label
    context = ray.data.DataContext.get_current()
    context.memory_usage_poll_interval_s = None  # nobody reads what it finds out
    if label.layout_here == "tasks":
        # One slice per block. Ray sets room in the object store aside for two whole blocks of every task, and with
        # its blocks of 128 MB lets most CPUs idle for want of it.
        pixels = label.slice_rows * sum(it.data.size**2 * it.data.channels for it in feeds)
        context.target_max_block_size = min(context.target_max_block_size or pixels, pixels)
    items = [{"job": number, "piece": at} for number, job in enumerate(jobs) for at in range(len(job.pieces))]
    list_them = partial(list_slices, jobs=jobs, corpora=run.corpora, slice_rows=label.slice_rows, store=run.store)
    on_cpus = placement.options(config.cluster.decode_on, run.local)
    rows = ray.data.from_items(items, override_num_blocks=len(items))
    rows.set_name(run.named())
    rows = rows.flat_map(list_them, num_cpus=LISTING_CPUS, **on_cpus)
    known_from = known.known_from(run.store) if known else None
    if label.layout_here == "tasks":
        decode_it = partial(decode_slice, corpora=run.corpora, feeds=feeds, known_from=known_from)
        rows = rows.map_batches(decode_it, batch_size=1, **on_cpus)
    # A GPU's actor takes two slices: one is read, decoded and copied while the other goes through the network.
    at_once = 2 if label.gpus_per_actor else 1
    actors = ray.data.ActorPoolStrategy(
        size=label.actors, max_concurrent_calls_per_actor=at_once, enable_true_multi_threading=True
    )
    labelled = rows.map_batches(
        TeacherActor,
        batch_size=1,
        compute=actors,
        num_cpus=0 if label.gpus_per_actor else label.threads,
        num_gpus=label.gpus_per_actor or None,
        fn_constructor_args=(run.store, voters, run.corpora, config, known_from),
        **placement.options(config.cluster.teachers_on, run.local),
    )
    with waiting.told(run, placement.reading(config), placement.teaching(config)):
        for number, table in assembled(labelled.iter_rows(), [len(job.pieces) for job in jobs]):
            yield jobs[number], table


def in_this_process(network: "nn.Module | None" = None) -> Execute:
    """An execution in this process, without Ray: one teacher labels slice after slice.

    ``network``: the first teacher's, where it is loaded already; else it is loaded once.
    """
    held: list[tuple[tuple[Sequence[Member], str | None, bool], TeacherActor]] = []  # the last one

    def execute(
        run: Run, members: Sequence[Member], jobs: Sequence[Job], known: Digests | None
    ) -> Iterator[tuple[Job, pa.Table]]:
        config, voters = _voters(run, members, jobs)
        # Images are known, and a network is noised, where the pool is labelled, not where one evaluates.
        wanted = members, known.digest if known else None, config.label.noised
        if not held or held[0][0] != wanted:
            loaded = None if held else network
            known_from = known.known_from(run.store) if known else None
            actor = TeacherActor(run.store, voters, run.corpora, config, known_from, loaded)
            held[:] = [(wanted, actor)]
        label_it = held[0][1]

        def rows() -> Iterator[Row]:
            for number, job in enumerate(jobs):
                for piece in range(len(job.pieces)):
                    at = {"job": number, "piece": piece}
                    for row in list_slices(at, jobs, run.corpora, config.label.slice_rows, run.store):
                        batch = {name: np.array([value], object) for name, value in row.items()}
                        yield {name: value[0] for name, value in label_it(batch).items()}

        for number, table in assembled(rows(), [len(job.pieces) for job in jobs]):
            yield jobs[number], table

    return execute


def few_images(run: Run) -> bool:
    """Whether one teacher on this machine's CPU looks at so few images that Ray would take longer to start."""
    images = sum(sum(corpus.open(shard).group_rows) for corpus in run.corpora.values() for shard in corpus.shards)
    return run.local and run.config.label.actors == 1 and not run.config.label.gpus_per_actor and images <= FEW_IMAGES


def choose_where(run: Run, images: int, done: str, network: "nn.Module | None" = None) -> None:
    """Decide whether a network that is there looks at so many images in this process or through Ray, and say so.

    ``done``: what is done to them, in a word. ``network``: where it is loaded already. Raises ``InputError`` where the
    cluster cannot do it, before anything is written.
    """
    cluster, label = run.config.cluster, run.config.label
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if not address and label.actors == 1 and images <= FEW_IMAGES:
        run.execute = in_this_process(network)
        run.reporter.note(f"{done} in this process, without Ray (cluster.address=local uses it)")
        return
    actors = f"label.actors = {label.actors}" if label.actors > 1 else f"more than {FEW_IMAGES:,} images"
    run.reporter.note(f"{done} through Ray ({f'cluster.address = {address}' if address else actors})")
    run.join()
    if run.local:
        import torch

        gpus = torch.cuda.device_count() if cluster.gpus is None else cluster.gpus
        check_resources(run.config, local_cpus(run.config), gpus)


def predict(
    run: Run, teacher: Network | Sequence[Member], jobs: Sequence[Job], known: Digests | None = None
) -> Iterator[tuple[Job, pa.Table]]:
    """Label every image of ``jobs``; each job's table comes once, in whatever order they finish.

    ``teacher``: one, or several whose probabilities are averaged.

    ``known``: digests of images that get no label but a reason, which names the corpus that has them.
    Beside the columns of ``labels.schema`` a table has ``CONTENT``,
    a checksum of each image's bytes.

    Jobs go to the run's ``execute`` some at a time, so that neither the driver's memory nor what a crash can cost grows
    with their number.

    Raises ``InputError`` with the network's name where what it says is NaN or infinite.
    """
    label, execute = run.config.label, run.execute or on_ray_data
    at_once = max(label.open_shards, label.actors * 2)
    waiting = iter(jobs)
    members = [Member(teacher)] if isinstance(teacher, Network) else teacher
    while batch := list(islice(waiting, at_once)):
        for job, table in execute(run, members, batch, known):
            _refuse_void(run, members, job, table)
            yield job, table


def _refuse_void(run: Run, members: Sequence[Member], job: Job, table: pa.Table) -> None:
    """Raise ``InputError`` where the networks said no numbers of an image that can be read."""
    if LOGITS in table.column_names:
        logits = table.filter(table["quarantine"].is_null())[LOGITS].combine_chunks()
        said = as_numpy(logits.flatten()).reshape(-1, logits.type.list_size)
    else:
        said = as_numpy(table["confidence"].drop_null())
    places = [it.network.place for it in members]
    called = " and ".join(run.called.get(place, f"{run.store.url}/{place}") for place in places)
    called = f"one of {called}" if len(places) > 1 else called
    sound.refuse(said, called, f"{job.corpus}, {job.view}" if job.view else job.corpus)


def _voters(run: Run, members: Sequence[Member], jobs: Sequence[Job]) -> tuple[Config, list[Voter]]:
    """The settings by which the first member is fed, and all of them as an actor loads them.

    Only a network that labels is noised: another may know nothing of the first student's dropout and drop path.
    """
    config, own = run.config, run.config.data
    found = [Voter(it.network.files, it.network.fed(own), it.voting) for it in members]
    noised = config.label.noised and any(job.stage == "label" for job in jobs)
    config = config.model_copy(update={"label": config.label.model_copy(update={"noised": noised})})
    return config.reading(found[0].data), found


def assembled(rows: Iterable[Row], pieces: Sequence[int]) -> Iterator[tuple[int, pa.Table]]:
    """Labelled slices in any order to whole jobs: (number of the job, its table), each once its last slice has come.

    ``pieces``: how many pieces each job has. Raises ``AssertionError`` where the rows end before every job did.
    """
    waiting: dict[int, dict[int, dict[int, bytes]]] = {number: {} for number in range(len(pieces))}
    whole: dict[int, set[int]] = {number: set() for number in waiting}
    for row in rows:
        slice_ = Slice.of_row(row)
        if slice_.job not in waiting:
            continue
        tables = waiting[slice_.job].setdefault(slice_.piece, {})
        tables[slice_.number] = row[TABLE]
        if len(tables) == slice_.count:
            whole[slice_.job].add(slice_.piece)
        if len(whole[slice_.job]) == pieces[slice_.job]:
            done = waiting.pop(slice_.job)
            in_order = [done[piece][number] for piece in sorted(done) for number in sorted(done[piece])]
            yield slice_.job, pa.concat_tables([pa.ipc.open_stream(it).read_all() for it in in_order]).combine_chunks()
    if waiting:
        raise AssertionError(f"the labelling ended without {len(waiting)} of {len(pieces)} jobs")
