"""Test suites that ship with the package, for those who write optimizers of their own. They need pytest and torch."""
