"""Section `[limits]` of the settings; `limits` holds tenants to it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """How much one tenant may have by its own keys; operators may go beyond."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    webhooks: int = Field(20, ge=0, le=10_000, description="webhooks")
    keys: int = Field(100, ge=0, le=10_000, description="API keys that have not expired")
    hosts: int = Field(200, ge=0, le=100_000, description="host names, claims that wait for proof included")
    senders: int = Field(200, ge=0, le=100_000, description="sending domains, claims included")
    blocks: int = Field(1000, ge=0, le=100_000, description="entries of the kill list")
    mailings: int = Field(500, ge=0, le=100_000, description="campaigns' HTML kept for click maps")
    feeds: int = Field(20, ge=0, le=1000, description="live feeds open at one control process")
