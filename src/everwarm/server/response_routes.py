"""The routes of stored responses: read, delete, list the input, cancel."""

from __future__ import annotations

from collections.abc import Container

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from everwarm.errors import RequestError
from everwarm.server.response_store import ResponseStore
from everwarm.server.route_policy import Endpoint
from everwarm.wire import sse
from everwarm.wire.stored_items import include_of, items_page


class ResponseRoutes:
    """The endpoints. They live on the event loop. `running`: the ids of responses under way."""

    def __init__(self, store: ResponseStore, namespace: str, running: Container[str]) -> None:
        self._store, self._namespace, self._running = store, namespace, running

    def endpoints(self) -> dict[str, Endpoint]:
        """The endpoints by path."""
        one = "/v1/responses/{id}"
        return {
            one: self._one,
            f"{one}/input_items": self._input_items,
            f"{one}/cancel": self._cancel,
        }

    async def _one(self, http: HttpRequest) -> Response:
        """Read a response, or delete it."""
        response_id = http.path_params["id"]
        if http.method == "DELETE":
            self._store.delete(self._namespace, response_id)
            return _json(sse.dump({"id": response_id, "object": "response", "deleted": True}))
        found = self._store.get(self._namespace, response_id)
        if http.query_params.get("stream", "false").lower() not in ("false", "0"):
            raise RequestError(
                "stream: a stored response is complete and is not streamed again. Leave it out.",
                param="stream",
            )
        return _json(found.json(include_of(http.query_params.multi_items())))

    async def _input_items(self, http: HttpRequest) -> Response:
        found = self._store.get(self._namespace, http.path_params["id"])
        return _json(items_page(found.input, http.query_params.multi_items()))

    async def _cancel(self, http: HttpRequest) -> Response:
        """Answer as OpenAI does: only what runs in the background can be cancelled."""
        response_id = http.path_params["id"]
        if response_id not in self._running:
            self._store.get(self._namespace, response_id)
        raise RequestError(
            "Only a response made with background: true can be cancelled, and there are none here. "
            "Close the connection of one that is being streamed.",
            param="response_id",
        )


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
