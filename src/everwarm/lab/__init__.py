"""Measuring: benchmarks, recorded sessions played again, plots, and their commands."""
