"""What holds for every test: none of them may fail because the machine is busy.

Waits for other processes and threads are in tests/waiting.py; clocks are passed in; work is counted, or measured in
CPU time with a wide bound. tests/test_no_wall_time.py looks for what would break this.
"""

from __future__ import annotations

import pytest

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # some machines run a part of the tests, without hypothesis
    pass
else:
    # deadlines and most health checks are bounds on wall time
    settings.register_profile("busy machine", settings(), deadline=None, suppress_health_check=list(HealthCheck))
    settings.load_profile("busy machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several workers each begins with its share of the slow tests, so that none has a long one left at the end.

    `--dist worksteal` gives each worker a stretch of the list, and what one has left over to another.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers == 1:
        return  # in the order of the files, which is easier to follow
    slow = [item for item in items if item.get_closest_marker("slow")]
    fast = [item for item in items if not item.get_closest_marker("slow")]

    def share(tests: list[pytest.Item], worker: int) -> list[pytest.Item]:
        return tests[len(tests) * worker // workers : len(tests) * (worker + 1) // workers]

    items[:] = [item for worker in range(workers) for tests in (slow, fast) for item in share(tests, worker)]
