"""Honest figures: training, generation and data speed of both twins and of their peers, and a roofline."""
