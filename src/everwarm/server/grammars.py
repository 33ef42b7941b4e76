"""Compiles a request's grammar before its job begins, on threads of its own, in bounded time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from everwarm.errors import RequestError
from everwarm.job import Engine, Grammar
from everwarm.prompt.grammars.reply_grammar import Wanted
from everwarm.server.engine_state import until_ready

LONGEST_S: Final = 20.0
"""A grammar takes milliseconds, but the tables of a large vocabulary take seconds, once."""


class Compiler:
    """Compiles grammars. Lives on the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="everwarm-grammar")

    async def compiled(self, wanted: Wanted | None) -> Grammar | None:
        """Compile a grammar, so that the engine can follow it. Raises RequestError, which names the
        field that cannot be honoured, and the reason."""
        if wanted is None:
            return None
        whole = wanted.parts[-1].param if wanted.parts else "tool_choice"
        texts = [(p.param, p.text) for p in wanted.parts]
        texts += [(whole, wanted.grammar.reply), (whole, wanted.grammar.answer)]
        await until_ready(self._engine)  # a grammar takes no time while there is nobody to make it
        loop = asyncio.get_running_loop()
        for param, text in texts:
            try:
                compiling = loop.run_in_executor(self._threads, self._engine.check, text)
                await asyncio.wait_for(compiling, LONGEST_S)
            except ValueError as e:
                raise RequestError(f"{param} cannot be honoured: {e}.", param=param) from e
            except TimeoutError as e:
                raise RequestError(
                    f"{param} takes more than {LONGEST_S:.0f} s to be made a grammar. Simplify it.",
                    param=param,
                ) from e
        return wanted.grammar
