"""Which TCP ports a process and all below it listen on, as the kernel has them in /proc."""

import contextlib
import ipaddress
import os
import struct
from collections.abc import Iterator
from pathlib import Path


def tree(root: int) -> list[int]:
    """The process and all below it that are there now."""
    found = [root]
    for pid in found:
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, thread.read_text().split())
    return found


def open_doors(root: int) -> set[str]:
    """Every address that a process of the tree listens on and that another machine could reach, and whose it is."""
    owners = {socket: pid for pid in tree(root) for socket in _sockets(pid)}
    doors = set()
    for address, port, socket in _listening():
        address = getattr(address, "ipv4_mapped", None) or address
        if socket in owners and not address.is_loopback:
            doors.add(f"{address} {port} {_command(owners[socket])}")
    return doors


def doors_of(root: int) -> int:
    """How many ports the tree listens on."""
    sockets = {socket for pid in tree(root) for socket in _sockets(pid)}
    return sum(socket in sockets for _, _, socket in _listening())


def _sockets(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                kind, _, number = os.readlink(handle).partition(":")
                if kind == "socket":
                    yield number.strip("[]")


def _listening() -> Iterator[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int, str]]:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                where, port = words[1].split(":")
                # Words of 32 bits, each in the order of the machine's own bytes.
                raw = b"".join(struct.pack("=I", int(where[at : at + 8], 16)) for at in range(0, len(where), 8))
                yield ipaddress.ip_address(raw), int(port, 16), words[9]


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:200]
    return "?"
