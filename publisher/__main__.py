"""`python -m publisher`: the same as `debark-publisher`."""

from publisher.cli import main

main(prog_name="debark-publisher")
