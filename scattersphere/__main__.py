"""`python -m scattersphere`."""

from scattersphere.cli import main

main()
