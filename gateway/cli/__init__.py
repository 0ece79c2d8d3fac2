"""The command line: argv → exit code. One file for each group of commands.

Results go to stdout, messages to stderr. Exit codes: 0 done, 1 found wrong, 2 usage, 69 the daemon is not running
where it must, 75 try again, 78 `run` cannot start with this gateway.toml.
"""
