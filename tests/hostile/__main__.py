"""`python tests/hostile`: the campaign (see hostile_campaign)."""

import sys

from hostile_campaign import main

if __name__ == "__main__":
    sys.exit(main())
