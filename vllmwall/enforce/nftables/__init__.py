"""The nftables backend: one table for each network namespace, one transaction for each change."""
