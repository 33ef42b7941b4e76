"""Every exception of everwarm, one tree.

    EverwarmError
    ├─ RequestError      theirs: 4xx, carries the parameter's name
    │  ├─ TooLong        400: more than the model, or the memory, holds
    │  ├─ NotFound       404
    │  ├─ Conflict       409: not while something else is going on
    │  └─ Forbidden      401 or 403
    ├─ EngineError       ours: 5xx
    │  ├─ Overloaded     503: stopping, or the queue is full
    │  ├─ EngineDied     500: its process ended while the job ran; ask again
    │  └─ PromptRefused  503: this prompt has ended the engine several times
    ├─ CacheFault        never leaves `cache/`: a fault in the cache is a miss
    ├─ ConfigError       a setting or a model directory that cannot be used; exit code 2
    └─ Cancelled         no error: the client is gone, or somebody pressed stop

A message gives the fact, the limit and the way out, and never repeats raw client input.
"""


class EverwarmError(Exception):
    """The root. `message` is one sentence or two, fit to be shown to a person."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(EverwarmError):
    """The request cannot be honoured. `param` names the field, `code` is machine-readable."""

    status = 400

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class TooLong(RequestError):
    """More tokens than the model reads or the memory holds. Clients shorten and ask again."""

    def __init__(self, message: str, *, param: str | None = "messages") -> None:
        super().__init__(message, param=param, code="context_length_exceeded")


class NotFound(RequestError):
    """What the request names does not exist."""

    status = 404


class Conflict(RequestError):
    """Right in itself, but not now: something else is going on at the same place."""

    status = 409


class Forbidden(RequestError):
    """The caller may not do this: 401 for a missing or wrong key, 403 for a foreign origin."""

    def __init__(self, message: str, *, status: int = 403, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.status = status


class EngineError(EverwarmError):
    """The engine failed at a request that was right."""

    status = 500


class Overloaded(EngineError):
    """Not now: the server is stopping or its queue is full. Try again after `retry_after_s`."""

    status = 503

    def __init__(self, message: str, *, retry_after_s: int = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineDied(EngineError):
    """The engine's process ended while the job ran. It starts again, and the conversation that was
    on disk is warm: the same request can be sent again."""


class PromptRefused(EngineError):
    """The engine died each time it ran this prompt, the last time with no other beside it.

    It is refused for `retry_after_s` more seconds.
    """

    status = 503

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CacheFault(EverwarmError):
    """A piece of the cache is missing or damaged. Caught inside `cache/`, where it is a miss."""


class ConfigError(EverwarmError):
    """A setting, a flag or a model directory cannot be used. The command line exits with 2."""


class MissingMlx(ConfigError):
    """MLX is not installed, or cannot be loaded on this computer: no model runs, all else does."""


class Cancelled(EverwarmError):
    """The work was stopped on purpose. What was read so far is kept."""
