"""From a folder or a data file to one list of sources, and from those to samples that share their class names."""
