"""What holds for every test: none of them may fail because the machine is busy.

Waits for other processes and threads are in tests/waiting.py; clocks are passed in; work is counted, or measured in
CPU time with a wide bound. tests/test_no_wall_time.py looks for what would break this.
"""

from __future__ import annotations

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # some machines run a part of the tests, without hypothesis
    pass
else:
    # deadlines and most health checks are bounds on wall time
    settings.register_profile("busy machine", settings(), deadline=None, suppress_health_check=list(HealthCheck))
    settings.load_profile("busy machine")
