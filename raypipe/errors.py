"""The one exception that means "the user can mend this", and what no message may tell: the passwords in a URI."""

import re
from typing import Any
from urllib.parse import quote, unquote


class UserError(Exception):
    """Bad input or an unusable environment, told in one line: what is wrong (file, key, value) and what is allowed.

    The command line prints it without a traceback and exits with status 2. Passwords of URIs in it are hidden.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


def first_line(error: BaseException) -> str:
    """What an exception says first, on one line; the name of its class where it says nothing."""
    return _lines(error)[0][:300]


def last_line(error: BaseException | str) -> str:
    """What an exception, or a traceback, says at its end: what it is about."""
    return _lines(error)[-1].removeprefix("raypipe.errors.UserError: ")


def _lines(error: BaseException | str) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]


MARK = "***"

_START = re.compile(r"://|%3A%2F%2F", re.IGNORECASE)
_CONTAINERS = re.compile(r"(abfss?|wasbs?)://$")  # Schemes in which a name before ``@`` is a place
_QUERY = re.compile(
    r"([?&;][^=&;\s\"<>]*(?:pass|pwd|secret|token|key|sig|cred|auth|odbc_connect)[^=&;\s\"<>]*=)"
    r"[^&;\s\"<>#]*?(?=[]:,.)']*(?:[&;\s\"<>#]|$))",  # not the full stop of the sentence that quotes it
    re.IGNORECASE,
)
SHORT = 4  # A known secret of fewer letters is only hidden where it stands in its URI: it could be part of any word


def redact(text: str, *uris: str | None) -> str:
    """``text`` with every password, token and key of a URI in it as ``***``.

    A URI loses all between ``://`` and ``@``, and the values of such query keys as ``access_key`` or ``sig``. The
    secrets of ``uris``, which the text is about, are hidden wherever they stand in it, encoded or not.
    """
    for start in reversed(list(_START.finditer(text))):
        head, tail = text[: start.end()], text[start.end() :]
        rest = re.split(r"[\s\"<>]", tail, maxsplit=1)[0]  # passwords are not always encoded as they should be
        if length := _userinfo(head, rest):
            text = head + MARK + tail[length:]
    text = _QUERY.sub(rf"\1{MARK}", text)
    known = {secret for uri in uris if uri for secret in secrets_of(uri)}
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, MARK)
    return text


def redact_all(value: Any) -> Any:
    """`redact` on every text in a JSON-like value."""
    if isinstance(value, dict):
        return {key: redact_all(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(part) for part in value]
    return redact(value) if isinstance(value, str) else value


def secrets_of(uri: str) -> set[str]:
    """The passwords and keys of a URI, as they stand there, decoded, and encoded."""
    found = set()
    for start in _START.finditer(uri):
        rest = uri[start.end() :]
        found.add(rest[: _userinfo(uri[: start.end()], rest)].partition(":")[2])
    found |= {match.group()[len(match.group(1)) :] for match in _QUERY.finditer(uri)}
    spelt = found | {unquote(secret) for secret in found} | {quote(unquote(secret), safe="") for secret in found}
    return {secret for secret in spelt if len(secret) >= SHORT}


def _userinfo(head: str, rest: str) -> int:
    """How much of ``rest``, behind the ``://`` of ``head``, is ``user:password``: up to its last ``@``, 0 without."""
    if not head.endswith("://"):  # a URI in the query of another, encoded
        return max(rest.partition("&")[0].rfind("%40"), 0)
    first = re.split("[/?#@]", rest, maxsplit=1)[0]
    if ":" in first:
        return max(rest.rfind("@"), 0)
    is_place = _CONTAINERS.search(head) and rest.count("@") == 1
    return 0 if is_place or not rest[len(first) :].startswith("@") else rest.rfind("@")
