"""This machine's configuration of pip, for a pip inside a build: no address or path of it stands in the Dockerfile."""

from __future__ import annotations

import configparser
from ast import literal_eval
from pathlib import Path


def parse_pip_config(listing: str, certificates: str | None = None) -> configparser.ConfigParser:
    """Write down what pip is configured with here, so that a pip elsewhere reads it from a file.

    Args:
        listing: what `pip config list` prints; the lines that begin with :env: come from the environment and win.
        certificates: file of certificates to trust if that names none.
    """
    config = configparser.ConfigParser(interpolation=None)
    config["global"] = {"cert": certificates} if certificates else {}
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        section = "global" if section == ":env:" else section
        if section not in config:
            config.add_section(section)
        config[section][option] = " ".join(literal_eval(value).split())
    return config


def find_paths(config: configparser.ConfigParser) -> set[Path]:
    """Files and folders of this machine that pip needs by its configuration: certificates, wheels, indexes."""
    words = {word for section in config.values() for value in section.values() for word in value.split()}
    paths = {word: Path(word.removeprefix("file://")) for word in words}
    # The pages of an index in a folder may point at files beside it.
    return {
        path.parent if word.startswith("file://") else path
        for word, path in paths.items()
        if path.is_absolute() and path.exists()
    }
