"""A model's text side: its tokenizer and chat template. No MLX, no weights."""
