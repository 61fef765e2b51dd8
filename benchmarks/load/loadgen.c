/*
 * loadgen - a bounded HTTP/1.1 load generator: one thread, epoll, 127.0.0.1 only, closed loop.
 *
 *     cc -O2 -o loadgen loadgen.c
 *     ./loadgen -p PORT -b BODIES -c CONNECTIONS -s SECONDS [-u PATH] [-n REQUESTS] [-w MICROSECONDS] [-v]
 *
 * Each connection sends its next request as soon as the last is answered, until SECONDS have passed or REQUESTS are sent. BODIES holds one
 * JSON body a line; they are sent in turn. The bearer key is $LOADGEN_KEY. -w: each connection
 * waits a random time up to this before each request, so that connections do not march in step. -v: once a second, write the number of answers to stderr.
 *
 * Prints one JSON line; times in microseconds. "errors": statuses other than 200, connections that broke, answers that never came.
 * "events": server-sent events seen; "finished": answers that held "data: [DONE]".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD, FIXED, SIZE, DATA, AFTER_DATA, TRAILER, UNTIL_CLOSE };

typedef struct {
    int fd, busy, state, status, head_n, matched, line_n;
    long remain, size;
    uint64_t begun, first, due; /* due: when to send the next request; 0: not waiting */
    char head[8192];
} Connection;

static const char EVENT[] = "data: ", DONE[] = "data: [DONE]";
static Connection *connections;
static int port, epoll, body_count, limited;
static char **requests;
static int *request_n;
static double *seconds_us, *first_us;
static long answers, errors, events, finished, sent, wait_us, most = 1 << 22;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void dial(Connection *c) {
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (void *)&address, sizeof address)) {
        perror("connect");
        exit(2);
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e);
    c->busy = 0;
}

static void start(Connection *c) {
    int i = sent++ % body_count;
    c->begun = now();
    c->first = c->due = 0;
    c->state = HEAD;
    c->head_n = c->matched = 0;
    c->busy = 1;
    if (send(c->fd, requests[i], request_n[i], MSG_NOSIGNAL) != request_n[i]) {
        errors++;
        close(c->fd);
        dial(c);
    }
}

static void start_later(Connection *c) {
    if (wait_us) c->due = now() + (uint64_t)(drand48() * wait_us * 1000) + 1;
    else start(c);
}

static void finish(Connection *c) {
    uint64_t t = now();
    c->busy = 0;
    if (c->status != 200) {
        errors++;
    } else if (answers < most) {
        seconds_us[answers] = (t - c->begun) / 1e3;
        first_us[answers] = ((c->first ? c->first : t) - c->begun) / 1e3;
        answers++;
    }
}

/* Count events, also those that a read cuts in two. `matched` is how much of "data: [DONE]" stands right before this byte. */
static void count(Connection *c, const char *bytes, int n) {
    int m = c->matched;
    for (int i = 0; i < n; i++) {
        if (m == 0) {
            const char *at = memchr(bytes + i, 'd', n - i);
            if (!at) break;
            i = at - bytes;
        }
        m = bytes[i] == DONE[m] ? m + 1 : bytes[i] == 'd';
        if (m == (int)sizeof EVENT - 1) events++;
        if (m == (int)sizeof DONE - 1) {
            finished++;
            m = 0;
        }
    }
    c->matched = m;
}

static int take_head(Connection *c, const char *bytes, int n) {
    int room = (int)sizeof c->head - 1 - c->head_n, before = c->head_n, take = n < room ? n : room;
    memcpy(c->head + before, bytes, take);
    c->head[before + take] = 0;
    char *blank = strstr(c->head, "\r\n\r\n");
    if (!blank) {
        c->head_n += take;
        return n;
    }
    int used = blank + 4 - c->head - before;
    blank[2] = 0;
    c->status = atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->size = 0;
    if (strcasestr(c->head, "\r\ntransfer-encoding: chunked")) {
        c->state = SIZE;
    } else if (length) {
        c->remain = atol(length + 17);
        c->state = FIXED;
        if (!c->remain) finish(c);
    } else {
        c->state = UNTIL_CLOSE;
    }
    return used;
}

static void feed(Connection *c, const char *bytes, int n) {
    while (n > 0 && c->busy) {
        int used = 1;
        if (c->state != HEAD && !c->first) c->first = now();
        switch (c->state) {
        case HEAD:
            used = take_head(c, bytes, n);
            break;
        case FIXED:
        case DATA:
            used = n < c->remain ? n : c->remain;
            count(c, bytes, used);
            c->remain -= used;
            if (c->remain) break;
            if (c->state == FIXED) finish(c);
            else c->state = AFTER_DATA;
            break;
        case SIZE:
            if (*bytes == '\n') {
                c->state = c->size ? DATA : TRAILER;
                c->remain = c->size;
                c->line_n = 0;
            } else if (*bytes != '\r') {
                c->size = c->size * 16 + (*bytes <= '9' ? *bytes - '0' : (*bytes | 32) - 'a' + 10);
            }
            break;
        case AFTER_DATA:
            if (*bytes == '\n') {
                c->state = SIZE;
                c->size = 0;
            }
            break;
        case TRAILER: /* ends with an empty line */
            if (*bytes == '\n') {
                if (!c->line_n) finish(c);
                c->line_n = 0;
            } else if (*bytes != '\r') {
                c->line_n++;
            }
            break;
        case UNTIL_CLOSE:
            count(c, bytes, n);
            used = n;
        }
        bytes += used;
        n -= used;
    }
}

static void hung_up(Connection *c) {
    if (c->busy) {
        if (c->state == UNTIL_CLOSE) finish(c);
        else errors++;
    }
    close(c->fd);
    dial(c);
}

static void read_bodies(const char *name, const char *path) {
    FILE *file = fopen(name, "r");
    if (!file) {
        perror(name);
        exit(2);
    }
    const char *key = getenv("LOADGEN_KEY");
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    while ((n = getline(&line, &size, file)) > 0) {
        if (line[n - 1] == '\n') n--;
        requests = realloc(requests, (body_count + 1) * sizeof *requests);
        request_n = realloc(request_n, (body_count + 1) * sizeof *request_n);
        request_n[body_count] = asprintf(&requests[body_count],
                                         "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                                         "Authorization: Bearer %s\r\nAccept: */*\r\nContent-Length: %zd\r\n\r\n%.*s",
                                         path, port, key ? key : "none", n, (int)n, line);
        body_count++;
    }
    fclose(file);
    free(line);
    if (!body_count) {
        fprintf(stderr, "%s is empty\n", name);
        exit(2);
    }
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, double q) { return answers ? sorted[(long)((answers - 1) * q)] : -1.0; }

int main(int argc, char **argv) {
    const char *path = "/v1/chat/completions", *bodies = NULL;
    int option, connection_count = 1, loud = 0;
    double seconds = 1.0;
    long limit = 0;
    while ((option = getopt(argc, argv, "p:b:c:s:u:n:w:v")) != -1) switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'b': bodies = optarg; break;
        case 'c': connection_count = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'u': path = optarg; break;
        case 'n': limit = atol(optarg); break;
        case 'w': wait_us = atol(optarg); break;
        case 'v': loud = 1; break;
        default: return 2;
        }
    if (!port || !bodies || connection_count < 1) {
        fprintf(stderr, "usage: loadgen -p PORT -b BODIES -c CONNECTIONS -s SECONDS [-u PATH] [-n REQUESTS] [-w MICROSECONDS] [-v]\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, 15); /* ends with whoever started it */
    prctl(PR_SET_TIMERSLACK, 1000);
    limited = limit > 0;
    read_bodies(bodies, path);
    seconds_us = malloc(most * sizeof *seconds_us);
    first_us = malloc(most * sizeof *first_us);
    epoll = epoll_create1(0);
    connections = calloc(connection_count, sizeof *connections);
    for (int i = 0; i < connection_count; i++) dial(&connections[i]);

    uint64_t begun = now(), stop = begun + (uint64_t)(seconds * 1e9), ended = begun, told = begun;
    uint64_t grace = stop + 5000000000ull; /* for answers under way */
    for (int i = 0; i < connection_count; i++) start_later(&connections[i]);
    static char buffer[1 << 18];
    struct epoll_event ready[512];
    for (;;) {
        uint64_t t = now();
        uint64_t pause = 100000000;
        int busy = 0, waiting = 0;
        for (int i = 0; i < connection_count; i++) {
            Connection *c = &connections[i];
            if (c->due && (t >= stop || (limited && sent >= limit))) c->due = 0;
            if (c->due && c->due <= t) start(c);
            if (c->due && c->due - t < pause) pause = c->due - t;
            busy += c->busy;
            waiting += c->due != 0;
        }
        if (!busy && !waiting) break;
        if (t > grace) {
            errors += busy;
            break;
        }
        if (loud && t - told > 1000000000ull) {
            fprintf(stderr, "%ld\n", answers);
            told = t;
        }
        struct timespec rest = {0, pause};
        int n = epoll_pwait2(epoll, ready, 512, &rest, NULL);
        for (int i = 0; i < n; i++) {
            Connection *c = ready[i].data.ptr;
            int got = recv(c->fd, buffer, sizeof buffer, 0);
            if (got < 0 && errno == EAGAIN) continue;
            if (got > 0) feed(c, buffer, got);
            else hung_up(c);
            if (c->busy) continue;
            ended = now();
            if (ended < stop && !(limited && sent >= limit)) start_later(c);
        }
    }
    double took = (ended - begun) / 1e9;
    qsort(seconds_us, answers, sizeof *seconds_us, rising);
    qsort(first_us, answers, sizeof *first_us, rising);
    printf("{\"answers\":%ld,\"errors\":%ld,\"seconds\":%.4f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"first_p50_us\":%.1f,\"first_p99_us\":%.1f,"
           "\"events\":%ld,\"finished\":%ld}\n",
           answers, errors, took, quantile(seconds_us, .5), quantile(seconds_us, .99), quantile(first_us, .5), quantile(first_us, .99), events,
           finished);
    return 0;
}
