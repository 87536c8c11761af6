"""Client of remote registries: token authentication, redirects within bounds, errors in words."""
