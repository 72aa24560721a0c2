"""What the words of the glossary mean: frozen classes and tables, no clock, no loop."""
