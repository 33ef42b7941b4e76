"""An upstream shim: let `import transformers` take half of its time.

As it is imported, transformers looks for `__all__` in each of more than a thousand files, a line at
a time; that was a fifth of what the start of a process took. It dies when transformers ships that
list, or finds it faster (`tests/text/test_transformers_import.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

_MODULE: Final = "transformers.utils.import_utils"


class _Quickener(MetaPathFinder):
    """Finds that one module as Python would, and mends it once it has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            run = loader.exec_module

            def run_and_mend(module: Any) -> None:
                run(module)
                if hasattr(module, "fetch__all__"):
                    module.fetch__all__ = behind_the_last(module.fetch__all__)

            loader.exec_module = run_and_mend
        return spec


def behind_the_last(fetch: Any) -> Any:
    """The same function, given only what it would come to: the text from the last `__all__` on."""

    def quick(text: str) -> Any:
        return fetch(text[text.rfind("\n__all__") + 1 :])

    return quick


def quicken() -> None:
    """To be called before transformers is imported. Idempotent; later it changes nothing."""
    if _MODULE not in sys.modules and not any(isinstance(f, _Quickener) for f in sys.meta_path):
        sys.meta_path.insert(0, _Quickener())
