"""The larger commands of `unihead-train`, one a file, and the options that several have."""
