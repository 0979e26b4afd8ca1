"""What the tests of the documents found goes under the results, so that nobody has to look for it."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed")
    told = [item for report in reports if report.when == "call" for item in report.user_properties]
    run = [value for name, value in told if name == "run"]
    marked = [value for name, value in told if name == "not run"]
    if run or marked:
        terminalreporter.section("blocks of the documents")
        terminalreporter.write_line(f"{len(run)} run, {len(marked)} not:")
        for line in marked:
            terminalreporter.write_line(line)
