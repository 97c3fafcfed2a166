/*
 * asker asks for TLS policies as Postfix does: many clients, each of which has
 * a connection of its own, puts a question, and waits for the answer before the
 * next one (socketmap_table(5)).
 *
 *   asker SOCKET TABLE CLIENTS LOOKUPS DOMAINS
 *
 * The domains are d0.dane.bench, d1.dane.bench and so on, at random, and each
 * answer has to be dane-only. It prints how many seconds all of it took. It is
 * in C, as Postfix is: a client that costs more than Postfix's own would
 * measure itself.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char *path, *table;
static int domains;
static atomic_long left;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void *client(void *number)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	unsigned seed = 1 + 7919 * (unsigned)(long)number;
	char question[200], text[300];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		fail("connect");
	while (atomic_fetch_sub(&left, 1) > 0) {
		int n = snprintf(question, sizeof question, "%s d%d.dane.bench", table, rand_r(&seed) % domains);
		int size = snprintf(text, sizeof text, "%d:%s,", n, question);
		ssize_t got = 0;

		if (write(fd, text, size) != size)
			fail("write");
		do {
			ssize_t more = read(fd, text + got, sizeof text - 1 - got);
			if (more <= 0)
				fail("read");
			got += more;
		} while (text[got - 1] != ',' && got < (ssize_t)sizeof text - 1);
		text[got] = 0;
		if (strstr(text, ":OK dane-only,") == NULL) {
			fprintf(stderr, "%s: %s\n", question, text);
			exit(1);
		}
	}
	close(fd);
	return NULL;
}

int main(int argc, char **argv)
{
	struct timespec begin, end;
	int clients;

	if (argc != 6)
		return 2;
	path = argv[1], table = argv[2], clients = atoi(argv[3]), domains = atoi(argv[5]);
	atomic_store(&left, atol(argv[4]));
	pthread_t *all = calloc(clients, sizeof *all);
	if (all == NULL)
		fail("calloc");
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long i = 0; i < clients; i++)
		if (pthread_create(&all[i], NULL, client, (void *)i) != 0)
			fail("pthread_create");
	for (int i = 0; i < clients; i++)
		pthread_join(all[i], NULL);
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%.6f\n", (end.tv_sec - begin.tv_sec) + (end.tv_nsec - begin.tv_nsec) / 1e9);
	return 0;
}
