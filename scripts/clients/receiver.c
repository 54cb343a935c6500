/* A payrelay receiver in C for POSIX systems, without a JSON library.
 *
 *     cc -O2 -o receiver receiver.c
 *     ./receiver HOST PORT CLIENT STATE_FILE        a token, where one is needed, in PAYRELAY_TOKEN
 *
 * Prints each payment once, as the line that came. Put your own work into work().
 *
 * Fields are read by a scanner that takes them only in the order in which payrelay writes them, the sender's own text
 * last. What comes before that are numbers, and names that hold nothing which JSON would escape. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 65536 };       /* the largest window a node has; what is further back does not come again */
enum { RECORD = 64 };
enum { MAX_LINE = 2 << 20 };  /* more than six times the node's --body-limit (256 KiB by default) */

static void quit(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* Until this returns, the payment is not acknowledged; if the program ends here, the payment comes again. */
static void work(const char *line) {
    if (puts(line) == EOF || fflush(stdout) == EOF) quit("cannot print a payment", strerror(errno));
}

/* Which payments are done: a file in which each has the place of its seq. A crash between work and keep does one
 * payment twice. Where the work is a database transaction, let keep be an INSERT of the same transaction, under a
 * unique key of these three columns; then nothing is done twice. */
static int memory;

struct payment { uint64_t epoch, seq, accepted_at; }; /* all three: after a failover, numbers are given again */

static void record(char *out, const struct payment *p) {
    char text[RECORD];
    snprintf(text, sizeof text, "%llu %llu %llu", (unsigned long long)p->epoch, (unsigned long long)p->seq,
             (unsigned long long)p->accepted_at);
    snprintf(out, RECORD + 1, "%-*s\n", RECORD - 1, text);
}

static int holds(const struct payment *p) {
    char wanted[RECORD + 1], found[RECORD];
    record(wanted, p);
    ssize_t count = pread(memory, found, RECORD, (off_t)(p->seq % SLOTS) * RECORD);
    if (count < 0) quit("cannot read the state file", strerror(errno));
    return count == RECORD && memcmp(found, wanted, RECORD) == 0;
}

static void keep(const struct payment *p) {
    char text[RECORD + 1];
    record(text, p);
    ssize_t count = pwrite(memory, text, RECORD, (off_t)(p->seq % SLOTS) * RECORD);
    if (count != RECORD || fsync(memory) < 0) /* what we acknowledge next, the relay forgets */
        quit("cannot write the state file", count >= 0 && count < RECORD ? "the disk is full" : strerror(errno));
}

/* The scanner. Each step returns where it stopped, or NULL if the text is not what it takes; NULL stays NULL. */
static const char *take(const char *at, const char *text) {
    size_t length = strlen(text);
    return at && strncmp(at, text, length) == 0 ? at + length : NULL;
}

static const char *number(const char *at, uint64_t *out) {
    char *end;
    if (!at || *at < '0' || *at > '9') return NULL;
    errno = 0;
    *out = strtoull(at, &end, 10);
    return errno ? NULL : end;
}

static const char *name(const char *at) { /* the rest of a string, with its closing quotation mark */
    if (!at) return NULL;
    at += strcspn(at, "\"\\");
    return *at == '"' ? at + 1 : NULL;
}

static int is_payment(const char *line, struct payment *p) {
    const char *at = take(number(take(line, "{\"type\":\"payment\",\"seq\":"), &p->seq), ",\"channel\":\"");
    const char *id = take(at = name(at), ",\"payment_id\":\"");
    return take(number(take(id ? name(id) : at, ",\"accepted_at\":"), &p->accepted_at), ",") != NULL;
}

static int is_welcome(const char *line, uint64_t *epoch, uint64_t *heartbeat) {
    uint64_t unused;
    const char *at = name(take(name(take(line, "{\"type\":\"welcome\",\"client\":\"")), ",\"node\":\""));
    at = number(take(number(take(at, ",\"epoch\":"), epoch), ",\"acked\":"), &unused);
    at = number(take(at, ",\"pending\":"), &unused);
    return number(take(at, ",\"heartbeat\":"), heartbeat) != NULL;
}

/* After these the next attempt would end in the same way, or throw out the program that has our id now. */
static int is_final(const char *line) {
    static const char *const codes[] = {"replaced", "unauthorized", "invalid_client_id", "bad_json", "bad_frame",
                                        "line_too_long", "hello_required"};
    const char *code = take(line, "{\"type\":\"error\",\"code\":\"");
    for (size_t i = 0; code && i < sizeof codes / sizeof *codes; i++)
        if (take(take(code, codes[i]), "\"")) return 1;
    return 0;
}

static void set_time_limits(int fd, uint64_t seconds) {
    struct timeval limit = {.tv_sec = (time_t)seconds};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* on Linux it limits connect too */
}

static int dial(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list, *a;
    int fd = -1, on = 1;
    if (getaddrinfo(host, port, &hints, &list) != 0) return -1;
    for (a = list; a && fd < 0; a = a->ai_next) {
        if ((fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol)) < 0) continue;
        set_time_limits(fd, 10);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) break;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

/* Where sending fails, reading goes on: the server's last line, which says why, may be there already. */
static void send_line(int fd, const char *line) {
    size_t length = strlen(line);
    if (send(fd, line, length, MSG_NOSIGNAL) != (ssize_t)length) shutdown(fd, SHUT_WR);
}

/* Returns why the connection is over, if it is. */
static const char *handle(int fd, const char *line, struct payment *p) {
    char ack[64];
    uint64_t heartbeat;
    if (take(line, "{\"type\":\"payment\"")) {
        if (!p->epoch || !is_payment(line, p)) quit("payment", "not in the order of fields that payrelay keeps");
        if (!holds(p)) {
            work(line);
            keep(p);
        }
        snprintf(ack, sizeof ack, "{\"type\":\"ack\",\"seq\":%llu}\n", (unsigned long long)p->seq);
        send_line(fd, ack); /* for a repeat too: its ack was lost */
    } else if (is_welcome(line, &p->epoch, &heartbeat)) {
        set_time_limits(fd, heartbeat);
    } else if (take(line, "{\"type\":\"ping\"")) {
        send_line(fd, "{\"type\":\"pong\"}\n");
    } else if (take(line, "{\"type\":\"error\"")) {
        if (is_final(line)) quit("the server closed", line);
        return line;
    }
    return NULL;
}

/* One connection; returns why it ended, when another one shall be tried. */
static const char *receive(int fd) {
    static char buffer[MAX_LINE];
    struct payment p = {0};
    size_t used = 0;
    for (int silent = 0; silent < 3;) {
        ssize_t count = recv(fd, buffer + used, sizeof buffer - used, 0);
        if (count == 0) return "the server closed";
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return strerror(errno);
        if (count < 0 && !p.epoch) return "no welcome within 10 s";
        if (count < 0) {
            silent++;
            send_line(fd, "{\"type\":\"ping\"}\n");
            continue;
        }
        silent = 0;
        char *line = buffer, *end = memchr(buffer + used, '\n', (size_t)count);
        used += (size_t)count;
        for (; end; end = memchr(line, '\n', used - (size_t)(line - buffer))) {
            *end = '\0';
            const char *why = handle(fd, line, &p);
            if (why) return why;
            line = end + 1;
        }
        used -= (size_t)(line - buffer);
        memmove(buffer, line, used);
        if (used == sizeof buffer) quit("a line is too long", "raise MAX_LINE");
    }
    return "nothing came for three heartbeats";
}

int main(int argc, char **argv) {
    if (argc != 5) quit("usage", "receiver HOST PORT CLIENT STATE_FILE");
    if ((memory = open(argv[4], O_RDWR | O_CREAT, 0600)) < 0) quit(argv[4], strerror(errno));
    srand((unsigned)time(NULL) ^ (unsigned)getpid());
    const char *token = getenv("PAYRELAY_TOKEN");
    char hello[512];
    int length = snprintf(hello, sizeof hello, "{\"type\":\"hello\",\"client\":\"%s\"%s%s%s}\n", argv[3],
                          token ? ",\"token\":\"" : "", token ? token : "", token ? "\"" : "");
    if (length >= (int)sizeof hello) quit(argv[3], "client id and token are too long");
    for (long pause = 200;; pause = pause < 2500 ? pause * 2 : 5000) {
        time_t began = time(NULL);
        const char *why = "cannot connect";
        int fd = dial(argv[1], argv[2]);
        if (fd >= 0) {
            send_line(fd, hello);
            why = receive(fd);
            close(fd);
        }
        if (time(NULL) - began > 10) pause = 200;
        fprintf(stderr, "%s; connecting again\n", why);
        long wait = pause / 2 + rand() % (pause / 2 + 1); /* at random, so that a thousand tills do not come at once */
        nanosleep(&(struct timespec){.tv_sec = wait / 1000, .tv_nsec = wait % 1000 * 1000000}, NULL);
    }
}
