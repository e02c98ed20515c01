"""Decisions about who may connect: pure functions from recognized workloads to walls."""
