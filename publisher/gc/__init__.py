"""Garbage collection: finds and deletes what no kept revision of a repository needs; `collect.collect` is the way in."""
