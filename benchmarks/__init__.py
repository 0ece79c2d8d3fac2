"""Our figures beside the peers', in one run. Not tests: nothing here is timed by `make test`."""
