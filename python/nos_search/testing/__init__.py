"""Extensions run these conformance tests against themselves: subclass a case in your tests, and pytest collects it."""
