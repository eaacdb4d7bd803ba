/* One socket: reads for its session, writes what the session has, keeps its times, ends it one way or another. */
#include "loop.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READS_WHEN_SHEDDING 16 /* in one round, so that what waits is seen and shed, not queued */

/* ---- its beginning and end ------------------------------------------------------------------------------------ */

/* `seconds`, a tenth more or less, so that connections that began together do not end together. */
static double scattered(struct loop *loop, double seconds)
{
    loop->scatter ^= loop->scatter << 13; /* xorshift64 */
    loop->scatter ^= loop->scatter >> 7;
    loop->scatter ^= loop->scatter << 17;
    return seconds * (0.9 + 0.2 * (double)(loop->scatter >> 11) / 9007199254740992.0);
}

struct connection *connection_open(struct loop *loop, int fd)
{
    const struct limits *limits = &loop->core.limits;
    struct connection *connection = malloc(sizeof *connection);
    if (!connection)
        return NULL;
    *connection = (struct connection){.source = CONNECTION, .fd = fd, .loop = loop, .accepted = loop->now};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event)) {
        free(connection);
        return NULL;
    }
    connection->active = loop->now;
    connection->end = INFINITY;
    connection->retire = limits->age_seconds > 0 ? loop->now + scattered(loop, limits->age_seconds) : INFINITY;
    due_at(loop, connection->retire);
    if (limits->preface_seconds > 0)
        due_at(loop, loop->now + limits->preface_seconds);
    if (limits->idle_seconds > 0)
        due_at(loop, loop->now + limits->idle_seconds);
    connection->next = loop->connections;
    if (loop->connections)
        loop->connections->previous = connection;
    loop->connections = connection;
    loop->open++;
    return connection;
}

void connection_close(struct connection *connection)
{
    struct loop *loop = connection->loop;
    if (connection->fd < 0)
        return;
    /* Not left to close(2): a child that was just forked may hold the socket open, and epoll would still report it. */
    epoll_ctl(loop->epoll, EPOLL_CTL_DEL, connection->fd, NULL);
    close(connection->fd);
    connection->fd = -1;
    if (connection->session)
        session_close(connection->session);
    connection->session = NULL;
    free(connection->unsent);
    connection->unsent = NULL;
    if (connection->previous)
        connection->previous->next = connection->next;
    else
        loop->connections = connection->next;
    if (connection->next)
        connection->next->previous = connection->previous;
    connection->next = loop->dead;
    loop->dead = connection;
    loop->open--;
}

void bury(struct loop *loop)
{
    while (loop->dead) {
        struct connection *connection = loop->dead;
        loop->dead = connection->next;
        free(connection);
    }
}

/* Closes our side and waits for the peer's: closing at once would reset the connection when something unread is left,
   and the reset may overtake answers that the peer has yet to read. */
static void connection_linger(struct connection *connection)
{
    session_close(connection->session);
    connection->session = NULL;
    connection->lingering = true;
    connection->end = connection->loop->now + LINGER_SECONDS;
    due_at(connection->loop, connection->end);
    if (shutdown(connection->fd, SHUT_WR))
        connection_close(connection);
}

/* ---- output --------------------------------------------------------------------------------------------------- */

static int watch(struct connection *connection, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    return epoll_ctl(connection->loop->epoll, EPOLL_CTL_MOD, connection->fd, &event);
}

/* Sends as much as the socket takes. Gives the number of bytes, -1 when the connection is broken. */
static ssize_t send_some(struct connection *connection, const uint8_t *data, size_t length)
{
    size_t sent = 0;
    while (sent < length) {
        ssize_t n = send(connection->fd, data + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n < 0)
            return -1;
        sent += (size_t)n;
    }
    connection->loop->core.counters.sent_bytes_total += sent;
    return (ssize_t)sent;
}

/* Sends, and keeps what the socket does not take until it is writable again. */
static int send_or_keep(struct connection *connection, const uint8_t *data, size_t length)
{
    struct loop *loop = connection->loop;
    ssize_t sent = connection->unsent ? 0 : send_some(connection, data, length);
    if (sent < 0)
        return -1;
    size_t left = length - (size_t)sent;
    if (!left)
        return 0;
    bool was_blocked = connection->unsent;
    uint8_t *unsent = realloc(connection->unsent, connection->unsent_length + left);
    if (!unsent)
        return -1;
    memcpy(unsent + connection->unsent_length, data + sent, left);
    connection->unsent = unsent;
    connection->unsent_length += left;
    if (was_blocked)
        return 0;
    connection->blocked = loop->now;
    if (loop->core.limits.call_seconds > 0)
        due_at(loop, loop->now + loop->core.limits.call_seconds);
    return watch(connection, EPOLLOUT);
}

/* The socket is writable again. */
static int send_unsent(struct connection *connection)
{
    ssize_t sent = send_some(connection, connection->unsent + connection->unsent_offset,
                             connection->unsent_length - connection->unsent_offset);
    if (sent < 0)
        return -1;
    connection->unsent_offset += (size_t)sent;
    if (sent)
        connection->blocked = connection->loop->now;
    if (connection->unsent_offset < connection->unsent_length)
        return 0;
    free(connection->unsent);
    connection->unsent = NULL;
    connection->unsent_length = connection->unsent_offset = 0;
    return watch(connection, EPOLLIN);
}

/* Sends what the session has, with one send for as many frames as the buffer takes. */
static int send_session(struct connection *connection)
{
    struct loop *loop = connection->loop;
    size_t filled = 0;
    while (!connection->unsent) {
        const uint8_t *data;
        ssize_t n = session_output(connection->session, &data);
        if (n < 0)
            return -1;
        if (n == 0)
            return filled ? send_or_keep(connection, loop->output, filled) : 0;
        size_t length = (size_t)n;
        if (length > sizeof loop->output - filled) {
            if (send_or_keep(connection, loop->output, filled))
                return -1;
            filled = 0;
        }
        if (connection->unsent || length > sizeof loop->output) {
            if (send_or_keep(connection, data, length))
                return -1;
        } else {
            memcpy(loop->output + filled, data, length);
            filled += length;
        }
    }
    return 0;
}

/* After anything that may have left something to send, or an end. The connection may be gone afterwards. */
static void connection_flush(struct connection *connection)
{
    if (connection->unsent)
        return;
    if (send_session(connection))
        connection_close(connection);
    else if (!connection->unsent && session_finished(connection->session))
        connection_linger(connection);
}

/* ---- input ---------------------------------------------------------------------------------------------------- */

static int connection_open_session(struct connection *connection)
{
    if (!connection->session)
        connection->session = session_open(&connection->loop->core);
    return connection->session ? 0 : -1;
}

/* Memory is short: the connection that holds the most of it goes, and again, until the rest is within the limit. */
static void cut_off_largest(struct loop *loop)
{
    while (loop->core.held > loop->core.limits.held_bytes) {
        struct connection *largest = NULL;
        size_t most = 0;
        for (struct connection *one = loop->connections; one; one = one->next) {
            size_t held = one->session ? session_held(one->session) : 0;
            if (held > most) {
                most = held;
                largest = one;
            }
        }
        if (!largest)
            return;
        loop->core.counters.refused_held_bytes++;
        connection_close(largest);
    }
}

/* Gives whether there may be more to read at once. The connection may be gone afterwards. */
static bool connection_read(struct connection *connection)
{
    struct loop *loop = connection->loop;
    const struct limits *limits = &loop->core.limits;
    ssize_t n = recv(connection->fd, loop->input, sizeof loop->input, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return false;
    if (n > 0) {
        loop->core.counters.received_bytes_total += (size_t)n;
        connection->active = loop->now;
        if (connection->lingering)
            return false;
    }
    if (n <= 0 || connection_open_session(connection) ||
        session_input(connection->session, loop->input, (size_t)n)) {
        connection_close(connection);
        return false;
    }
    connection_flush(connection);
    if (loop->core.held > limits->held_bytes)
        cut_off_largest(loop);
    if (!connection->session)
        return false;
    if (session_streams(connection->session)) {
        if (limits->call_seconds > 0)
            due_at(loop, loop->now + limits->call_seconds);
        /* However short deadlines are, they make for no more passes over the connections. */
        due_at(loop, fmax(session_deadline(connection->session), loop->now + CHECK_SECONDS));
    }
    return n == sizeof loop->input && !connection->unsent;
}

void connection_event(struct connection *connection)
{
    const struct core *core = &connection->loop->core;
    if (connection->fd < 0)
        return;
    if (connection->unsent) {
        if (send_unsent(connection))
            connection_close(connection);
        else
            connection_flush(connection);
        return;
    }
    for (int reads = 1; connection_read(connection); reads++) {
        bool sheds = core->limits.in_flight && core->round_calls > core->limits.in_flight;
        if (!sheds || reads == READS_WHEN_SHEDDING)
            return;
    }
}

/* ---- time ----------------------------------------------------------------------------------------------------- */

void connection_drain(struct connection *connection, double seconds)
{
    struct loop *loop = connection->loop;
    if (connection->lingering)
        return;
    connection->end = fmin(connection->end, loop->now + seconds);
    due_at(loop, connection->end);
    if (connection->draining)
        return;
    connection->draining = true;
    connection->drained = loop->now;
    due_at(loop, loop->now + DRAIN_PING_SECONDS);
    if (connection_open_session(connection) || session_drain(connection->session))
        connection_close(connection);
    else
        connection_flush(connection);
}

/* Whether `moment` has come; if not, it is the next thing that falls due, as far as known. */
static bool has_come(const struct connection *connection, double moment, double *due)
{
    if (moment <= connection->loop->now)
        return true;
    *due = fmin(*due, moment);
    return false;
}

/* Gives the counter of what the connection is to be closed for now, or NULL. */
static uint64_t *overdue(const struct connection *connection, double *due)
{
    const struct limits *limits = &connection->loop->core.limits;
    struct counters *counters = &connection->loop->core.counters;
    bool greeted = connection->session && session_greeted(connection->session);
    if (!greeted && !connection->draining && limits->preface_seconds > 0 &&
        has_come(connection, connection->accepted + limits->preface_seconds, due))
        return &counters->refused_preface;
    if (connection->unsent && limits->call_seconds > 0 &&
        has_come(connection, connection->blocked + limits->call_seconds, due))
        return &counters->refused_stalled;
    return NULL;
}

/* Whether a graceful close is to begin. */
static bool is_past_its_time(const struct connection *connection, double *due)
{
    const struct limits *limits = &connection->loop->core.limits;
    if (has_come(connection, connection->retire, due))
        return true;
    /* Without a session there are no calls; with calls, their own time limit comes first. */
    bool busy = connection->session && session_streams(connection->session);
    return limits->idle_seconds > 0 && !busy && has_come(connection, connection->active + limits->idle_seconds, due);
}

double connection_check(struct connection *connection)
{
    struct loop *loop = connection->loop;
    const struct limits *limits = &loop->core.limits;
    double due = INFINITY;
    uint64_t *counter = NULL;
    if (has_come(connection, connection->end, &due) ||
        (!connection->lingering && (counter = overdue(connection, &due)))) {
        if (counter)
            ++*counter;
        connection_close(connection);
        return INFINITY;
    }
    if (connection->lingering)
        return due;
    if (!connection->draining && is_past_its_time(connection, &due)) {
        connection_drain(connection, limits->age_grace_seconds > 0 ? limits->age_grace_seconds : INFINITY);
        return INFINITY; /* connection_drain has told the loop what is due next. */
    }
    if (!connection->session)
        return due;
    if (connection->draining && !connection->ending &&
        has_come(connection, connection->drained + DRAIN_PING_SECONDS, &due)) {
        connection->ending = true;
        if (session_end(connection->session)) {
            connection_close(connection);
            return INFINITY;
        }
    }
    due = fmin(due, session_expire(connection->session, loop->now));
    connection_flush(connection);
    return connection->fd < 0 ? INFINITY : due;
}
