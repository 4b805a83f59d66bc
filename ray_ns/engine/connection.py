"""Which Ray cluster a run joins, and whether it is safe to: checked before anything is written.

Anyone who reaches a Ray cluster can run code on it as its user, unless the cluster asks for a token. So a cluster that
can be reached from other machines must refuse a process without a token. A process without one tries: the settings of
this process say nothing of the cluster's.
"""

import ipaddress
import os
import socket
import subprocess
import sys

from ray_ns.engine import ray_private
from ray_ns.errors import InputError

LOCAL = "local"
CONNECT_SECONDS, ASK_SECONDS = 10.0, 20.0
PORT = 6379  # of a cluster's head where an address names none
_CLIENT = "ray://"
# A process without any of these has no token.
_OURS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
_ASK = """
import sys
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
    name = type(error).__name__
    print("refused" if name == "AuthenticationError" or "unauthenticated" in str(error).lower() else f"{name} {error}")
"""


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


def check(address: str) -> None:
    """Raise ``InputError`` where nothing answers at ``address``, or anyone who reaches that cluster can use it."""
    if address == LOCAL:
        return
    host, port = parted(address)
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS):
            pass
    except OSError as error:
        raise InputError(
            f"cluster.address = {address}: nobody answers there ({error.strerror or error}). Start the cluster, or "
            f"mend cluster.address or RAY_ADDRESS."
        ) from error
    said, *nodes = ask(address).split(" ")
    if is_loopback(host) and (said != "open" or all(map(is_loopback, nodes))):
        return
    if said == "open":
        where = f" (its nodes: {', '.join(nodes)})" if nodes else ""
        raise InputError(
            f"cluster.address = {address}{where} answers without a token: whoever reaches it can run code on it. "
            f"Start it with token authentication (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH on every node)."
        )
    if said != "refused":
        raise InputError(
            f"cluster.address = {address}: cannot be asked whether it refuses who has no token "
            f"({' '.join([said, *nodes])}). Is a Ray cluster there, of this version?"
        )
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise InputError(
            f"cluster.address = {address} asks for a token. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH or "
            f"RAY_AUTH_TOKEN."
        )


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


def ask(address: str) -> str:
    """What the cluster answers a process without a token: ``open`` and its nodes, ``refused``, or what went wrong."""
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    environment |= {"RAY_AUTH_MODE": "disabled", "HOME": "/nonexistent", "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        done = subprocess.run(  # noqa: S603 - this very Python, and an address that was parsed
            [sys.executable, "-c", _ASK, address], env=environment, capture_output=True, timeout=ASK_SECONDS, text=True
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {ASK_SECONDS:.0f} s"
    return (done.stdout.strip().splitlines() or [f"exit {done.returncode}"])[-1]
