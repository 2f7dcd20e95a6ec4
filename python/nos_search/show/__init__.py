"""A run is shown here: by its leaderboard, by a display while the search goes on, and in reports, drawings and
exports."""
