"""The publish queue and the state of images, layers and CVMFS repositories."""
