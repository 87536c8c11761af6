"""Hostile tar streams to trees of entries; whiteouts; the merge of layers to a root file system."""
