"""One hypothesis profile for every test: the same examples each run, so that a failure is a change of the code."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite", derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("suite")
