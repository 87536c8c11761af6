"""Getting content that is not there yet: once for everybody, streamed to all while it arrives."""
