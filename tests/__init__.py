"""The tests. A package, so that a package of this name that some wheel has installed is not taken for it."""
