# First of the files that set up the environment; they are read in the order of their names.
