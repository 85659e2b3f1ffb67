"""``python -m heirmark`` is the command line."""

from heirmark.cli import main

if __name__ == "__main__":
    main()
