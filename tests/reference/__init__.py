"""An independent reference for the engine: oracle.py evaluates programs, strategies.py makes random ones."""
