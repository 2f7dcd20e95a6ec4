"""Training of child networks: one rule on one task, with the paper's learning-rate sweep."""
