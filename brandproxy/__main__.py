"""`python -m brandproxy` is the command `brandproxy`."""

from brandproxy.cli import main

if __name__ == "__main__":
    main()
