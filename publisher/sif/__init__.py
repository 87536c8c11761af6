"""Singularity's image files: what is in one, and the root file system of it."""
