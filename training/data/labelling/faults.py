"""What stops the labelling of a folder."""

from __future__ import annotations


class LabellingError(ValueError):
    """A teacher cannot be used, or labels cannot be written; one sentence that names the file and what is wanted."""
