/* The workload: listens on command, accepts every connection, and reports counts and times.
 *
 * It is built under a name that begins like Python's and started with a rank's environment, so
 * recognition classifies it as a rank of torch.distributed. It is in C so that accepting is cheap
 * compared with the hammer, and so that the clock is read right before listen(). It closes
 * connections normally: after a server's reset conntrack assigns the next SYN from the same source
 * port to the old connection, and the rivals' firewalls accept it.
 *
 * stdin:  open PORT    stdout:  nanoseconds (CLOCK_MONOTONIC) just before listen()
 *         bind PORT             the same of UDP, just before bind()
 *         tell                  "ACCEPTED LAST": connections so far, when the last one came
 *         close                 the same, and the socket is gone
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int listener = -1, udp = -1;
static long accepted;
static long long last;

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void drain(void)
{
    int fd;
    while (listener >= 0 && (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        last = now();
        accepted++;
        close(fd);
    }
}

static void open_port(int port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    int yes = 1;
    accepted = last = 0;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&here, sizeof here)) {
        perror("bind");
        exit(1);
    }
    long long before = now();
    if (listen(listener, 4096)) {
        perror("listen");
        exit(1);
    }
    printf("%lld\n", before);
}

static void bind_udp(int port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    long long before = now();
    if (bind(udp, (struct sockaddr *)&here, sizeof here)) {
        perror("bind");
        exit(1);
    }
    printf("%lld\n", before);
}

static void obey(const char *line)
{
    int port;
    drain();
    if (sscanf(line, "bind %d", &port) == 1) {
        bind_udp(port);
        return;
    }
    if (sscanf(line, "open %d", &port) == 1) {
        open_port(port);
        return;
    }
    if (strncmp(line, "close", 5) == 0) {
        close(listener);
        close(udp);
        listener = udp = -1;
    }
    printf("%ld %lld\n", accepted, last);
}

/* A real rank has torch mapped; a file of that name takes its place. */
static void map_library(const char *path)
{
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0)
        mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
}

int main(void)
{
    char line[128];
    map_library(getenv("LIBTORCH"));
    setvbuf(stdin, NULL, _IONBF, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    for (;;) {
        struct pollfd both[] = {{0, POLLIN, 0}, {listener, POLLIN, 0}};
        poll(both, 2, -1);
        drain();
        if (both[0].revents) {
            if (!fgets(line, sizeof line, stdin))
                return 0;
            obey(line);
        }
    }
}
