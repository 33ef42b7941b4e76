"""A model's text side: its tokenizer and chat template. No MLX, no weights.

transformers would otherwise say at its import that there is no PyTorch, which nothing here needs.
"""

import os

from everwarm.text.transformers_import import quicken

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
quicken()
