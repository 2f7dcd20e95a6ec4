"""What is a rule good at, and where does it fail? A battery of small problems, each hard in one way only."""
