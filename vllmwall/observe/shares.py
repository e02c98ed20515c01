"""Shares of the daemon's time and memory, so that no user costs another one anything."""

from __future__ import annotations

Account = int | tuple[int, int] | None


def account_of(uid: int, namespace: int, own_namespace: int) -> Account:
    """The share that a process uses up: its user's.

    Root of a container has one of its own, by its network namespace. None: root here, who may do
    anything and has no limit.
    """
    if uid != 0:
        return uid
    return None if namespace == own_namespace else (uid, namespace)


def place_of(account: Account) -> tuple[int, int]:
    """The user and the network namespace (0: any) whose share it is."""
    return account if isinstance(account, tuple) else (account or 0, 0)


class Shares:
    """An amount that ``each`` account may use, and all of them together."""

    def __init__(self, each: int, together: int) -> None:
        self._each, self._together = each, together
        self._used: dict[Account, int] = {}
        self._sum = 0
        self.over: set[Account] = set()

    def take(self, account: Account, amount: int) -> bool:
        """Use so much; False, and nothing is used, where the share is not large enough."""
        if account is None:
            return True
        used = self._used.get(account, 0) + amount
        if used > self._each or self._sum + amount > self._together:
            self.over.add(account)
            return False
        self._used[account] = used
        self._sum += amount
        return True

    def use(self, account: Account, amount: int) -> None:
        """Use so much of what `take` found left, and perhaps more."""
        if account is not None:
            self._used[account] = self._used.get(account, 0) + amount
            self._sum += amount

    def give_back(self, account: Account, amount: int) -> None:
        """Have so much again for others."""
        if account in self._used:
            self._sum -= amount
            self._used[account] -= amount
            if self._used[account] <= 0:
                del self._used[account]
