"""``python -m rtda_deploy.cli``."""

from rtda_deploy.cli import main

main()
