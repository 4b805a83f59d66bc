"""Which Ray cluster a run joins, and whether it is safe to: checked before anything is written.

Anyone who reaches a Ray cluster can run code on it as its user, unless the cluster asks for a token. So a cluster that
can be reached from other machines must refuse a process without a token. A process without one tries: the settings of
this process say nothing of the cluster's.
"""

import ipaddress
import os
import queue
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass

from ray_ns.engine import ray_private
from ray_ns.errors import InputError

LOCAL = "local"
CONNECT_SECONDS, ASK_SECONDS = 8.0, 20.0  # together under half a minute
PORT = 6379  # of a cluster's head where an address names none
_CLIENT = "ray://"
# A process without any of these has no token.
_OURS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
_ASK = """
import signal, sys
signal.alarm(int(sys.argv[2]))  # no driver that ends leaves this behind
address = sys.argv[1]
try:
    if address.startswith("ray://"):
        import ray
        ray.init(address, logging_level="ERROR")
        print("open")
    else:
        from ray_ns.engine.ray_private import node_addresses
        print("open", *node_addresses(address, 15))
except Exception as error:
    refused = type(error).__name__ == "AuthenticationError" or "unauthenticated" in str(error).lower()
    print("refused" if refused else type(error).__name__, " ".join(str(error).split()))
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster that a run may join. ``loopback``: its nodes listen on this machine's loopback alone."""

    address: str
    loopback: bool = False

    @property
    def local(self) -> bool:
        """Whether it is one of this process alone."""
        return self.address == LOCAL


def address_of(asked: str | None) -> str:
    """The cluster's address: ``asked``, else RAY_ADDRESS, else ``local``. ``auto`` is found as Ray finds it.

    Raises ``InputError`` where ``auto`` finds none.
    """
    address = asked or os.environ.get("RAY_ADDRESS") or LOCAL
    if address != "auto":
        return address
    try:
        return ray_private.running_cluster()
    except (ConnectionError, ValueError) as error:
        raise InputError(
            "cluster.address = auto: no Ray cluster runs on this machine. Start one, give its address, or leave "
            "cluster.address and RAY_ADDRESS out: the run starts its own."
        ) from error


def refuse_connected() -> None:
    """Raise ``InputError`` where this process uses Ray already: a run connects by itself, and as it needs it."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        raise InputError(
            "this process is connected to Ray already, and a run connects by itself. Call ray.shutdown() first; "
            "cluster.address (or RAY_ADDRESS) says which cluster the run joins."
        )


def check(address: str) -> Cluster:
    """The cluster at ``address``. Raises ``InputError`` where nothing answers, or whoever reaches it can use it."""
    if address == LOCAL:
        return Cluster(address)
    host, port = parted(address)
    trouble = _reached(host, port)
    if trouble:
        raise InputError(
            f"cluster.address = {address}: nobody answers there ({trouble}). Start the cluster, or mend "
            f"cluster.address or RAY_ADDRESS."
        )
    bare, mine = ask(address)
    (said, *nodes), (answer, *others) = bare.split(" "), mine.split(" ")
    if said == "open" and not (is_loopback(host) and all(map(is_loopback, nodes))):
        where = f" (its nodes: {', '.join(nodes)})" if nodes else ""
        raise InputError(
            f"cluster.address = {address}{where} answers without a token: whoever reaches it can run code on it. "
            f"Start it with token authentication (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH on every node)."
        )
    if said not in ("open", "refused") and not (is_loopback(host) and answer == "open"):
        raise InputError(
            f"cluster.address = {address}: cannot be asked whether it refuses who has no token "
            f"({bare}). Is a Ray cluster there, of this version?"
        )
    if said == "refused" and os.environ.get("RAY_AUTH_MODE") != "token":
        raise InputError(
            f"cluster.address = {address} asks for a token. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH or "
            f"RAY_AUTH_TOKEN."
        )
    if answer == "refused":
        why = " ".join(others).partition(". ")[0]
        raise InputError(
            f"cluster.address = {address} refuses this process's token ({why}). Set RAY_AUTH_TOKEN_PATH or "
            f"RAY_AUTH_TOKEN to the cluster's."
        )
    if answer != "open":
        raise InputError(f"cluster.address = {address}: cannot be asked for its nodes ({mine}). Is it of this version?")
    return Cluster(address, is_loopback(host) and all(map(is_loopback, others)))


def _reached(host: str, port: int) -> str:
    """Why nobody answers at a host and port; empty where somebody does. No name server holds this up for longer."""
    found: queue.Queue[str] = queue.Queue()

    def connect() -> None:
        try:
            with socket.create_connection((host, port), CONNECT_SECONDS):
                found.put("")
        except OSError as error:
            found.put(str(error.strerror or error))
        except UnicodeError:  # no name of a host can be so
            found.put("no such host")

    threading.Thread(target=connect, name="connect", daemon=True).start()
    try:
        return found.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        return f"no answer in {CONNECT_SECONDS:.0f} s"


def parted(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``, ``[::1]:port``, ``ray://host:port``. ``InputError`` for anything else."""
    place = address.removeprefix(_CLIENT)
    host, separator, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    if not separator:
        host, port = place, str(10001 if address.startswith(_CLIENT) else PORT)
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 2**16 or set(bare) & set("/@? "):
        raise InputError(
            f"cluster.address = {address}: expected host:port, ray://host:port, auto or local, such as 10.0.0.5:6379"
        )
    return bare, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's loopback: an address of it, or ``localhost``; other names are not resolved."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def ask(address: str) -> tuple[str, str]:
    """What the cluster answers a process without a token, and one with this process's.

    Each ``open`` and its nodes, ``refused`` and why, or what went wrong.
    """
    without = {name: value for name, value in os.environ.items() if name not in _OURS}
    without |= {"RAY_AUTH_MODE": "disabled", "HOME": "/nonexistent"}
    bare, mine = (_asking(address, environment) for environment in (without, dict(os.environ)))
    return _answer(bare), _answer(mine)


def _asking(address: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603 - this very Python, and an address that was parsed
        [sys.executable, "-c", _ASK, address, str(int(ASK_SECONDS) + 1)],
        env=environment | {"RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _answer(asking: "subprocess.Popen[str]") -> str:
    with asking:
        try:
            said, _ = asking.communicate(timeout=ASK_SECONDS)
        except subprocess.TimeoutExpired:
            return f"no answer in {ASK_SECONDS:.0f} s"
        finally:
            asking.kill()
    return (said.strip().splitlines() or [f"exit {asking.returncode}"])[-1].strip()
