from hypothesis import settings

# No deadline: nothing is timed. The same examples run everywhere; the fuzz test draws new ones.
settings.register_profile("layercast", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("layercast")
