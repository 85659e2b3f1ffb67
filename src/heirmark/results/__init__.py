"""Results as pure data: verdicts, rows and figures over seeds, as grids write and reports read them. Nothing here needs torch."""
