"""`python -m layercast`: the command, where its script is not on the path."""

from layercast.cli.main import main

if __name__ == "__main__":
    main()
