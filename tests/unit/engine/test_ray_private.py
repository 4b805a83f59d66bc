"""Every name of Ray that nobody promised us is still there, does what we need it for, and is used in one file.

Where a test here fails after an upgrade of Ray, its message says what to do; ``engine/ray_private.py`` says why we need
the name and what would replace it.
"""

import ast
import contextlib
import inspect
import logging
import os
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from packaging.requirements import Requirement

from ray_ns.config import Cluster
from ray_ns.engine import local_cluster, ray_private, remote_cluster

ROOT = Path(__file__).parents[3]
RAY = Path(ray.__file__).parent

# Private names, and what to do when one is gone.
NAMES = {
    "ray._private.services.canonicalize_bootstrap_address_or_die": (
        "running_cluster: find out how 'ray status' finds a running cluster now, and do the same"
    ),
    "ray._raylet.GcsClient": (
        "node_addresses: look for the client that 'ray status' asks a cluster's head with. Without one, connection.ask "
        "can no longer tell an open cluster from a closed one, so refuse every cluster that is not on loopback"
    ),
    "ray._raylet.AuthenticationTokenLoader": (
        "forget_token: find what keeps the token that ray._raylet read first; without it, use one token for all local "
        "clusters of a process, and run e2e/test_api, which starts three"
    ),
    "ray._private.ray_constants.ENABLE_RAY_CLUSTER": (
        "close_imported: find what ray._private.services.get_node_ip_address asks before it returns loopback, and set "
        "that; run test_local_cluster and e2e/test_closed, which look for open ports"
    ),
    "ray._raylet.Config.initialize": (
        "close_imported: find how Ray's C++ side reads RAY_AUTH_MODE now, or refuse to run where Ray was imported first"
    ),
    "ray._private.worker._global_node": "session_folder: look for the session's folder in ray.get_runtime_context()",
    "ray._private.node.Node.get_session_dir_path": "session_folder: look for the node's new name of it",
    "ray._private.node.Node.start_monitor": "LEFT_OUT: see what starts the autoscaler now, or take the name out",
    "ray._private.node.Node.start_log_monitor": "LEFT_OUT: see what starts the log monitor now, or take the name out",
    "ray._private.node.Node.start_api_server": "LEFT_OUT: see what starts the API server now, or take the name out",
    "ray._private.services.get_node": (
        "lean_start: see whether ray.init still sleeps a second before it finds its node; if not, drop _when_ready"
    ),
    "ray._private.worker.connect": (
        "lean_start: see whether ray.init still prints a line about RAY_BACKEND_LOG_LEVEL; if not, drop _unannounced"
    ),
    "ray.train.torch.config._TorchBackend": (
        "torch_backend: take what TorchConfig().backend_cls returns, and check that its on_start and on_shutdown are "
        "still called with the worker group"
    ),
    "ray.train.torch.config._set_torch_distributed_env_vars": "meet: see on_start of TorchConfig's backend",
    "ray.train.torch.config._setup_torch_process_group": "meet: see on_start of TorchConfig's backend",
    "ray.train.torch.TorchTrainer._register_sigint_handler": (
        "trainer: see what fit() does with SIGINT now, and run e2e/test_api and faults/test_kill_driver, which send it"
    ),
    "ray.train.v2._internal.execution.worker_group.WorkerGroup.get_latest_poll_status": (
        "are_well: see how ray.train.v2._internal's controller learns that a worker failed"
    ),
    "ray.train.v2._internal.execution.worker_group.WorkerGroup.execute": "leave._Backend, meet: see ray.train.backend",
    "ray.train.v2._internal.execution.worker_group.WorkerGroup.execute_async": "leave._Backend: see ray.train.backend",
    "ray.train.v2._internal.execution.worker_group.WorkerGroup.execute_single_async": "meet: see ray.train.backend",
}

# Where Ray names the variables that we set: a name it no longer knows does nothing, and nobody would notice.
VARIABLES = {
    "RAY_API_SERVER_ADDRESS": "_private/ray_constants.py",
    "RAY_USAGE_STATS_ENABLED": "_common/usage/usage_constants.py",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "data/context.py",
    "RAY_CHDIR_TO_TRIAL_DIR": "train/constants.py",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "train/v2/_internal/constants.py",
    "RAY_TRAIN_METRICS_ENABLED": "train/v2/_internal/constants.py",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "train/v2/_internal/constants.py",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "_private/ray_constants.py",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "_private/accelerators/accelerator.py",
    "RAY_BACKEND_LOG_LEVEL": "_raylet.so",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "_private/ray_constants.py",
    "RAY_AUTH_MODE": "_raylet.so",
    "RAY_AUTH_TOKEN": "_raylet.so",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "train/constants.py",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "train/v2/_internal/constants.py",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "_private/worker.py",
}


def found(name: str) -> Any:
    """What a dotted name stands for; raises ``AttributeError`` or ``ImportError``."""
    module, _, rest = name.rpartition(".")
    try:
        return getattr(import_module(module), rest)
    except ModuleNotFoundError:
        return getattr(found(module), rest)


def module(name: str) -> Any:
    """A module of Ray's own, imported when a test needs it, so that one that is gone fails only its own tests."""
    return import_module(f"ray._private.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_ray_still_has_the_name(name: str) -> None:
    try:
        found(name)
    except (AttributeError, ImportError):
        pytest.fail(f"Ray {ray.__version__} has no {name}. {NAMES[name]}.")


def test_every_private_name_in_use_is_listed() -> None:
    """What ``ray_private`` imports from Ray, and the attributes of Ray's that it reads below that, are in ``NAMES``."""
    used = set()
    for node in ast.walk(ast.parse(Path(ray_private.__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ray."):
            used |= {f"{node.module}.{it.name}" for it in node.names}
    unlisted = [it for it in used if not any(f"{name}.".startswith(f"{it}.") for name in NAMES)]
    assert not unlisted, f"add to NAMES in {Path(__file__).name}, with what to do when it goes: {unlisted}"
    assert {f"ray._private.node.Node.{it}" for it in ray_private.LEFT_OUT} <= set(NAMES)


def test_no_other_file_uses_private_names_of_ray() -> None:
    private = re.compile(r"\bray(?:\.\w+)*\._\w|\bfrom ray\b[\w.]* import (?:\([^)]*|[^\n]*)\b_\w")
    # The second makes Ray's errors as Ray does; ours only read them, by their texts.
    exempt = {Path(ray_private.__file__), Path(__file__).with_name("test_causes.py"), Path(__file__)}
    files = [it for folder in ("ray_ns", "tests", "benchmarks") for it in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 100
    for path in set(files) - exempt:
        use = private.search(path.read_text())
        assert use is None, f"{path} uses {use and use[0]!r}: give it a function in engine/ray_private.py"


@pytest.mark.parametrize("name", VARIABLES)
def test_ray_still_reads_the_variable(name: str) -> None:
    place = RAY / VARIABLES[name]
    assert place.exists(), f"look where Ray names {name} now, and mend VARIABLES"
    assert re.search(rb"\b%s\b" % name.encode(), place.read_bytes()), (
        f"Ray {ray.__version__} does not name {name} in {VARIABLES[name]}: look for what it is called now. "
        f"local_cluster or remote_cluster says what it is set for; where Ray needs it no longer, drop it there"
    )


def test_every_variable_of_rays_that_is_set_is_listed() -> None:
    here, there = local_cluster.ENVIRONMENT | local_cluster.CLOSED, remote_cluster.OF_DRIVER | remote_cluster.OF_WORKERS
    ours = {it for it in here | there if it.startswith("RAY_")} | {"RAY_AUTH_TOKEN", remote_cluster.START_SECONDS}
    assert ours == set(VARIABLES), "mend VARIABLES: a name and the file of Ray that reads it"


@pytest.mark.parametrize(
    "name",
    [
        "enable_progress_bars",
        "execution_no_progress_timeout_s",
        "memory_usage_poll_interval_s",
        "target_max_block_size",
    ],
)
def test_ray_data_still_has_the_setting(name: str) -> None:
    import ray.data

    assert hasattr(ray.data.DataContext.get_current(), name), (
        f"DataContext takes any attribute in silence, and has no {name} in Ray {ray.__version__}: look for its new name"
    )


def test_the_cap_is_the_version_that_was_tried() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    asked = next(it for it in map(Requirement, named) if it.name == "ray")
    assert asked.specifier.contains(ray.__version__), (
        f"Ray {ray.__version__} is outside {asked.specifier}. Once every test of this file and 'make test' pass with "
        f"it, raise the cap in pyproject.toml to the next minor version"
    )
    minor = int(ray.__version__.split(".")[1])
    assert not asked.specifier.contains(f"2.{minor + 1}.0"), "cap Ray in pyproject.toml below the next minor version"


def test_a_heads_client_can_list_the_nodes() -> None:
    kinds = [it for it in vars(import_module("ray._raylet")).values() if isinstance(it, type)]
    assert any(hasattr(it, "get_all_node_info") for it in kinds), (
        "GcsClient.get_all_node_info is gone: node_addresses and lean_start need another way to list a cluster's nodes"
    )


def test_the_process_group_takes_a_url() -> None:
    from ray.train.torch import config

    takes = set(inspect.signature(config._setup_torch_process_group).parameters)
    assert {"backend", "world_rank", "world_size", "init_method", "timeout_s"} <= takes, (
        "meet passes these by name: see how on_start of TorchConfig's backend calls _setup_torch_process_group now"
    )


def test_torch_config_still_sets_workers_up_with_that_class() -> None:
    from ray.train.torch import TorchConfig

    assert TorchConfig().backend_cls is ray_private.torch_backend(), "leave.py replaces TorchConfig.backend_cls"


def test_ray_libraries_write_errors_alone_to_the_terminal() -> None:
    import ray.data  # noqa: F401 - sets its logger up

    data = logging.getLogger("ray.data")
    before = {it: it.level for it in data.handlers}
    try:
        ray_private.quiet_libraries()
        to_files = [it for it in data.handlers if "File" in type(it).__name__]
        assert to_files, "quiet_libraries tells handlers to files by 'File' in their class: see how Ray names them now"
        assert all(it.level == (before[it] if it in to_files else logging.ERROR) for it in data.handlers)
    finally:
        for handler, level in before.items():
            handler.setLevel(level)


def test_workers_are_well_until_ray_has_seen_an_error() -> None:
    for status, well in [(None, False), (SimpleNamespace(errors={}), True), (SimpleNamespace(errors={0: "x"}), False)]:
        assert ray_private.are_well(SimpleNamespace(get_latest_poll_status=lambda told=status: told)) is well


def test_a_running_cluster_is_looked_for_as_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module("services"), "canonicalize_bootstrap_address_or_die", lambda address: f"{address}:6379")
    assert ray_private.running_cluster() == "auto:6379"


def test_a_node_listens_on_loopback_once_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module("ray_constants"), "ENABLE_RAY_CLUSTER", True)
    ray_private.close_imported()
    assert module("services").get_node_ip_address() in {"127.0.0.1", "::1"}, "see NAMES: ENABLE_RAY_CLUSTER"


def test_ray_is_itself_again_after_the_start() -> None:
    owners = dict.fromkeys(ray_private.LEFT_OUT, module("node").Node)
    owners |= {"get_node": module("services"), "connect": module("worker")}
    before = {name: getattr(owner, name) for name, owner in owners.items()}
    with contextlib.suppress(KeyError), ray_private.lean_start():
        assert all(getattr(owner, name) is not before[name] for name, owner in owners.items())
        raise KeyError
    assert all(getattr(owner, name) is before[name] for name, owner in owners.items())


def test_a_version_of_ray_without_these_names_starts_what_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    node, services = module("node").Node, module("services")
    monkeypatch.delattr(node, ray_private.LEFT_OUT[0])
    monkeypatch.delattr(services, "get_node")
    with ray_private.lean_start():
        assert not hasattr(node, ray_private.LEFT_OUT[0])
    assert not hasattr(node, ray_private.LEFT_OUT[0])
    assert not hasattr(services, "get_node")


def test_a_node_is_asked_for_only_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{}, {}, {"node": 1}])

    class Client:
        def __init__(self, address: str) -> None:
            assert address == "here"

        def get_all_node_info(self, timeout: float) -> dict[str, int]:
            return next(answers)

    monkeypatch.setattr(import_module("ray._raylet"), "GcsClient", Client)
    assert ray_private._when_ready(lambda *asked: asked)("here", "7") == ("here", "7")
    assert next(answers, None) is None
    # And where this version of Ray has no such client, as Ray itself does.
    monkeypatch.delattr(import_module("ray._raylet"), "GcsClient")
    assert ray_private._when_ready(lambda *asked: asked)("here", "7") == ("here", "7")


def test_one_line_of_rays_is_left_out_and_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    def connect(words: str, *, fails: bool) -> str:
        os.write(2, b"logging.cc:303: Set ray log level from environment variable RAY_BACKEND_LOG_LEVEL to 3\n")
        print(words, file=sys.stderr)
        if fails:
            raise KeyError(words)
        return words

    assert ray_private._unannounced(connect)("well", fails=False) == "well"
    with pytest.raises(KeyError):
        ray_private._unannounced(connect)("badly", fails=True)
    print("again", file=sys.stderr)
    assert capfd.readouterr().err.split() == ["well", "badly", "again"]


@pytest.mark.parametrize(
    "selector", [{"ray-ns/gpu": "true"}, {"a": "in(b, c)"}, {"-a": "b"}, {"a": "in()"}, {"a": "b c"}]
)
def test_a_label_selector_is_taken_where_ray_takes_it(selector: dict[str, str]) -> None:
    problem = module("label_utils").validate_label_selector(selector)  # it has no public name
    try:
        Cluster(train_on=selector)
    except ValueError:
        assert problem is not None
    else:
        assert problem is None
