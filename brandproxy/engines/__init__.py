"""Floor 2, the analytics engine: where events end up and are counted.

- `base`      the contract both homes keep, the event row, and `open_engine`
- `dialect`   the few places where the engines' SQL differs
- `duckdb`    the home on one machine: one file in the data directory, one owner process
- `clickhouse` the home of a fleet
- `copying`   moving history from one home to another
"""

from brandproxy.engines.base import COLUMNS, Engine, EngineBusy, Row, embedded, open_engine
from brandproxy.engines.dialect import Dialect

__all__ = ["COLUMNS", "Dialect", "Engine", "EngineBusy", "Row", "embedded", "open_engine"]
