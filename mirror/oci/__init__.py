"""The words of the OCI distribution and image specifications, as pure values: no I/O, no clock, no event loop."""
