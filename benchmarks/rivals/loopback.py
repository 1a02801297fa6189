"""Keeps a run on this machine: some servers open ports on every interface and offer no setting against it."""

import ctypes
import fcntl
import os
import socket
import struct

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def keep_to_loopback() -> str:
    """From here on this process and those that it starts see no network interface but loopback.

    It takes the right to make network namespaces (root has it). Call it before there are other threads.

    Returns:
        "", or why it could not be done.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        return os.strerror(ctypes.get_errno())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    return ""
