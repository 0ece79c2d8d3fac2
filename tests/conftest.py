"""For every kind of test. Real servers and the whole daemon are in tests/support and the folders' own conftest."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The machine runs other tests beside these: how long one example takes says nothing about the code
settings.register_profile("gateway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gateway")
