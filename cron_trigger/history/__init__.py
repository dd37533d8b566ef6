"""What happened, and what is planned: the only room that knows SQLite.

A change is one transaction: a row and the event that tells it, or neither.  It goes to
the history's file; where that can't be written, to a second one beside the PID files,
from which it moves as soon as it can.  Nobody outside sees which of the two was asked,
and nothing raises for a fault of a disk.  Modules, each on those above it:

    owner     whose a state folder is: one server's
    schema    the tables; how a record becomes a row and a row a record
    ids       numbers, given once by whichever process; the order of writers
    second    the second history, with its room
    joined    both read as one
    file      the history's file: opened, lost, cut short, of another version
    database  which of the two is asked; faults, and how they heal
    clock     how much time has passed, by what servers have seen of it
    events    what `/events` tells; idempotency keys
    plans     scheduled triggers
    runs      runs as they are recorded
    schedules up to when each schedule was judged
    answers   what can be asked about runs
    pruning   what is old goes
    store     all of it, as the other rooms have it
"""
