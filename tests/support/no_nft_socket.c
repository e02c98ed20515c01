/* A kernel without nft_socket, for the process that preloads this: in every netlink message the
 * expression `socket` gets a name that no kernel knows, and the kernel says what it then says. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

static const char name[] = {11, 0, 1, 0, 's', 'o', 'c', 'k', 'e', 't', 0}; /* NFTA_EXPR_NAME */

static void spoil(void *data, size_t size)
{
	char *end = (char *)data + size, *found = data;
	while ((found = memmem(found, end - found, name, sizeof name)))
		found[9] = 'X';
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags)
{
	ssize_t (*real)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");
	struct sockaddr bound = {0};
	socklen_t length = sizeof bound;
	if (!getsockname(descriptor, &bound, &length) && bound.sa_family == AF_NETLINK)
		for (size_t i = 0; i < message->msg_iovlen; i++)
			spoil(message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
	return real(descriptor, message, flags);
}
