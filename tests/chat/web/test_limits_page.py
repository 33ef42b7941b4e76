"""Both pages say calmly what does not hold for the loaded model, and nothing where all does."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import browsing, calm, running
from prompt_templates import REPEATS
from serving import TEMPLATE, save_talker


@pytest.mark.parametrize("template", [REPEATS["calls"], TEMPLATE], ids=["limits", "none"])
def test_the_pages_say_what_does_not_hold(tmp_path: Path, smollm2: Path, template: str) -> None:
    model = save_talker(tmp_path, smollm2, template=template)
    with running(model, tmp_path / "home") as server, browsing() as page:
        limits = server.call("GET", "/v1/models")[1]["data"][0]["everwarm"]["limits"]
        assert len(limits) == (template != TEMPLATE)
        for path, ready in (("/", ".empty h1"), ("/dashboard", ".facts")):
            page.goto(server.root + path)
            page.wait_for_selector(ready)
            page.wait_for_timeout(500)
            assert page.locator(".limits p").all_inner_texts() == limits
        calm(page)
