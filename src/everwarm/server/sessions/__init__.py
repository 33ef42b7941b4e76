"""Conversations that the server holds: their turns, their routes."""
