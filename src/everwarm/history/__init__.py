"""What is the user's: conversations in SQLite. Not here: anything that may be deleted freely."""
