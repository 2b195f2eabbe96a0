"""Properties are not timed: on a busy machine a first call may take seconds."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
