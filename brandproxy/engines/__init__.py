"""Floor 2, the analytics engine: where events end up and are counted.

- `base`      the contract both homes keep, and the event row
- `homes`     `open_engine`: which engine a settings value names
- `dialect`   the few places where the engines' SQL differs
- `duckdb`    the home on one machine: one file in the data directory, one owner process
- `clickhouse` the home of a fleet
- `copying`   moving history from one home to another
"""

from brandproxy.engines.base import COLUMNS, Engine, EngineBusy, Row, embedded
from brandproxy.engines.dialect import Dialect
from brandproxy.engines.homes import open_engine

__all__ = ["COLUMNS", "Dialect", "Engine", "EngineBusy", "Row", "embedded", "open_engine"]
