"""The only importer of mlx and mlx_lm. A fast BLAS is put in place before either is loaded."""

from everwarm.engine.compat import enable_fast_blas

BLAS = enable_fast_blas()
