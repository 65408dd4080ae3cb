"""What each drone knows of the others: positions that motion capture shares, with the instants at which they came.

The firmware's peer_localization.c for R drones: a table of ten places per drone; an id keeps its place for ever, and
what no longer fits is dropped. Id 0 is an empty place, so drones are numbered from 1 as Crazyswarm's radio addresses
are (the last byte).
"""

import numpy as np
from numpy.typing import NDArray

CAPACITY = 10
"""PEER_LOCALIZATION_MAX_NEIGHBORS."""


def drone_id(index: int) -> int:
    """The id of the emulated drone `index` (0, 1, ...): the last byte of its radio address."""
    return index + 1


class Peers:
    """The peer tables of R drones, as planes so that all of them are read at once."""

    def __init__(self, num_robots: int, capacity: int = CAPACITY) -> None:
        self.ids = np.zeros((num_robots, capacity), dtype=np.int64)
        """0: an empty place."""
        self.position = np.zeros((num_robots, capacity, 3))
        """m, world."""
        self.heard_ms = np.zeros((num_robots, capacity), dtype=np.int64)
        """When the position came."""
        self._places: list[dict[int, int]] = [{} for _ in range(num_robots)]

    def tell(self, index: int, ident: int, position: tuple[float, float, float], now_ms: int) -> bool:
        """Drone `index` hears where the drone of that id is; False where its table is full."""
        places = self._places[index]
        place = places.get(ident)
        if place is None:
            if ident == 0 or len(places) == self.ids.shape[1]:
                return False
            place = places[ident] = len(places)
            self.ids[index, place] = ident
        self.position[index, place] = position
        self.heard_ms[index, place] = now_ms
        return True

    def forget(self, index: int) -> None:
        """Empties the table of one drone: it has restarted."""
        self._places[index].clear()
        self.ids[index] = self.heard_ms[index] = 0
        self.position[index] = 0.0

    def known(self, index: int) -> int:
        """How many others drone `index` has ever heard of."""
        return len(self._places[index])

    def age_ms(self, now_ms: int) -> NDArray[np.int64]:
        """Age of every place (R, capacity); meaningless where the id is 0."""
        return now_ms - self.heard_ms

    def oldest_ms(self, index: int, now_ms: int) -> int:
        """Age of the oldest position in the table of one drone, 0 for an empty table."""
        n = self.known(index)
        return int(now_ms - self.heard_ms[index, :n].min()) if n else 0
