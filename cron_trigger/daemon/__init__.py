"""A server's life: it is put together, serves until a signal, and goes.

What outlives it is elsewhere: keepers run the scripts, systemd keeps the listening
socket, the history keeps everything else.

    systemd    the protocol of sd_notify and of the descriptor store
    listener   the listening socket, kept or new
    parts      composition: which part gets which
    place      its lock in the run folder, and the socket of messages
    life       start, serve, stop; signals
"""
