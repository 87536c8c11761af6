"""The HTTP face: path grammar, handlers, hints, error bodies."""
