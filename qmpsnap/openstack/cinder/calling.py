"""Whether a call to Nova that ended in an error can have reached compute."""

from __future__ import annotations

from typing import Final

_NEVER: Final = {"ConnectionRefusedError", "NewConnectionError", "ConnectTimeout", "gaierror"}
"""There was no connection. (`requests` and urllib3 wrap each other; the names stay.)"""
_CLIENT: Final = range(400, 500)


def was_refused(error: BaseException) -> bool:
    """
    Whether Nova has certainly not passed the request on.

    A 4xx is an answer given before the cast to the compute host. A 5xx, or a connection that broke
    off, leaves it open.
    """
    seen: BaseException | None = error
    while seen is not None:
        code = getattr(seen, "code", None) or getattr(seen, "http_status", None)
        if isinstance(code, int) and code in _CLIENT:
            return True
        if type(seen).__name__ in _NEVER or any(
            type(one).__name__ in _NEVER
            for one in (*seen.args, getattr(seen, "reason", None))
            if isinstance(one, BaseException)
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
