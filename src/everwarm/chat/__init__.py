"""Conversations that the server keeps for people, and the pages that show them."""
