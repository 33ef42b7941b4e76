"""The commands of `everwarm bench`."""
