"""What transformers says of its files as it is imported does not change by being found faster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from transformers.utils import import_utils

PROGRAM = """
import sys
{prelude}
import transformers
from transformers.utils.import_utils import define_import_structure
found = define_import_structure(transformers.__path__[0] + "/models")
print(sorted((sorted(map(str, k)), sorted((m, sorted(n)) for m, n in v.items()))
             for k, v in found.items()))
"""


def structure(prelude: str) -> str:
    """What a new process finds; the words of a warning are not part of it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(prelude=prelude)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_same_is_found() -> None:
    """Dies with the shim: where the first is as quick without it."""
    plain, ours = structure(""), structure("import everwarm.text")
    assert ours == plain and "AutoTokenizer" in plain


def test_it_is_in_place_here_and_behind_the_last_all_nothing_is_lost() -> None:
    import everwarm.text  # noqa: F401

    assert import_utils.fetch__all__.__module__ == "everwarm.text.transformers_import"
    files = [p for p in Path(transformers.__path__[0]).rglob("*.py") if p.name.startswith("token")]
    names = [name for p in files for name in import_utils.fetch__all__(p.read_text())]
    assert "LlamaTokenizer" in names or "PreTrainedTokenizerFast" in names or len(names) > 20


@pytest.mark.parametrize("text", ["", "__all__ = ['a']", "x\n__all__ = ['a']\n", "# __all__\nx"])
def test_texts_at_the_edges(text: str) -> None:
    quick = import_utils.fetch__all__
    assert quick(text) == quick.__closure__[0].cell_contents(text)
