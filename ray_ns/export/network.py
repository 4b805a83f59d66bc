"""Which network is meant by a place: a folder with its two files, or a run, whose best network it is."""

import os
from dataclasses import dataclass
from pathlib import Path

from ray_ns.artifacts.network import Network
from ray_ns.artifacts.report import best_network
from ray_ns.config import Config, Data, Settings
from ray_ns.errors import InputError
from ray_ns.export.files import whole
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.models.given import data_of, published
from ray_ns.seals import sha256
from ray_ns.store import layout
from ray_ns.store.fork import open_run
from ray_ns.store.objects import STORE_SECONDS, ObjectStore


@dataclass(frozen=True)
class Given:
    """A network that a command is given.

    ``place``: as it was given. ``files``: ``model.safetensors`` and ``config.json``. ``data``: how it is fed
    (``config.FED``) and its number of classes; where images lie it does not say. ``names``: of the classes, by their
    numbers, where they are known. ``run``: the run's store, where the place is a run, and ``network`` its commit.
    """

    place: str
    files: dict[str, bytes]
    data: Data
    names: tuple[str, ...] | None
    run: ObjectStore | None = None
    network: Network | None = None


def given(place: str, seconds: float = STORE_SECONDS) -> Given:
    """The network at ``place``: a run (local or s3) that has ended, or a folder in timm's form, such as RUN/best.

    Or a file of weights beside its ``config.json``; or, where nothing is there, timm's name of weights that it has.

    Raises ``InputError`` where it is none of these, or ray_ns decodes images otherwise than the network is fed;
    ``IntegrityError`` where a run's file is not as it was written.
    """
    folder, file = os.path.split(place) if place.endswith(".safetensors") else (place, WEIGHTS)
    store = open_run(folder or ".", seconds)
    if folder == place and layout.record(store) is not None:
        return of_run(place, store, best_network(store))
    lying = {WEIGHTS: store.get(file), CONFIG: store.get(CONFIG)}
    found = {name: content for name, content in lying.items() if content is not None}
    if not found:
        found = published(place) or {}
    if len(found) < 2:
        missing = CONFIG if CONFIG not in found else file
        raise InputError(
            f"{place}: no network is here (no {missing}), and no run ({layout.RUN}). Give a run that has ended, or a "
            f"folder with {WEIGHTS} and {CONFIG}, such as RUN/best, or timm's name of a network that it has weights of."
        )
    data, names = data_of(found[CONFIG], place)
    return Given(place, found, data, names)


def of_run(place: str, store: ObjectStore, network: Network) -> Given:
    """A network that the run at ``place`` has trained, with what the run says of images and classes."""
    files = {name: network.files[name].read(store) for name in (WEIGHTS, CONFIG)}
    return Given(place, files, data_of_run(store, network), layout.classes(store).names, store, network)


def data_of_run(store: ObjectStore, network: Network) -> Data:
    """How a network of a run is fed, by the run's settings; where images lie it does not say."""
    record = layout.record(store)
    assert record is not None, "a run with a network has begun"
    told = {**record["config"]["data"], "labelled": store.url, "pool": store.url}
    data = Data.model_validate({**told, "classes": layout.classes(store).count})
    return network.fed(Settings.of_run(record, Config).completed(data))


def folder_for(found: Given, output: Path | None) -> Path:
    """Where other forms of the network go: ``output``, or beside it; of a run that is RUN/best.

    Raises ``InputError`` where that is no local folder, or RUN/best is missing or of another network.
    """
    if output is None and not Path(found.place).is_dir():
        raise InputError(f"{found.place}: is no folder of this machine. Say where the files go: -o FOLDER")
    if output is not None:
        return output
    folder = Path(found.place)
    if found.run is not None:
        folder /= layout.BEST
        if sha256(found.run.get(f"{layout.BEST}{WEIGHTS}") or b"") != sha256(found.files[WEIGHTS]):
            raise InputError(f"{folder}: is not the run's best network. Write it anew: start 'ray-ns run' again.")
    return folder


def write(folder: Path, name: str, content: bytes) -> Path:
    """Write the file into ``folder``, whole or not at all. Returns its path."""
    path = folder / name
    with whole(path) as file:
        file.write(content)
    return path
