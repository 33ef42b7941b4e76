"""Who may ask: every route has a policy, and the Host, Origin and key of a request are checked."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from asgi import Answered, ask
from starlette.routing import Route
from transformers import AutoTokenizer

from everwarm.compose import create_app
from everwarm.config import Settings
from everwarm.job import EngineHealth, Job, ModelInfo, Sink
from everwarm.server.guard import MAX_HEADER_BYTES, MAX_HEADERS, Guard
from everwarm.server.route_policy import POLICIES, policy_of
from everwarm.text.notation import Notation
from everwarm.text.text_codec import TextCodec

KEY = "correct horse"
LISTED = "https://notes.example"


class Idle:
    """An engine that nobody asks."""

    model = ModelInfo("tiny", 1024, 49152, 1_700_000_000, 0, "llama")

    def submit(self, job: Job, sink: Sink) -> None:
        raise AssertionError("nothing here may reach the engine")

    def cancel(self, job_id: str) -> None: ...

    def tree(self, paths: object) -> list[object]:
        return []

    def stats(self) -> dict[str, int | float | str]:
        return {}

    def health(self) -> EngineHealth:
        return EngineHealth()


@pytest.fixture(scope="module")
def codec(smollm2: Path) -> TextCodec:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    return TextCodec(tokenizer, Notation.of(tokenizer))


@pytest.fixture(scope="module")
def keyed(codec: TextCodec, tmp_path_factory: pytest.TempPathFactory) -> Guard:
    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        api_key=KEY,
        allowed_hosts=("my.box",),
        allowed_origins=(LISTED,),
    )
    return create_app(Idle(), codec, settings)


@pytest.fixture(scope="module")
def keyless(codec: TextCodec, tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return create_app(Idle(), codec, Settings(home=tmp_path_factory.mktemp("home")))


def routes(app: Guard) -> list[Route]:
    inner: Any = app.app
    return [r for r in inner.routes if isinstance(r, Route)]


def test_every_route_has_a_policy(keyed: Guard) -> None:
    inner: Any = keyed.app
    declared = {p.path: set(p.methods) for p in POLICIES}
    assert len(inner.routes) == len(routes(keyed)) == len(POLICIES)
    for route in routes(keyed):
        assert route.path in declared, f"{route.path} has no policy"
        assert (route.methods or set()) - {"HEAD"} == declared[route.path]


def test_only_what_says_nothing_of_a_person_is_open() -> None:
    opens = {p.path for p in POLICIES if not p.needs_key}
    assert opens == {
        "/health",
        "/",
        "/api/hello",
        "/api/version",
        "/openapi.json",
        "/dashboard",
        "/web/{path:path}",
    }
    assert policy_of("/no/such/path").needs_key
    assert policy_of("/v1/models/org/name").needs_key


HOSTS = {
    "localhost": True,
    "127.0.0.1:8642": True,
    "[::1]:8642": True,
    "my.box": True,
    "evil.example": False,
    "localhost.evil.example": False,
    "127.0.0.1.evil.example": False,
    "evil-localhost": False,
}
ORIGINS = {
    None: True,
    "own": True,
    LISTED: True,
    "http://localhost:3000": False,
    "http://127.0.0.1:9999": False,
    "x://localhost": False,
    "https://localhost": False,
    "http://evil.example": False,
    "http://localhost.evil.example": False,
    "null": False,
    "file://": False,
    "http://notes.example": False,
}
KEYS: list[tuple[tuple[str, str] | None, bool]] = [
    (None, False),
    (("Authorization", f"Bearer {KEY}"), True),
    (("X-Api-Key", KEY), True),
    (("Authorization", f"Basic {KEY}"), False),
    (("Authorization", "Bearer wrong"), False),
    (("X-Api-Key", KEY + "x"), False),
    (("X-Api-Key", ""), False),
]
PATHS = [
    (
        p.path.replace("{name:path}", "tiny")
        .replace("{id}", "nobody")
        .replace("{path:path}", "js/lib.js"),
        p.methods[0],
        p.needs_key,
    )
    for p in POLICIES
]
NOWHERE = ("/v1/secrets", "GET", True)


def answers(path: str, method: str) -> set[int]:
    """What a path may answer to an empty body where the caller may ask."""
    if path == NOWHERE[0]:
        return {404}
    if path == "/api/sessions":
        return {200}
    return {400, 404} if "nobody" in path else {400} if method == "POST" else {200}


@pytest.mark.parametrize(("path", "method", "needs_key"), [*PATHS, NOWHERE])
def test_host_origin_and_key_on_every_route(
    keyed: Guard, path: str, method: str, needs_key: bool
) -> None:
    for (host, host_ok), (origin, origin_ok), (key, key_ok) in itertools.product(
        HOSTS.items(), ORIGINS.items(), KEYS
    ):
        headers = [("Host", host)]
        headers += [("Origin", origin if origin != "own" else f"http://{host}")] if origin else []
        headers += [key] if key else []
        got = ask(keyed, path, b"", method=method, headers=headers).status
        case = (host, origin, key)
        if not (host_ok and origin_ok):
            assert got == 403, case
        elif needs_key and not key_ok:
            assert got == 401, case
        else:
            assert got in answers(path, method), case


@pytest.mark.parametrize(("path", "method", "needs_key"), PATHS)
def test_without_a_key_setting_none_is_asked_for(
    keyless: Guard, path: str, method: str, needs_key: bool
) -> None:
    assert ask(keyless, path, b"", method=method).status in answers(path, method)


@pytest.mark.parametrize(
    "hosts",
    [[], ["localhost"] * 2, [""], ["["], ["evil.example", "localhost"], ["evil.example@localhost"]],
)
def test_exactly_one_host_is_asked_for(keyless: Guard, hosts: list[str]) -> None:
    answer = ask(keyless, "/health", method="GET", headers=[("Host", h) for h in hosts])
    assert answer.status == 400


def test_refusals_have_the_shape_of_their_route(keyed: Guard) -> None:
    anthropic = ask(keyed, "/v1/messages")
    assert (anthropic.status, anthropic.json["error"]["type"]) == (401, "authentication_error")
    openai = ask(keyed, "/v1/responses")
    assert (openai.status, openai.json["error"]["code"]) == (401, "invalid_api_key")
    assert openai.headers["www-authenticate"] == "Bearer"


def preflight(app: Guard, origin: str) -> Answered:
    headers = [
        ("Host", "localhost"),
        ("Origin", origin),
        ("Access-Control-Request-Method", "POST"),
    ]
    return ask(app, "/v1/messages", b"", method="OPTIONS", headers=headers)


def test_only_a_listed_page_may_read_answers(keyed: Guard) -> None:
    allowed = preflight(keyed, LISTED)
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (204, LISTED)
    for origin in ("http://localhost", "http://localhost:3000", "http://evil.example"):
        assert "access-control-allow-origin" not in preflight(keyed, origin).headers
    headers = [("Host", "localhost"), ("Origin", LISTED), ("X-Api-Key", "wrong")]
    refused = ask(keyed, "/v1/models", method="GET", headers=headers)
    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"] == LISTED


@pytest.mark.parametrize(
    "more",
    [[("x", "y")] * MAX_HEADERS, [("x", "y" * MAX_HEADER_BYTES)]],
    ids=["too many", "too long"],
)
def test_headers_have_limits(keyless: Guard, more: list[tuple[str, str]]) -> None:
    answer = ask(keyless, "/health", method="GET", headers=[("Host", "localhost"), *more])
    assert answer.status == 431


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", "/"),
        ("GET", "/"),
        ("HEAD", "/api/hello"),
        ("GET", "/api/version"),
        ("HEAD", "/health"),
    ],
)
def test_what_clients_probe_is_answered(keyed: Guard, method: str, path: str) -> None:
    answer = ask(keyed, path, method=method)
    assert answer.status == 200
    assert "tiny" not in answer.body.decode() or path == "/health"


@pytest.mark.parametrize(
    "path", ["/api/v1/models", "/api/tags", "/props", "/favicon.ico", "/web/nothing.js"]
)
def test_what_is_not_here_is_a_404_that_says_so(keyless: Guard, path: str) -> None:
    answer = ask(keyless, path, method="GET")
    assert answer.status == 404
    assert answer.json["error"]["message"]
    assert ask(keyless, "/v1/messages", method="GET").status == 405


def test_a_page_of_this_server_may_call_where_the_server_has_another_name(keyed: Guard) -> None:
    def status(origin: str) -> int:
        headers = [("Host", "my.box:8642"), ("Origin", origin), ("X-Api-Key", KEY)]
        return ask(keyed, "/v1/models", method="GET", headers=headers).status

    assert status("http://my.box:8642") == 200
    assert status("http://my.box:8643") == status("http://my.box.evil:8642") == 403


def status_of(app: Guard, method: str, path: str, **headers: str) -> int:
    given = [(k.replace("_", "-"), v) for k, v in {"Host": "127.0.0.1:8642", **headers}.items()]
    return ask(app, path, b"{}", method=method, headers=given).status


@pytest.mark.parametrize(
    ("host", "origin", "is_own"),
    [
        ("127.0.0.1:8642", "http://127.0.0.1:8642", True),
        ("localhost:8642", "http://LOCALHOST:8642", True),
        ("[::1]:8642", "http://[::1]:8642", True),
        ("localhost:80", "http://localhost", True),
        ("localhost", "http://localhost:80", True),
        ("127.0.0.1:8642", "http://localhost:8642", False),
        ("127.0.0.1:8642", "http://127.0.0.1:864", False),
        ("127.0.0.1:8642", "http://127.0.0.1", False),
        ("127.0.0.1:8642", "https://127.0.0.1:8642", False),
        ("127.0.0.1:8642", "x://127.0.0.1:8642", False),
        ("127.0.0.1:8642", "127.0.0.1:8642", False),
        ("127.0.0.1:8642", "", False),
    ],
)
def test_the_own_origin_is_the_address_to_the_port(
    keyless: Guard, host: str, origin: str, is_own: bool
) -> None:
    for method, path in (("GET", "/api/sessions"), ("POST", "/api/sessions")):
        status = status_of(keyless, method, path, Host=host, Origin=origin)
        assert status == (200 if is_own else 403)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "CROSS-SITE"])
def test_a_page_of_another_site_may_follow_a_link_here_and_no_more(
    keyless: Guard, site: str
) -> None:
    for method, path in (("GET", "/api/sessions"), ("POST", "/api/sessions"), ("POST", "/health")):
        assert status_of(keyless, method, path, Sec_Fetch_Site=site) == 403
    for path in ("/", "/dashboard", "/health"):
        assert status_of(keyless, "GET", path, Sec_Fetch_Site=site) == 200


def test_own_pages_and_listed_ones_may_call(keyed: Guard) -> None:
    key = {"X_Api_Key": KEY}
    for own in ({"Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"}):
        assert status_of(keyed, "GET", "/api/sessions", **own, **key) == 200
    listed = {"Origin": LISTED, "Sec_Fetch_Site": "cross-site"}
    assert status_of(keyed, "GET", "/api/sessions", **listed, **key) == 200


FORMS = ["text/plain", "TEXT/PLAIN;charset=UTF-8", "multipart/form-data; boundary=x",
         "application/x-www-form-urlencoded"]  # fmt: skip


@pytest.mark.parametrize("kind", FORMS)
def test_a_page_cannot_post_what_a_form_can(keyless: Guard, kind: str) -> None:
    own = {"Origin": "http://127.0.0.1:8642", "Sec_Fetch_Site": "same-origin"}
    for name, value in own.items():
        told = {name: value, "Content_Type": kind}
        assert status_of(keyless, "POST", "/api/sessions", **told) == 415
        assert status_of(keyless, "GET", "/api/sessions", **told) == 200
        json_too = told | {"Content_Type": "application/json"}
        assert status_of(keyless, "POST", "/api/sessions", **json_too) == 200


@pytest.mark.parametrize("kind", [*FORMS, "application/json"])
def test_a_program_is_asked_for_no_type(keyless: Guard, kind: str) -> None:
    assert status_of(keyless, "POST", "/api/sessions", Content_Type=kind) == 200


def test_models_are_listed_in_the_shape_that_is_asked_for(keyless: Guard) -> None:
    plain = ask(keyless, "/v1/models", method="GET").json
    assert (plain["object"], plain["data"][0]["max_model_len"]) == ("list", 1024)
    headers = [("Host", "localhost"), ("anthropic-version", "2023-06-01")]
    page = ask(keyless, "/v1/models", method="GET", headers=headers).json
    assert page["data"][0]["type"] == "model"
    assert page["data"][0]["created_at"] == "2023-11-14T22:13:20Z"
    assert (page["first_id"], page["has_more"]) == ("tiny", False)
    missing = ask(keyless, "/v1/models/nobody", method="GET", headers=headers)
    assert (missing.status, missing.json["error"]["type"]) == (404, "not_found_error")
