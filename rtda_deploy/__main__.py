"""``python -m rtda_deploy``."""

from rtda_deploy.cli import main

main()
