/* Sockets: opened, opened again, read, written and lost. */
#include "engine.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static const int64_t RETRY_AFTER = 50 * 1000000; /* ns, between attempts to open a connection that fails */
static const int64_t BACKLOG_FULL = 2 * 1000000; /* ns, the same for a Unix socket whose backlog is full */

static void change_state(connection *k, int state)
{
    k->engine->closed += (state == CLOSED) - (k->state == CLOSED);
    k->state = state;
}

static connection *connection_new(engine *e)
{
    connection *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->engine = e;
    k->fd = -1;
    k->state = LEAVING;
    change_state(k, CLOSED);
    hook_reset(&k->calls);
    hook_reset(&k->framed);
    hook_reset(&k->place);
    hook_reset(&k->dirty_place);
    k->out = malloc(OUT_BYTES + 32 * 1024);
    k->line = malloc(LINE_BYTES);
    if (!k->out || !k->line) {
        free(k->out);
        free(k->line);
        free(k);
        return NULL;
    }
    return k;
}

static void connection_shut(connection *k)
{
    if (k->fd >= 0)
        close(k->fd);
    k->fd = -1;
    nghttp2_session_del(k->h2);
    k->h2 = NULL;
    k->out_length = k->out_written = k->line_length = k->request_left = 0;
    k->in_use = 0;
    k->faulty = 0;
    k->out_total = 0;
    k->wants_out = 0;
    hook_remove(&k->dirty_place);
}

static void connection_free(connection *k)
{
    connection_shut(k);
    hook_remove(&k->place);
    free(k->out);
    free(k->line);
    free(k);
}

/* The connection is gone: its calls end with `outcome`, and it is opened again, at once when it was of use before. */
static void connection_lost(connection *k, int outcome)
{
    engine *e = k->engine;
    int unused = k->answered == 0;
    connection_shut(k);
    while (!hook_alone(&k->calls))
        call_finish(e, OWNER(call, place, k->calls.after), outcome);
    /* One that was leaving stays in its list until the loop frees it: events of this round may still name it. */
    if (k->state == LEAVING)
        return;
    change_state(k, CLOSED);
    k->failure = unused ? outcome : 0;
    k->retry_at = unused ? e->now + RETRY_AFTER : e->now;
}

static int failure_of(int error)
{
    /* A Unix socket's path that is not there is a server that does not listen. */
    return error == ECONNREFUSED || error == ENOENT ? OUTCOME_REFUSED : OUTCOME_UNREACHABLE;
}

static void watch_output(connection *k, int wanted)
{
    if (k->wants_out == wanted || k->fd < 0)
        return;
    k->wants_out = wanted;
    struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = k};
    if (epoll_ctl(k->engine->epoll_fd, EPOLL_CTL_MOD, k->fd, &event) < 0)
        k->engine->failed = errno;
}

static void connection_opened(connection *k)
{
    change_state(k, OPEN);
    k->failure = 0;
    k->answered = 0;
    k->engine->opened++;
    watch_output(k, 0);
    if (k->engine->protocol->opened(k) < 0)
        connection_lost(k, OUTCOME_UNREACHABLE);
    else
        connection_dirty(k);
}

static void connection_open(connection *k)
{
    engine *e = k->engine;
    int family = e->address.ss_family;
    k->answered = 0;
    k->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (k->fd < 0) {
        connection_lost(k, OUTCOME_UNREACHABLE);
        return;
    }
    int one = 1;
    if (family != AF_UNIX)
        setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = k};
    k->wants_out = 1;
    change_state(k, CONNECTING);
    if (epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, k->fd, &event) < 0) {
        connection_lost(k, OUTCOME_UNREACHABLE);
        return;
    }
    if (connect(k->fd, (struct sockaddr *)&e->address, e->address_length) == 0) {
        connection_opened(k);
    } else if (errno == EAGAIN) {
        int failure = k->failure;
        connection_lost(k, OUTCOME_UNREACHABLE);
        k->failure = failure;
        k->retry_at = e->now + BACKLOG_FULL;
    } else if (errno != EINPROGRESS) {
        connection_lost(k, failure_of(errno));
    }
}

int connections_open(engine *e)
{
    for (uint32_t i = 0; i < e->connection_count; i++) {
        connection *k = connection_new(e);
        if (!k)
            return ENOMEM;
        hook_append(&e->connections, &k->place);
        connection_open(k);
    }
    return 0;
}

void connections_close(engine *e)
{
    while (!hook_alone(&e->connections))
        connection_free(OWNER(connection, place, e->connections.after));
    while (!hook_alone(&e->leaving))
        connection_free(OWNER(connection, place, e->leaving.after));
}

/* Opens again what is due, and frees what has left. */
void connections_retry(engine *e)
{
    for (hook *l = e->leaving.after, *next; l != &e->leaving; l = next) {
        next = l->after;
        connection *k = OWNER(connection, place, l);
        if (hook_alone(&k->calls))
            connection_free(k);
    }
    if (!e->closed)
        return;
    for (hook *l = e->connections.after; l != &e->connections; l = l->after) {
        connection *k = OWNER(connection, place, l);
        if (k->state == CLOSED && k->retry_at <= e->now)
            connection_open(k);
    }
}

int64_t connections_next_retry(engine *e)
{
    int64_t at = INT64_MAX;
    for (hook *l = e->closed ? e->connections.after : &e->connections; l != &e->connections; l = l->after) {
        connection *k = OWNER(connection, place, l);
        if (k->state == CLOSED && k->retry_at < at)
            at = k->retry_at;
    }
    return at;
}

int connection_failure(engine *e)
{
    int failure = 0;
    for (hook *l = e->connections.after; l != &e->connections; l = l->after) {
        failure = OWNER(connection, place, l)->failure;
        if (!failure)
            return 0;
    }
    return failure;
}

void connection_leave(connection *k, int sent_away)
{
    engine *e = k->engine;
    connection *successor = connection_new(e);
    if (!successor) {
        e->failed = ENOMEM;
        return;
    }
    change_state(k, LEAVING);
    hook_remove(&k->place);
    hook_append(&e->leaving, &k->place);
    hook_append(&e->connections, &successor->place);
    if (sent_away && k->answered == 0) { /* A server that sends everybody away is not asked again at once. */
        successor->failure = OUTCOME_RESET;
        successor->retry_at = e->now + RETRY_AFTER;
    }
}

void connection_dirty(connection *k)
{
    if (hook_alone(&k->dirty_place) && k->fd >= 0)
        hook_append(&k->engine->dirty, &k->dirty_place);
}

void connections_flush(engine *e)
{
    while (!hook_alone(&e->dirty)) {
        connection *k = OWNER(connection, dirty_place, e->dirty.after);
        hook_remove(&k->dirty_place);
        if (k->fd >= 0 && k->state != CONNECTING && e->protocol->write(k) < 0)
            connection_lost(k, k->faulty ? OUTCOME_PROTOCOL : OUTCOME_RESET);
    }
}

/* Writes what the socket takes now; the rest is asked for again by an event. */
int connection_write(connection *k, const uint8_t *data, size_t length, size_t *written)
{
    *written = 0;
    while (*written < length) {
        ssize_t n = send(k->fd, data + *written, length - *written, MSG_NOSIGNAL);
        if (n >= 0) {
            *written += (size_t)n;
        } else if (errno == EAGAIN) {
            watch_output(k, 1);
            return 0;
        } else if (errno != EINTR) {
            return -1;
        }
    }
    watch_output(k, 0);
    return 0;
}

static void connection_read(connection *k)
{
    engine *e = k->engine;
    ssize_t n = recv(k->fd, e->in, IN_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    e->now = clock_now();
    if (n <= 0) {
        if (n == 0)
            e->protocol->ended(k);
        connection_lost(k, OUTCOME_RESET);
        return;
    }
    if (e->protocol->received(k, e->in, (size_t)n) < 0)
        connection_lost(k, OUTCOME_PROTOCOL);
    else
        connection_dirty(k);
}

void connection_event(connection *k, uint32_t events)
{
    if (k->fd < 0)
        return; /* Lost while events of this round were handled. */
    if (k->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        if (getsockopt(k->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
            error = errno;
        if (error)
            connection_lost(k, failure_of(error));
        else if (events & EPOLLOUT)
            connection_opened(k);
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        connection_read(k);
    if (events & EPOLLOUT)
        connection_dirty(k);
}
