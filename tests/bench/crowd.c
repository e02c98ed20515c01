/* Many processes of one user, each its own program that looks like a rank and listens.
 *
 * crowd COUNT LISTENERS [orphan]: starts COUNT children that execute this program again with a
 * command line of their own and open LISTENERS ports each; with "orphan" the starter ends, so that
 * each child is a workload of its own. It prints "ready" when all children listen.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int serve(int listeners)
{
    for (int i = 0; i < listeners; i++) {
        struct sockaddr_in any = {.sin_family = AF_INET};
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) || listen(fd, 128))
            return 1;
    }
    if (write(1, ".", 1) != 1)
        return 1;
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "-m"))
        return serve(atoi(argv[argc - 1]));
    int count = argc > 1 ? atoi(argv[1]) : 1, ends[2];
    if (argc < 3 || pipe(ends))
        return 1;
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        if (child < 0)
            return 1;
        if (!child) {
            char port[16];
            snprintf(port, sizeof port, "%d", 10000 + i);
            dup2(ends[1], 1);
            close(ends[0]);
            execl("/proc/self/exe", argv[0], "-m", "torch.distributed.run", "--port", port,
                  argv[2], NULL);
            _exit(1);
        }
    }
    close(ends[1]);
    char one;
    for (int i = 0; i < count; i++)
        if (read(ends[0], &one, 1) != 1)
            return 1;
    printf("ready\n");
    fflush(stdout);
    if (argc > 3)
        return 0;
    for (;;)
        pause();
}
