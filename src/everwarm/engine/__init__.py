"""The importer of mlx and mlx_lm. What `compat.py` mends is mended before either is loaded."""

import everwarm.text  # noqa: F401  (quickens the import of transformers, which mlx_lm needs)
from everwarm.engine.compat import enable_fast_blas, keep_file_limits

keep_file_limits()
BLAS = enable_fast_blas()
