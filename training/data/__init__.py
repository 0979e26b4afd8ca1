"""Sets of pictures: made out of releases, examined, read, augmented, and given out as batches."""
