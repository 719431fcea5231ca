"""The contract tests that a plugin's author runs on an environment, a policy or a reward.

from ttc_replay.replay.contract_checks import check_environment

for check in check_environment(MyWorld, Task("t1", "Count to 7.")):
    print(check.status, check.name, check.detail, check.hint)

Each function runs foreign code and raises nothing of what that raises: what happened is in the checks.
"""

from __future__ import annotations

from .contract_checks_base import Check, Status, worst
from .contract_checks_environment import check_environment
from .contract_checks_others import check_algorithm, check_exporter, check_reader
from .contract_checks_policy import check_policy
from .contract_checks_reward import check_reward

__all__ = [
    "Check",
    "Status",
    "check_algorithm",
    "check_environment",
    "check_exporter",
    "check_policy",
    "check_reader",
    "check_reward",
    "worst",
]
