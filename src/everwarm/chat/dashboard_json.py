"""Bodies of the cache's routes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from everwarm.wire.strict import StrictObject

NodeId = Annotated[int, Field(ge=1, lt=2**53)]


class PinBody(StrictObject):
    """POST /api/cache/pin"""

    node: NodeId
    pinned: bool = True


class DropBody(StrictObject):
    """POST /api/cache/drop: a node and all behind it."""

    node: NodeId
