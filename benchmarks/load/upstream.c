/*
 * upstream - a canned OpenAI-compatible server: one thread, epoll, 127.0.0.1 only.
 *
 *     cc -O2 -o upstream upstream.c && ./upstream PORT
 *
 * It answers every POST with the same completion of about 600 bytes, or, if the body holds "stream": true, with server-sent events,
 * one chunk of the chunked encoding and one send() each, and a usage event if the body holds "include_usage": true.
 * The prompt's text steers it:
 *     delay=50000   microseconds before the answer, or before the first event (default 0)
 *     gap=2000      microseconds between events (default 0: all at once)
 *     events=50     how many events with content
 * It does not check what it is sent: it is there to cost next to nothing, so that what stands in front of it can be measured.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
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

#define CAPACITY (1 << 20) /* bytes of requests that one connection may have waiting */
#define FDS 65536

typedef struct {
    int fd, length, left;          /* left: events with content still to send */
    int streaming, whole, usage;   /* an answer is under way: as a stream, or whole after its delay */
    long gap;                      /* microseconds between events */
    uint64_t due;                  /* when the next event, or the whole answer, goes out */
    char *buffer;
} Connection;

static Connection *connections[FDS];
static int waiting[FDS], waiting_count; /* descriptors of connections with something due */
static char whole[2048], event[512], last[512], usage[512], end[64], head[256], about[1024];
static int whole_n, event_n, last_n, usage_n, end_n, head_n, about_n;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int send_all(int fd, const char *bytes, int n) {
    while (n > 0) {
        int sent = send(fd, bytes, n, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) return -1;
            usleep(100);
            continue;
        }
        bytes += sent;
        n -= sent;
    }
    return 0;
}

static void forget(int fd) {
    for (int i = 0; i < waiting_count; i++)
        if (waiting[i] == fd) {
            waiting[i] = waiting[--waiting_count];
            return;
        }
}

static void drop(Connection *c) {
    forget(c->fd);
    close(c->fd);
    connections[c->fd] = NULL;
    free(c->buffer);
    free(c);
}

/* Send what is due. 0: there is more, 1: the answer is complete, -1: the client is gone. */
static int step(Connection *c) {
    if (c->whole) {
        c->whole = 0;
        return send_all(c->fd, whole, whole_n) ? -1 : 1;
    }
    if (c->left > 0) {
        c->left--;
        return send_all(c->fd, event, event_n);
    }
    c->streaming = 0;
    if (send_all(c->fd, last, last_n)) return -1;
    if (c->usage && send_all(c->fd, usage, usage_n)) return -1;
    return send_all(c->fd, end, end_n) ? -1 : 1;
}

static int is_true(const char *body, const char *field) {
    const char *at = body;
    while ((at = strstr(at, field))) {
        at += strlen(field);
        while (*at == ' ' || *at == ':') at++;
        if (!strncmp(at, "true", 4)) return 1;
    }
    return 0;
}

static long steer(const char *body, const char *name, long otherwise) {
    const char *at = strstr(body, name);
    return at ? atol(at + strlen(name)) : otherwise;
}

static int begin(Connection *c, const char *body) {
    long delay = steer(body, "delay=", 0);
    c->streaming = is_true(body, "\"stream\"");
    if (c->streaming) {
        c->gap = steer(body, "gap=", 0);
        c->left = steer(body, "events=", 50);
        c->usage = is_true(body, "\"include_usage\"");
        if (send_all(c->fd, head, head_n)) return -1;
        if (!delay && !c->gap) {
            int more;
            while (!(more = step(c))) {}
            return more < 0 ? -1 : 0;
        }
    } else if (!delay) {
        return send_all(c->fd, whole, whole_n);
    } else {
        c->whole = 1;
    }
    c->due = now() + delay * 1000;
    waiting[waiting_count++] = c->fd;
    return 0;
}

/* Answer the complete requests that have come in, one after the other. -1: hang up. */
static int serve(Connection *c) {
    while (!c->streaming && !c->whole) {
        c->buffer[c->length] = 0;
        char *blank = strstr(c->buffer, "\r\n\r\n");
        if (!blank) return 0;
        int total = blank + 4 - c->buffer;
        *blank = 0;
        char *length = strcasestr(c->buffer, "\r\ncontent-length:");
        char *chunked = strcasestr(c->buffer, "\r\ntransfer-encoding: chunked");
        if (length) total += atoi(length + 17);
        *blank = '\r';
        if (chunked) {
            char *tail = strstr(blank + 4, "0\r\n\r\n");
            if (!tail) return 0;
            total = tail + 5 - c->buffer;
        }
        if (c->length < total) return 0;
        char kept = c->buffer[total];
        c->buffer[total] = 0;
        /* What a gateway may want to know of a server before it sends anything: is it well, what does it serve. */
        int failed = strncmp(c->buffer, "GET ", 4) ? begin(c, blank + 4) : send_all(c->fd, about, about_n);
        c->buffer[total] = kept;
        memmove(c->buffer, c->buffer + total, c->length - total);
        c->length -= total;
        if (failed) return -1;
    }
    return 0;
}

static int chunk(char *out, size_t size, const char *data) {
    return snprintf(out, size, "%zx\r\n%s\r\n", strlen(data), data);
}

static void can(void) {
    const char *text = "The capital of France is Paris. It lies on the river Seine, in the north of the country, and it has been the seat of "
                       "government for most of the time since the tenth century. About two million people live in the city itself.";
    const char *start = "\"id\":\"chatcmpl-canned0123456789\",\"created\":1760000000,\"model\":\"canned\"";
    const char *counts = "\"usage\":{\"prompt_tokens\":164,\"completion_tokens\":48,\"total_tokens\":212}";
    char body[1024];
    int n = snprintf(body, sizeof body,
                     "{%s,\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\","
                     "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],%s}",
                     start, text, counts);
    whole_n = snprintf(whole, sizeof whole, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", n, body);
    head_n = snprintf(head, sizeof head,
                      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n");
    snprintf(body, sizeof body,
             "data: {%s,\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},"
             "\"finish_reason\":null}]}\n\n",
             start);
    event_n = chunk(event, sizeof event, body);
    snprintf(body, sizeof body,
             "data: {%s,\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n", start);
    last_n = chunk(last, sizeof last, body);
    snprintf(body, sizeof body, "data: {%s,\"object\":\"chat.completion.chunk\",\"choices\":[],%s}\n\n", start, counts);
    usage_n = chunk(usage, sizeof usage, body);
    end_n = chunk(end, sizeof end, "data: [DONE]\n\n");
    end_n += snprintf(end + end_n, sizeof end - end_n, "0\r\n\r\n");
}

static void describe(void) {
    const char *body = "{\"status\":\"ok\",\"model_path\":\"canned\",\"served_model_name\":\"canned\",\"is_generation\":true,\"tp_size\":1,"
                       "\"dp_size\":1,\"version\":\"0\",\"object\":\"list\",\"data\":[{\"id\":\"canned\",\"object\":\"model\",\"owned_by\":\"bench\"}]}";
    about_n = snprintf(about, sizeof about, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
}

static void watch(int epoll, int fd) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
}

static void greet(int epoll, int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->buffer = malloc(CAPACITY + 1);
        connections[fd] = c;
        watch(epoll, fd);
    }
}

/* Send what is due on every waiting connection; return when the next is due, or 0. */
static uint64_t tick(void) {
    uint64_t t = now(), next = 0;
    for (int i = 0; i < waiting_count; i++) {
        Connection *c = connections[waiting[i]];
        if (c->due <= t) {
            int done = step(c);
            c->due += c->gap * 1000;
            if (done) {
                waiting[i--] = waiting[--waiting_count];
                if (done < 0 || serve(c) < 0) drop(c);
                continue;
            }
        }
        if (!next || c->due < next) next = c->due;
    }
    return next;
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 0, on = 1;
    if (!port) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, 15); /* ends with whoever started it */
    prctl(PR_SET_TIMERSLACK, 1000);
    can();
    describe();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 1024)) {
        perror("bind");
        return 1;
    }
    watch(epoll, listener);
    struct epoll_event events[256];
    for (;;) {
        uint64_t next = tick(), t = now(), rest = next > t ? next - t : 0;
        struct timespec pause = {rest / 1000000000, rest % 1000000000};
        int n = epoll_pwait2(epoll, events, 256, next ? &pause : NULL, NULL);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                greet(epoll, listener);
                continue;
            }
            Connection *c = connections[fd];
            if (!c) continue;
            int got = recv(fd, c->buffer + c->length, CAPACITY - c->length, 0);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) {
                drop(c);
                continue;
            }
            c->length += got;
            if (serve(c) < 0) drop(c);
        }
    }
}
