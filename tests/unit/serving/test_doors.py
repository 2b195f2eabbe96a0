"""A listening socket that several processes inherited."""

import os
import socket

from bentos.recommender.worker import DOORS, doors


def test_another_worker_that_starts_never_makes_the_listening_of_those_that_serve_block():
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        serving = doors(socket.socket(fileno=os.dup(inherited.fileno())))
        starting = doors(socket.socket(fileno=os.dup(inherited.fileno())))
        assert len(serving) == len(starting) == DOORS
        assert not any(os.get_blocking(door.fileno()) for door in (inherited, *serving, *starting))
        for door in (*serving, *starting):
            door.close()
