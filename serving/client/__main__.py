"""The command line of `python -m serving.client`."""

from __future__ import annotations

import sys

from serving.client.command import main

sys.exit(main())
