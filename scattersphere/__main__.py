"""`python -m scattersphere`: the command line."""

from scattersphere.cli import main

main()
