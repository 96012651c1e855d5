from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# In CI the examples are the same each time, so that a change is judged by what it changed; at a desk they vary.
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.register_profile("desk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "desk")
