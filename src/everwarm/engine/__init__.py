"""The only importer of mlx and mlx_lm; what `compat.py` mends is mended before either is loaded."""

from everwarm.engine.compat import enable_fast_blas, keep_file_limits

keep_file_limits()
BLAS = enable_fast_blas()
