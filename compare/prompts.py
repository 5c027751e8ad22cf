"""Beginnings of rows for generation: our own, Arabic script alone and mixed with French."""

PROMPTS = (
    "واش راك",
    "اليوم نضت بكري و",
    "راني رايح للسوق باش",
    "cette année راني حاب",
)
"""Prompts."""
