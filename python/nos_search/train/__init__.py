"""Child networks are trained here: with one rule on one task, by the paper's learning-rate sweep."""
