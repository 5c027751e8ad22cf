"""Moving a checkpoint between the twins' format and the tools of the ecosystem, and proof that nothing changed."""
