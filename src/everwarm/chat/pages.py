"""The pages' files, kept in memory (about 1.5 MB) and read once, so that no request reads a file.

The files hold nobody's data, so they need no API key; what they show comes from `/api`, which does.
The policy of content is strict: only our own files, no inline script or style, no eval, no foreign
images; strings become markup only through DOMPurify's Trusted Types policy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from everwarm.server.route_policy import Endpoint

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "md": "text/plain; charset=utf-8",
    "woff2": "font/woff2",
}
CONTENT_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent. `etag`: of its content, so that an update is seen at once."""

    data: bytes
    type: str
    etag: str


def read_files() -> dict[str, File]:
    """All files under `web/`, by their path in it."""
    found: dict[str, File] = {}

    def walk(folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            ending = entry.name.rpartition(".")[2]
            if entry.is_dir():
                walk(entry, f"{prefix}{entry.name}/")
            elif ending in TYPES:
                data = entry.read_bytes()
                etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
                found[prefix + entry.name] = File(data, TYPES[ending], etag)

    walk(files("everwarm.chat") / "web", "")
    return found


class Pages:
    """Endpoints of the pages and of their files."""

    def __init__(self) -> None:
        self._files = read_files()

    async def chat(self, http: HttpRequest) -> Response:
        """The chat."""
        return self._send(http, self._files["index.html"])

    async def dashboard(self, http: HttpRequest) -> Response:
        """The dashboard."""
        return self._send(http, self._files["dashboard.html"])

    async def starting(self, http: HttpRequest) -> Response:
        """The page while the model loads, in place of any other."""
        return self._send(http, self._files["starting.html"])

    async def file(self, http: HttpRequest) -> Response:
        """A file of the pages."""
        file = self._files.get(http.path_params["path"])
        if file is None:
            raise HTTPException(404)
        return self._send(http, file)

    def _send(self, http: HttpRequest, file: File) -> Response:
        headers = {**HEADERS, "etag": file.etag, "vary": "Accept"}
        etags = [t.strip().removeprefix("W/") for t in _header(http, "if-none-match").split(",")]
        if file.etag in etags:
            return Response(status_code=304, headers=headers)
        return Response(file.data, 200, headers, file.type)


def wants_page(http: HttpRequest) -> bool:
    """Whether a browser asks for a page; clients that probe for a server get JSON."""
    return "text/html" in _header(http, "accept")


def _header(http: HttpRequest, name: str) -> str:
    return str(http.headers.get(name, ""))


def page_or(page: Endpoint, probe: Endpoint) -> Endpoint:
    """Answer browsers with a page, and all others with `probe`."""

    async def answer(http: HttpRequest) -> Response:
        if wants_page(http):
            return await page(http)
        response = await probe(http)
        response.headers["vary"] = "Accept"
        return response

    return answer
