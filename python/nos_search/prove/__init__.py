"""Whether a rule is better than tuned optimizers, on tasks that no search has seen, is found out here.

families.py says which tasks; cells.py what is trained on each, space.py what is tuned and tuning.py how; protocol.py
does it; statistics.py and verdict.py say what the scores are worth.
"""
