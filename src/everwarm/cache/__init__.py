"""The tree of everything that a model has read. No MLX, no text, no sessions."""
