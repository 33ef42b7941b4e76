"""The user's data: conversations in SQLite. Not here: anything that may be deleted freely."""
