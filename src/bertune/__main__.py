"""`python -m bertune`, so that `accelerate launch -m bertune ...` works too."""

from bertune.cli import main

if __name__ == "__main__":
    main()
