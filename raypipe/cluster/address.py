"""Whether a Ray cluster answers where RAY_ADDRESS points: Ray itself tries for many minutes before it says so."""

from __future__ import annotations

import os
import socket
import threading

from raypipe.errors import UserError

ANSWER_SECONDS = 6.0
"""A cluster that does not answer within this time, name look-up included, is taken for dead."""
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How an HTTP/2 conversation begins, gRPC's included (RFC 9113, 3.4)."""
SETTINGS = 4
"""Type of the frame with which a server must answer."""


def cluster_address() -> str | None:
    """The cluster to join; None where Ray is to be embedded."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", "local") else address


def check_answers(address: str) -> None:
    """Refuse an address where nothing, or something other than Ray, listens.

    Raises:
        UserError: naming the address, what was found there and the remedy; after `ANSWER_SECONDS` at the latest.
    """
    host, port = _place(address)
    said: list[str | None] = []
    thread = threading.Thread(target=lambda: said.append(_ask(host, port)), daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    reason = said[0] if said else f"no answer within {ANSWER_SECONDS:g} s"
    if reason is not None:
        raise _refusal(address, reason)


def _refusal(address: str, reason: str) -> UserError:
    return UserError(
        f"RAY_ADDRESS = {address}: {reason}; start the cluster, correct RAY_ADDRESS (host:port of its head), or unset "
        "it for a Ray of this machine"
    )


def _place(address: str) -> tuple[str, int]:
    """Host and port of ``address``; of ``auto``, the cluster that runs on this machine or was started here last."""
    plain = address.removeprefix("ray://")
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        try:
            plain = canonicalize_bootstrap_address("auto") or ""
        except ConnectionError:
            raise _refusal("auto", "no cluster runs on this machine") from None
    host, colon, port = plain.rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 65536) or "/" in host:
        raise _refusal(address, "not of the form host:port")
    return host.strip("[]"), int(port)


def _ask(host: str, port: int) -> str | None:
    """What is wrong there; None where a gRPC server answers."""
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as line:
            if os.environ.get("RAY_USE_TLS", "0") not in ("0", "", "false"):
                return None
            line.sendall(HELLO)
            frame = line.recv(4, socket.MSG_WAITALL)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None if len(frame) == 4 and frame[3] == SETTINGS else "what listens there is not Ray"
