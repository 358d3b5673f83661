"""`python -m streamworker`."""

from streamworker.cli.main import main

if __name__ == "__main__":
    main()
