"""What both twins must agree on: configuration, names, numbers, files. No machine-learning framework is imported here."""
