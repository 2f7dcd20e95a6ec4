"""What every back-end must do, as calls and the ways of making them; tests/backend/test_conformance.py asserts it.

`call` says what a call is, `cases` which calls there are, `backends` how each back-end is called. A back-end that does
not run in this process answers by ``python -m tests.backend.conformance``.
"""
