"""Conformance tests that extensions run against themselves: subclass a case in your tests and pytest collects it."""
