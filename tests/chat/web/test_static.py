"""The pages' files: what is served, with which policy, and that libraries are what they claim."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from asgi import Answered, ask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from everwarm.chat.pages import TYPES, Pages, read_files, wants_page
from everwarm.server.route_policy import policy_of

WEB = Path(__file__).parents[3] / "src" / "everwarm" / "chat" / "web"
OURS = sorted(p for folder in ("js", "css") for p in (WEB / folder).iterdir())
PAGES = sorted(WEB.glob("*.html"))
PACKAGES: list[dict[str, Any]] = json.loads((WEB / "vendor" / "vendor.json").read_text())[
    "packages"
]
FILES: list[dict[str, Any]] = [f for p in PACKAGES for f in p["files"]]
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


@pytest.fixture(scope="module")
def app() -> Starlette:
    pages = Pages()

    async def root(http: Request) -> Response:
        return await pages.chat(http) if wants_page(http) else Response("{}")

    routes = [
        Route("/", root),
        Route("/dashboard", pages.dashboard),
        Route("/web/{path:path}", pages.file),
    ]
    return Starlette(routes=routes)


def get(app: Starlette, path: str, **headers: str) -> Answered:
    given = [("Host", "localhost"), *((k.replace("_", "-"), v) for k, v in headers.items())]
    return ask(app, path, method="GET", headers=given)


@pytest.mark.parametrize("path", ["/", "/dashboard"])
def test_a_page_has_a_strict_content_policy(app: Starlette, path: str) -> None:
    answer = get(app, path, accept=BROWSER)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy and "http" not in policy and "blob" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_who_does_not_ask_for_a_page_gets_none(app: Starlette) -> None:
    assert get(app, "/").body == get(app, "/", accept="application/json").body == b"{}"
    assert get(app, "/", accept="*/*").body == b"{}"


def test_a_file_that_is_known_is_not_sent_again(app: Starlette) -> None:
    first = get(app, "/web/js/lib.js")
    assert first.headers["content-type"].startswith("text/javascript")
    again = get(app, "/web/js/lib.js", if_none_match=f'"other", W/{first.headers["etag"]}')
    assert (again.status, again.body) == (304, b"")
    assert get(app, "/web/js/lib.js", if_none_match='"other"').body == first.body


@pytest.mark.parametrize("path", ["js/none.js", "../server/app.py", "__init__.py", "", "js", "%2e"])
def test_nothing_else_is_served(app: Starlette, path: str) -> None:
    answer = get(app, f"/web/{path}")
    assert answer.status == 404
    assert answer.headers["content-type"].startswith("text/plain")


def test_pages_and_files_need_no_key_and_data_does() -> None:
    assert not policy_of("/web/vendor/fonts/KaTeX_Main-Regular.woff2").needs_key
    assert not policy_of("/dashboard").needs_key
    assert all(policy_of(p).needs_key for p in ("/api/sessions", "/api/dashboard", "/webx", "/web"))


def test_every_file_is_served_with_its_type() -> None:
    on_disk = {str(p.relative_to(WEB)) for p in WEB.rglob("*") if p.is_file()}
    assert set(read_files()) == on_disk
    assert {f.type for f in read_files().values()} <= set(TYPES.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_a_page_has_no_inline_script_or_style_and_its_files_are_here(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", text) == []
    for path in re.findall(r'(?:href|src)="/web/([^"]+)"', text):
        assert (WEB / path).is_file(), path


@pytest.mark.parametrize("path", OURS, ids=lambda p: p.name)
def test_our_files_are_small_and_make_no_markup_of_strings(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    unsafe = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://"
    )
    assert re.findall(unsafe, text) == []
    for name in re.findall(r'(?:from|import\() ?"(\.[^"]+)"', text):
        assert (path.parent / name).is_file(), name


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f["to"]))
def test_a_library_is_what_was_recorded(file: dict[str, Any]) -> None:
    data = (WEB / "vendor" / file["to"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == file["sha256"]
    assert ("imports" in file) or file["sha256"] == file["published_sha256"]


def test_every_library_is_listed_with_version_and_licence() -> None:
    vendor = WEB / "vendor"
    on_disk = {str(p.relative_to(vendor)) for p in vendor.rglob("*") if p.is_file()}
    assert on_disk - {"vendor.json"} == {f["to"] for f in FILES}
    for package in PACKAGES:
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
        assert package["licence"]
        assert any(f["to"].startswith("licences/") for f in package["files"]), package["name"]
