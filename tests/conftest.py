"""What holds for all tests."""

from hypothesis import settings

# Tests assert behaviour, not times: a busy machine must not make an example fail.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
