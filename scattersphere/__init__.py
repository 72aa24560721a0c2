"""Scattersphere: an embeddable job engine."""
