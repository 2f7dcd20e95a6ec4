"""Optimizers for torch, and the library of named rules."""
