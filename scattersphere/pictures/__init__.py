"""Pictures of jobs and runs: SVG graphs and timelines, Mermaid, Graphviz, trees for a terminal. Pure functions."""
