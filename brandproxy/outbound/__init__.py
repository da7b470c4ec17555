"""HTTP/1.1 connections to other servers: how they are read, kept and shared."""
