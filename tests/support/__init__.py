"""What tests of several kinds share: real peers, the real daemon as a process, messages to send."""
