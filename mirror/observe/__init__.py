"""From pulls to publish requests, without ever making a pull wait."""
