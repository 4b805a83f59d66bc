"""What a failure inside Ray is told as: Ray's own error objects, made without a cluster."""

import traceback

import pytest
from ray import cloudpickle as pickle
from ray.core.generated.common_pb2 import ActorDiedErrorContext, ErrorType
from ray.data.exceptions import SystemException
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectReconstructionFailedError,
    OutOfMemoryError,
    OwnerDiedError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
    UserCodeException,
    WorkerCrashedError,
)
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2.api.exceptions import ControllerError

from ray_ns.engine import causes, failures
from ray_ns.errors import RepeatingError, ResumableError

# As Ray 2.60 writes them.
LOW_MEMORY = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.3, ID: \
4f2a) was 15.21GB used / 16.00GB limit (0.95)
OOM kill reason: memory usage above threshold
Object store memory usage: [- objects spillable: 0]
Ray killed 1 worker(s) based on the killing policy
Considered workers: [
(ID 1, pid 99)
]
To see more information about memory usage on this node, use `ray logs raylet.out -ip 10.0.0.3`
Top 10 memory users: PID	MEM(GB)	COMMAND
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/x.html. Consider \
provisioning more memory on this node. Set max_restarts and max_task_retries to enable retry when the task crashes \
due to OOM. To adjust the kill threshold, set the environment variable `RAY_memory_usage_threshold` at the start."""
EXITED = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed "
    "unexpectedly due to SIGSEGV or another unexpected error. If the process was killed by the kernel OOM killer "
    "(verifiable by checking for OOM in dmesg of the OOMing node), consider enabling resource isolation via "
    "--enable-resource-isolation to prevent node deaths."
)


def raised(error: BaseException) -> tuple[BaseException, str]:
    """The error as it comes out of a task, and its traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught, "".join(traceback.format_exception(caught))


def of_task(error: BaseException, pid: int = 4711) -> RayTaskError:
    """What the driver gets of an error in a task, through the wire."""
    caught, text = raised(error)
    wrapped = RayTaskError("ray_ns.f", text, caught, "ray::f", pid, "10.0.0.3")
    return pickle.loads(pickle.dumps(wrapped)).as_instanceof_cause()


def of_ray_data(error: Exception) -> BaseException:
    """What iterating over a dataset raises where a function of ours failed."""
    try:
        try:
            raise error
        except Exception as cause:
            raise UserCodeException("UDF failed to process a data block.") from cause
    except UserCodeException as caught:
        return of_task(caught)


def died(message: str, **context: object) -> ActorDiedError:
    names = {"class_name": "Teacher", "actor_id": b"1" * 16, "pid": 812, "node_ip_address": "10.0.0.4"}
    return ActorDiedError(ActorDiedErrorContext(error_message=message, **{**names, **context}))


def in_creation(error: Exception) -> ActorDiedError:
    """What the driver gets of an actor whose ``__init__`` failed."""
    caught, text = raised(error)
    return ActorDiedError(RayTaskError("__init__", text, caught, "ray::Teacher", 4711, "10.0.0.3", "Teacher", "ab"))


def lost_by_system(error: BaseException) -> BaseException:
    """As Ray Data passes on what is no fault of a function of ours."""
    error.__cause__ = SystemException()
    return error


PLACE = " (pid 4711, node 10.0.0.3)"
LEFT = (
    "ActorDiedError: The actor died unexpectedly before finishing this task. The actor is dead because its worker "
    "process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection "
    "error code 2. End of file (pid 812, node 10.0.0.4)"
)
MEMORY = "OutOfMemoryError: node 10.0.0.3 ran out of memory (15.21GB used of 16.00GB), and Ray ended a process"
DIED = "ActorDiedError: The actor died unexpectedly before finishing this task"
STARTUP = "The worker group startup timed out after 60.0 seconds waiting for 4 workers"
PUT = ErrorType.OBJECT_UNRECONSTRUCTABLE_PUT
LOST = "Failed to retrieve object ab"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (of_task(ValueError("shapes differ")), f"ValueError: shapes differ{PLACE}"),
        (of_task(of_task(KeyError("weight"), 1)), "KeyError: 'weight' (pid 1, node 10.0.0.3)"),
        (of_task(RuntimeError("CUDA error\nPass CUDA_LAUNCH_BLOCKING=1")), f"RuntimeError: CUDA error{PLACE}"),
        (of_task(RuntimeError("state_dict:\n\tMissing key: a")), f"RuntimeError: state_dict: Missing key: a{PLACE}"),
        (of_task(ValueError()), f"ValueError: no message{PLACE}"),
        (of_ray_data(OSError(28, "No space left on device")), f"OSError: [Errno 28] No space left on device{PLACE}"),
        (of_ray_data(ValueError("two\nlines")), f"ValueError: two{PLACE}"),
        (in_creation(ImportError("no module timm")), f"ImportError: no module timm{PLACE}"),
        (died(EXITED), LEFT),
        (lost_by_system(died(EXITED)), LEFT),
        (died("Its node died. Id: 4f2a"), f"{DIED}. Its node died. Id: 4f2a (pid 812, node 10.0.0.4)"),
        (ActorDiedError(), DIED),
        (RayActorError(), "RayActorError: The actor experienced an error before finishing this task"),
        (ActorUnavailableError("RPC", None), "ActorUnavailableError: The actor None is unavailable: RPC"),
        (OutOfMemoryError(LOW_MEMORY), MEMORY),
        (died(LOW_MEMORY), f"{MEMORY} (pid 812, node 10.0.0.4)"),
        (WorkerCrashedError(), "WorkerCrashedError: The worker died unexpectedly while executing this task"),
        (NodeDiedError("The node (IP: 10.0.0.3) died."), "NodeDiedError: The node (IP: 10.0.0.3) died"),
        (RuntimeEnvSetupError("pip failed"), "RuntimeEnvSetupError: Failed to set up runtime environment. pip failed"),
        (OwnerDiedError("ab", None, ""), f"OwnerDiedError: {LOST}. The object's owner has exited"),
        (ObjectReconstructionFailedError("ab", PUT), f"ObjectReconstructionFailedError: {LOST}"),
        (WorkerGroupStartupTimeoutError(4), f"WorkerGroupStartupTimeoutError: {STARTUP}"),
        (WorkerHealthCheckTimeoutError("A worker hung."), "WorkerHealthCheckTimeoutError: A worker hung"),
        (ControllerError(of_task(ValueError("x"))), f"ValueError: x{PLACE}"),
        (ValueError("ours, bare"), "ValueError: ours, bare"),
    ],
)  # fmt: skip
def test_the_cause_is_said_and_no_advice(error: BaseException, said: str) -> None:
    assert causes.in_short(error) == said


def test_of_a_trainings_workers_the_one_that_died_is_told_first() -> None:
    gloo = RuntimeError("Connection closed by peer [10.0.0.4]:4711")
    found = WorkerGroupError("two failed", {0: gloo, 1: WorkerHealthCheckFailedError("gone", died(EXITED))})
    assert causes.in_short(found) == LEFT.replace("(pid", "(worker 1, pid")
    alone = WorkerGroupError("all failed", {1: ValueError("b"), 0: ValueError("a")})
    assert causes.in_short(alone) == "ValueError: a (worker 0)"


def test_an_error_with_its_traceback_as_text_is_told_by_its_last_line() -> None:
    caught, text = raised(ValueError("shapes differ"))
    assert causes.in_short(UserExceptionWithTraceback(caught, text)) == "ValueError: shapes differ"


def test_a_circle_and_a_long_message_end() -> None:
    circle = ControllerError(ValueError("x"))
    circle.controller_failure = circle
    assert causes.in_short(circle).startswith("ControllerError: ")
    assert len(causes.in_short(of_task(ValueError("x" * 5000)))) < 500


def test_the_message_of_a_failed_stage_has_the_cause_and_how_to_go_on() -> None:
    with pytest.raises(ResumableError) as caught, failures.as_ours("rounds/0/train", lambda: " Ray's logs: /x"):
        raise WorkerGroupError("one failed", {1: died(EXITED)})
    assert str(caught.value) == (
        f"rounds/0/train failed: {LEFT.replace('(pid', '(worker 1, pid')}. What is committed stays. The same command "
        "goes on from there. Ray's logs: /x"
    )
    again = pytest.raises(RepeatingError, match=r"label failed: ValueError: x \(pid 4711.*mend its cause")
    with again, failures.as_ours("label", str):
        raise ControllerError(of_task(ValueError("x")))
