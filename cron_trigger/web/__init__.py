"""HTTP: from bytes on a connection to a trigger, and from what happened to an answer.

A request comes up this room once, and its answer goes down once:

    server.accept -> reader -> access -> fields -> api -> (runs, history) -> sender

A connection has a thread of its own; strangers are answered by the accepting one.
Refusals are raised at any depth and turned into an answer in one place, `Handler`.
`places` bounds how much of everything a client may have, and how many of its threads
work at once.  Streams of events leave their threads and are served by the loop's.

    wire       a request as it was read, an answer as it will be sent
    reader     bytes become requests, strictly and within a time
    routes     the one table of what exists and what each address needs
    fields     what queries, bodies and their headers say
    access     who may connect, and who may do what
    places     how much at once, and how much of it for one client
    sender     answers become bytes, whole or as a stream
    page       the dashboard's files, and the interface's description
    views      the crons as clients see them, kept until something changes
    metrics    figures for Prometheus
    outputs    what a run printed, whole or live
    events     what happens, as it happens
    notifier   the ends of runs, to one address elsewhere
    api        what each route does
    server     connections, from the first packet to their end
"""
