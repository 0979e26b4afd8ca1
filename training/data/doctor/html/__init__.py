"""The doctor's findings as one HTML page: charts, contact sheets, and the pieces that other pages borrow."""
