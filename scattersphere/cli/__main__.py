"""`python -m scattersphere.cli`, where the script is not on the path."""

from scattersphere.cli import main

main()
