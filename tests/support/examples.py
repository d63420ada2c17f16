"""How many examples a property is tried with: as many as it says, or those of `--fast`."""

import hypothesis


def examples(most: int) -> hypothesis.settings:
    """Return settings for so many examples; under the profile `fast`, for no more than it has."""
    name = hypothesis.settings.get_current_profile_name()
    most = min(most, hypothesis.settings().max_examples) if name == "fast" else most
    return hypothesis.settings(max_examples=most, deadline=None)
