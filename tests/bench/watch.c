/* Times of rule changes: writes nf_tables' notifications with the time of their arrival.
 *
 * The kernel sends them right after a transaction's rules took effect (nf_tables_commit, Linux
 * 4.x to 6.18), to every socket in the group. This process sleeps until then and runs at
 * real-time priority, so it uses little CPU, and the time it writes is late by some ten
 * microseconds, never early.
 *
 * stdout: "ready\n", then records: int64 nanoseconds (CLOCK_MONOTONIC), uint32 length, the message.
 */
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_RCVBUFFORCE
#define SO_RCVBUFFORCE 33
#endif

static char buffer[1 << 16];

int main(void)
{
    struct sockaddr_nl here = {.nl_family = AF_NETLINK};
    struct sched_param urgent = {.sched_priority = 10};
    int group = NFNLGRP_NFTABLES, size = 16 << 20;
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here)
        || setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group)) {
        perror("watch");
        return 1;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    sched_setscheduler(0, SCHED_FIFO, &urgent); /* where it may not: later, not wrong */
    if (write(1, "ready\n", 6) != 6)
        return 1;
    for (;;) {
        struct timespec t;
        ssize_t got = recv(fd, buffer, sizeof buffer, 0);
        clock_gettime(CLOCK_MONOTONIC, &t);
        struct { int64_t at; uint32_t length; } __attribute__((packed)) head = {
            t.tv_sec * 1000000000LL + t.tv_nsec, got > 0 ? (uint32_t)got : 0};
        if (write(1, &head, sizeof head) != sizeof head || write(1, buffer, head.length) < 0)
            return 1;
    }
}
