"""The contenders of benchmarks.label: five ways to label the same JPEGs on the same cores.

Each runs in a process of its own until it is stopped, and whatever turns images into probabilities writes one line per
batch, "when, how many", into a folder; from these lines the rates are computed, the same way for all.
"""

import io
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from ray_ns import config as configs
from ray_ns.artifacts.network import Network
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine import predict
from ray_ns.engine.run import Run
from ray_ns.engine.workers.slices import Job, Piece
from ray_ns.images.decode import Decode
from ray_ns.models import zoo
from ray_ns.models.files import to_files
from ray_ns.models.memory import keep_memory
from ray_ns.models.predictor import Teacher
from ray_ns.observe import Reporter
from ray_ns.store import commit
from ray_ns.store.lease import Lease
from ray_ns.store.objects import open_store

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES, SIZE = 1000, 224
EVENTS = "RAY_NS_BENCH_EVENTS"  # the folder for the lines, inherited by whatever a contender starts


@dataclass(frozen=True)
class Task:
    """What one contender does: its network, its images and its own settings."""

    contender: str
    model: str
    model_args: dict[str, Any]
    pool: str
    options: dict[str, Any] = field(default_factory=dict)

    def config(self) -> configs.Config:
        """A run's config in which only data, model and label matter."""
        model = configs.Model(name=self.model, args=self.model_args)
        data = configs.Data(classes=CLASSES, labelled="-", validation="-", test="-", pool=self.pool, size=SIZE)
        training = {"model": model, "steps": 1, "batch": 1}
        label = {"precision": "bfloat16", **self.options.get("label", {})}
        return configs.Config(
            run=configs.Run(dir="-"),
            data=data,
            teacher=configs.Training.model_validate(training),
            student=configs.Student.model_validate(training),
            # An image that is stopped with its contender is not slow.
            label=configs.Label(open_shards=100_000, image_seconds=3600, **label),
            cluster=configs.Cluster(**self.options.get("cluster", {})),
        )

    def network(self) -> torch.nn.Module:
        """The network, with the same random weights in every process."""
        torch.manual_seed(0)
        config = self.config()
        return zoo.build(config.recipes()["teacher"].model, config.data).eval()


class Events:
    """The lines of one process: seconds of the machine's monotonic clock, images done since the line before."""

    def __init__(self) -> None:
        self._file = (Path(os.environ[EVENTS]) / f"{os.getpid()}.txt").open("a", buffering=1)

    def add(self, images: int) -> None:
        """Write that so many more images are done."""
        self._file.write(f"{time.monotonic()} {images}\n")


class TimedTeacher(predict.TeacherActor):
    """Our actor, with a line per slice."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._events = Events()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = super().__call__(batch)
        self._events.add(int(batch["rows"][0]))
        return found


def ours(task: Task) -> None:
    """Our pipeline, in the layout of the options, through the function the stage ``label`` calls."""
    config, corpus = task.config(), Corpus.scan(task.pool, "image", None)
    predict.TeacherActor = TimedTeacher  # type: ignore[misc, assignment]
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        corpora, pools = {"pool": corpus}, (len(corpus.shards),)
        with Run(config, store, corpora, pools, Lease(store), Reporter("plain")) as run:

            def work(stage: commit.Output) -> tuple[dict[str, Any], int]:
                stage.publish(0, to_files(task.network(), config.data), {})
                return {}, 1

            teacher = Network(commit.ensure(store, "teacher", {}, work, run.lease.check))
            jobs = [Job("pool", (Piece(shard),)) for shard in corpus.shards]
            rows = sum(table.num_rows for _, table in predict.predict(run, teacher, jobs))
            print(rows, flush=True)


def bare(task: Task) -> None:
    """The limit: plain processes that decode and forward what already lies in their memory, and nothing else."""
    encoded = images_in_memory(task.pool)
    workers = [multiprocessing.Process(target=_bare, args=(task, encoded[part::2])) for part in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _bare(task: Task, encoded: list[bytes]) -> None:
    torch.set_num_threads(1)
    keep_memory()
    config, events = task.config(), Events()
    rows = min(config.label.slice_rows, len(encoded))
    decode = Decode(SIZE, 3)
    teacher = Teacher(task.network(), config.data, rows, "bfloat16", torch.device("cpu"))
    images = np.zeros((rows, SIZE, SIZE, 3), np.uint8)
    while True:
        for begin in range(0, len(encoded) - rows + 1, rows):
            for place, data in enumerate(encoded[begin : begin + rows]):
                images[place] = decode(data)
            teacher(images)
            events.add(rows)


def ray_recipe(task: Task) -> None:
    """Ray Data's documented batch inference: rows mapped one by one with PIL and torchvision, float32, actors."""
    import ray
    from PIL import Image
    from torchvision import transforms

    # Four logical CPUs on two cores: with two, the two actors take both and the recipe never starts.
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=2 * 2**30)
    ray.data.DataContext.get_current().enable_progress_bars = False
    to_tensor = transforms.Compose(
        [transforms.Resize((SIZE, SIZE)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        return {"image": np.array(Image.open(io.BytesIO(row["image"])).convert("RGB"))}

    def preprocess(row: dict[str, Any]) -> dict[str, Any]:
        return {"image": to_tensor(Image.fromarray(row["image"])).numpy()}

    class Model:
        def __init__(self) -> None:
            self.model = task.network()
            self.events = Events()

        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            with torch.inference_mode():
                found = torch.softmax(self.model(torch.from_numpy(np.stack(list(batch["image"])))), 1).max(1)
            self.events.add(len(batch["image"]))
            return {"label": found.indices.numpy(), "confidence": found.values.numpy()}

    rows = ray.data.read_parquet(task.pool).map(decode).map(preprocess)
    labelled = rows.map_batches(Model, batch_size=32, compute=ray.data.ActorPoolStrategy(size=2))
    print(sum(len(batch["label"]) for batch in labelled.iter_batches()), flush=True)


def dataloader(task: Task) -> None:
    """A torch DataLoader with timm's transform and collation, and timm's inference loop at our precision."""
    from timm.data import create_transform
    from timm.data.loader import fast_collate

    torch.set_num_threads(task.options["threads"])
    transform = create_transform(
        (3, SIZE, SIZE), use_prefetcher=True, interpolation="bilinear", crop_pct=1.0, crop_mode="squash"
    )
    loader = torch.utils.data.DataLoader(
        _Images(images_in_memory(task.pool), transform),
        batch_size=task.options["batch"],
        num_workers=task.options["workers"],
        collate_fn=fast_collate,
        drop_last=True,
    )
    network, events = task.network().to(memory_format=torch.channels_last), Events()
    mean, std = (255 * torch.tensor(it)[:, None, None] for it in (MEAN, STD))
    with torch.inference_mode():
        while True:
            for images, _ in loader:
                pixels = images.float().sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16):
                    logits = network(pixels)
                torch.softmax(logits.float(), 1).topk(10).values.numpy()
                events.add(len(images))


class _Images(torch.utils.data.Dataset):
    """What timm's reader and dataset do for one image, on bytes that already lie in memory; many times over."""

    def __init__(self, encoded: list[bytes], transform: Any) -> None:
        self._encoded, self._transform = encoded, transform

    def __len__(self) -> int:
        return 100 * len(self._encoded)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        from PIL import Image

        image = Image.open(io.BytesIO(self._encoded[place % len(self._encoded)])).convert("RGB")
        return self._transform(image), 0


def images_in_memory(pool: str) -> list[bytes]:
    """The 4,000 different images of a pool that repeats them."""
    files = sorted(Path(pool).glob("*.parquet"))[:2]
    return [value for file in files for value in pq.read_table(file)["image"].to_pylist()]


def run() -> None:
    """Run the contender that the environment describes, by the fields of a ``Task``, until it is stopped."""
    task = Task(**json.loads(os.environ["RAY_NS_BENCH_TASK"]))
    {"ours": ours, "bare": bare, "ray_recipe": ray_recipe, "dataloader": dataloader}[task.contender](task)
