"""Linux: what the program asks of the kernel and of the host, and nothing of crons.

Locks by flock, keepers by `sh`, other processes by /proc and pidfd, users by their
database, the networks of this host's containers, and one loop on epoll that waits for
all of it.  What another user's process can write about itself is never read here.

    shortage    what no descriptor is free for is asked again
    users       users, and what a script finds around itself
    processes   processes and families; signals that reach the right one
    lock        PID files: the lock, and what a keeper wrote
    keeper      the shell that runs a script and outlives us
    loop        the one thread that waits: descriptors, moments, calls
    messages    the socket on which `run NAME` tells a server of its run
    networks    names of this host, and the networks of its containers
    rates       how often something happened, in bounded room
"""
