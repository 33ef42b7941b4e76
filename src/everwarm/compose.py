"""Puts one server together: the only place that knows the core and its wings together.

Loading this takes a second or two, so `serve.py` does it once requests are taken.
"""

from __future__ import annotations

from everwarm.chat import openapi as chat_openapi
from everwarm.chat.dashboard import Board
from everwarm.chat.pages import Pages, page_or
from everwarm.chat.recorder import SessionRecorder
from everwarm.chat.routes import SessionRoutes
from everwarm.chat.session_store import SessionStore
from everwarm.chat.session_turns import SessionTurns
from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.history.database import Database
from everwarm.job import Engine
from everwarm.replies import ReplyStore
from everwarm.server.answer import namespace_of
from everwarm.server.app import Core
from everwarm.server.guard import Guard
from everwarm.wire import openapi


def create_app(
    engine: Engine,
    codec: Codec,
    settings: Settings,
    store: ReplyStore | None = None,
    history: Database | None = None,
) -> Guard:
    """The whole HTTP side of one model. `store`: where replies outlive the process.

    `history`: the database of sessions; None: one in the home directory, made at first use. Raises
    ConfigError where the chat template cannot be used.
    """
    core = Core.start(engine, codec, settings, store)
    database = history or Database(settings.home / "history.db")
    recorder = SessionRecorder(history) if history and settings.record else None
    served = core.endpoints(database, recorder)
    sessions, pages = SessionStore(database), Pages()
    turns = SessionTurns(sessions, core.turns, namespace_of(settings))
    chat = {
        **SessionRoutes(turns, core.bodies).endpoints(),
        **Board(core.turns, sessions, core.bodies).endpoints(),
        "/": page_or(pages.chat, served["/"]),
        "/dashboard": pages.dashboard,
        "/web/{path:path}": pages.file,
    }
    return core.app({**served, **chat}, openapi.CONTENTS | chat_openapi.CONTENTS)
