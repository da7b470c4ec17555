"""Where the engines' SQL differs, and nothing else. The base class speaks DuckDB."""

from __future__ import annotations


class Dialect:
    def floor(self, value: str, step: int) -> str:
        """`value` (an integer expression, not negative) rounded down to a multiple of `step`."""
        return f"({value}) // {step} * {step}"

    def quantile(self, share: float, value: str, where: str) -> str:
        """The smallest value that at least `share` of the rows matching `where` do not exceed; NULL of none."""
        return f"quantile_disc({value}, {share}) FILTER (WHERE {where})"

    def each(self, column: str) -> str:
        """As a select expression: one row for every item of a list column."""
        return f"unnest({column})"


class ClickHouseDialect(Dialect):
    def floor(self, value: str, step: int) -> str:
        return f"intDiv({value}, {step}) * {step}"

    def quantile(self, share: float, value: str, where: str) -> str:
        # quantileExact rounds ranks down; this is the standard's PERCENTILE_DISC.
        rank = f"toUInt64(greatest(1, ceil({share} * countIf({where}))))"
        return f"if(countIf({where}) = 0, NULL, arraySort(groupArrayIf({value}, {where}))[{rank}])"

    def each(self, column: str) -> str:
        return f"arrayJoin({column})"
