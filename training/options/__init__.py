"""The parts of `training.config.Config`, by what they configure."""
