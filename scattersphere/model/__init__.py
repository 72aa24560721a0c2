"""What the words of the glossary mean: frozen classes and tables, no behaviour that needs a clock or a loop."""
