"""The answer of `vllmwall learn`: trusted peers proposed from the connections seen."""
