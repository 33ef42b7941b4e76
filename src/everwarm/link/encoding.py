"""Packets as bytes: the only home of msgspec.

A packet is [kind, about, value] in MessagePack. Token sequences are the bytes of their int32 in the
machine's own order: both ends are on one machine. Whatever does not have its kind's shape is
refused.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Final, get_args, get_origin

import msgspec
from msgspec import Raw, msgpack

from everwarm.errors import EverwarmError
from everwarm.link.packets import Packet


class BadPacket(ValueError):
    """These bytes are no packet."""


def encode(packet: Packet, about: str = "") -> bytes:
    """The bytes of a packet. Raises BadPacket where a value of it cannot be sent."""
    try:
        return _encoder.encode((type(packet).__name__, about, packet))
    except (TypeError, ValueError, OverflowError, NotImplementedError) as e:
        raise BadPacket(f"{type(packet).__name__} cannot be sent: {e}") from None


def decode(data: bytes) -> tuple[str, Packet]:
    """What a packet is about, and the packet. Raises BadPacket."""
    try:
        kind, about, body = _envelope.decode(data)
        decoder = _decoders.get(kind)
        if decoder is None:
            raise BadPacket("The kind of a packet is not known.")
        packet: Packet = decoder.decode(body)
        return about, packet
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, RecursionError) as e:
        raise BadPacket(f"A packet cannot be read: {e}") from None


def _plain(value: Any) -> Any:
    """What MessagePack has no type for."""
    if isinstance(value, array):
        return memoryview(value).cast("B")
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, EverwarmError):
        name = next(k.__name__ for k in type(value).__mro__ if k.__name__ in _errors)
        return {**vars(value), "message": value.message, "": name}
    raise NotImplementedError(f"a value of the type {type(value).__name__}")


def _made(kind: Any, value: Any) -> Any:
    """The other way."""
    kind = get_origin(kind) or kind
    if kind is array:
        tokens = array("i")
        tokens.frombytes(value)
        return tokens
    if kind is EverwarmError:
        return _error(value)
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind.__name__)


def _error(value: Any) -> EverwarmError:
    fields = msgspec.convert(value, dict[str, str | int | None])
    kind = _errors[str(fields.pop("", None))]
    error = kind.__new__(kind)
    EverwarmError.__init__(error, str(fields.pop("message")))
    vars(error).update(fields)
    return error


def _kinds(kind: type[EverwarmError]) -> Iterator[tuple[str, type[EverwarmError]]]:
    yield kind.__name__, kind
    for below in kind.__subclasses__():
        if below.__module__ == kind.__module__:
            yield from _kinds(below)


assert array("i").itemsize == 4 and sys.byteorder in ("little", "big")
_errors: Final = dict(_kinds(EverwarmError))
_encoder: Final = msgpack.Encoder(enc_hook=_plain)
_envelope: Final = msgpack.Decoder(tuple[str, str, Raw])
_decoders: Final = {
    kind.__name__: msgpack.Decoder(kind, dec_hook=_made) for kind in get_args(Packet)
}
