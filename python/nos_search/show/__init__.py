"""What is shown of a run: the leaderboard, the display of a search that goes on, reports, drawings and exports."""
