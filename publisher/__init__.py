"""The half that holds signing keys: turns pulled images into directories of CVMFS repositories."""
