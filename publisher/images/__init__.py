"""Where an image lives in a CVMFS repository, and the files that make its directory runnable."""
