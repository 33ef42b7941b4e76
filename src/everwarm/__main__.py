"""`python -m everwarm`: the same as the command `everwarm`."""

from everwarm.cli import main

if __name__ == "__main__":
    main()
