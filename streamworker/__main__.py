"""`python -m streamworker`."""

from streamworker.cli.entry import main

if __name__ == "__main__":
    main()
