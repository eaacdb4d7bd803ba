/* The epoll loop: rounds, listeners, and how it all ends (native.h).

   One thread, level-triggered. Every connection knows the moment when something of it falls due; one pass over all
   connections acts on what is due and finds the next moment, and the loop sleeps until then. So ten thousand idle
   connections cost nothing between two such moments, and nothing per call keeps timers. */
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 256               /* taken in one round */
#define ACCEPTS 64               /* of one listener in one round */
#define BUSY_ROUNDS 64           /* without blocking, before others may run all the same */
#define LISTEN_AGAIN_SECONDS 0.1 /* after accept found no descriptor or memory */
#define LONGEST_WAIT_SECONDS 3600

/* ---- listeners ------------------------------------------------------------------------------------------------ */

static int watch_listener(struct loop *loop, struct listener *listener)
{
    /* EPOLLEXCLUSIVE: processes that share a listening socket are not all woken for one connection. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = listener};
    return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, listener->fd, &event);
}

/* Without descriptors, a level-triggered listener would be reported for ever: it is left alone for a moment. */
static void pause_listeners(struct loop *loop)
{
    for (struct listener *one = loop->listeners; one; one = one->next)
        epoll_ctl(loop->epoll, EPOLL_CTL_DEL, one->fd, NULL);
    loop->listen_again = loop->now + LISTEN_AGAIN_SECONDS;
}

static void resume_listeners(struct loop *loop)
{
    loop->listen_again = INFINITY;
    for (struct listener *one = loop->listeners; one; one = one->next)
        watch_listener(loop, one);
}

static void close_listeners(struct loop *loop)
{
    while (loop->listeners) {
        struct listener *listener = loop->listeners;
        loop->listeners = listener->next;
        epoll_ctl(loop->epoll, EPOLL_CTL_DEL, listener->fd, NULL);
        close(listener->fd);
        free(listener);
    }
    loop->listen_again = INFINITY;
}

static void admit(struct loop *loop, int fd)
{
    if (loop->open >= loop->core.limits.connections || !connection_open(loop, fd)) {
        loop->core.counters.refused_connection_limit++;
        close(fd);
        return;
    }
    loop->core.counters.connections_total++;
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on a Unix socket, which needs none */
}

static void accept_some(struct loop *loop, struct listener *listener, int most)
{
    while (most-- > 0) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            admit(loop, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            loop->core.counters.refused_connection_limit++;
            pause_listeners(loop);
            return;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } /* Anything else is an error of the connection that was to be accepted (accept(2)). */
    }
}

/* ---- drain and stop ------------------------------------------------------------------------------------------- */

/* Takes the connections that wait, so that none is lost with its listener, closes the listeners and drains. */
static void begin_drain(struct loop *loop)
{
    loop->closed = true;
    for (struct listener *one = loop->listeners; one; one = one->next)
        accept_some(loop, one, SOMAXCONN);
    close_listeners(loop);
    loop->drain_until = loop->now + loop->drain_seconds;
    for (struct connection *connection = loop->connections, *next; connection; connection = next) {
        next = connection->next;
        connection_drain(connection, loop->drain_seconds);
    }
}

static void close_everything(struct loop *loop)
{
    close_listeners(loop);
    while (loop->connections)
        connection_close(loop->connections);
    bury(loop);
}

/* Acts on the notes of loop_drain and loop_stop. Gives whether the loop is done. */
static bool is_done(struct loop *loop)
{
    if (loop->draining && !loop->closed && loop->notice_until <= loop->now)
        begin_drain(loop);
    if (loop->stopping || (loop->closed && (!loop->open || loop->drain_until <= loop->now))) {
        close_everything(loop);
        return true;
    }
    return false;
}

/* ---- rounds --------------------------------------------------------------------------------------------------- */

static void check_connections(struct loop *loop)
{
    loop->next_check = INFINITY;
    for (struct connection *connection = loop->connections, *next; connection; connection = next) {
        next = connection->next;
        due_at(loop, connection_check(connection));
    }
    loop->next_check = fmax(loop->next_check, loop->now + CHECK_SECONDS);
}

static int milliseconds_to_wait(const struct loop *loop)
{
    double until = fmin(loop->next_check, loop->listen_again);
    if (loop->draining)
        until = fmin(until, loop->closed ? loop->drain_until : loop->notice_until);
    if (until == INFINITY)
        return -1;
    double wait = fmin(fmax(until - loop->now, 0), LONGEST_WAIT_SECONDS);
    return (int)ceil(wait * 1e3);
}

/* Looks first without letting others run: what is ready is worth more than the switch. */
static int wait_for_events(struct loop *loop, struct epoll_event *events)
{
    int n = epoll_wait(loop->epoll, events, EVENTS, 0);
    if (n != 0 && ++loop->busy_rounds < BUSY_ROUNDS)
        return n;
    loop->busy_rounds = 0;
    loop->around.enter_wait(loop->around.context);
    if (n == 0)
        n = epoll_wait(loop->epoll, events, EVENTS, milliseconds_to_wait(loop));
    int error = errno;
    loop->around.leave_wait(loop->around.context);
    errno = error;
    return n;
}

static void handle(struct loop *loop, void *source)
{
    switch (*(enum source *)source) {
    case LISTENER:
        accept_some(loop, source, ACCEPTS);
        return;
    case CONNECTION:
        connection_event(source);
        return;
    case WAKE:
        while (read(loop->wake_read, loop->input, sizeof loop->input) > 0)
            continue;
        return;
    }
}

int loop_run(struct loop *loop)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        if (loop->around.interrupted(loop->around.context))
            return LOOP_INTERRUPTED;
        loop->now = seconds_now();
        if (is_done(loop))
            return LOOP_ENDED;
        if (loop->listen_again <= loop->now)
            resume_listeners(loop);
        if (loop->next_check <= loop->now)
            check_connections(loop);
        bury(loop);
        int n = wait_for_events(loop, events);
        if (n < 0 && errno != EINTR)
            return LOOP_FAILED;
        loop->now = seconds_now();
        loop->core.round++;
        loop->core.round_calls = 0;
        loop->core.round_share = n > 0 ? loop->core.limits.in_flight / (size_t)n : 0;
        for (int i = 0; i < n; i++)
            handle(loop, events[i].data.ptr);
        bury(loop);
    }
}

/* ---- from outside --------------------------------------------------------------------------------------------- */

struct loop *loop_open(const struct limits *limits, const struct service *service, const struct surroundings *around)
{
    struct loop *loop = malloc(sizeof *loop);
    if (!loop)
        return NULL;
    memset(loop, 0, offsetof(struct loop, input)); /* the buffers become memory as they are used */
    loop->source = WAKE;
    loop->core.limits = *limits;
    loop->core.service = *service;
    loop->around = *around;
    loop->next_check = loop->listen_again = INFINITY;
    loop->scatter = (uint64_t)(seconds_now() * 1e9) | 1;
    loop->epoll = loop->wake_read = loop->wake_write = -1;
    if (core_open(&loop->core)) {
        free(loop);
        errno = ENOMEM;
        return NULL;
    }
    int wake[2];
    if ((loop->epoll = epoll_create1(EPOLL_CLOEXEC)) < 0 || pipe2(wake, O_NONBLOCK | O_CLOEXEC)) {
        loop_close(loop);
        return NULL;
    }
    loop->wake_read = wake[0];
    loop->wake_write = wake[1];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = loop};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake_read, &event)) {
        loop_close(loop);
        return NULL;
    }
    return loop;
}

void loop_close(struct loop *loop)
{
    int error = errno;
    close_everything(loop);
    core_close(&loop->core);
    if (loop->wake_read >= 0) {
        close(loop->wake_read);
        close(loop->wake_write);
    }
    if (loop->epoll >= 0)
        close(loop->epoll);
    free(loop);
    errno = error;
}

int loop_listen(struct loop *loop, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
        return -1;
    struct listener *listener = malloc(sizeof *listener);
    if (!listener)
        return -1;
    *listener = (struct listener){.source = LISTENER, .fd = fd, .next = loop->listeners};
    if (watch_listener(loop, listener)) {
        free(listener);
        return -1;
    }
    loop->listeners = listener;
    return 0;
}

static void wake(struct loop *loop)
{
    ssize_t ignored = write(loop->wake_write, "", 1); /* a full pipe wakes as well */
    (void)ignored;
}

void loop_drain(struct loop *loop, double notice_seconds, double seconds)
{
    double until = seconds_now() + notice_seconds;
    loop->notice_until = loop->draining ? fmin(loop->notice_until, until) : until;
    loop->drain_seconds = seconds;
    loop->draining = true;
    wake(loop);
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
    wake(loop);
}

int loop_wake_fd(const struct loop *loop)
{
    return loop->wake_write;
}

const struct core *loop_core(const struct loop *loop)
{
    return &loop->core;
}

size_t loop_connections(const struct loop *loop)
{
    return loop->open;
}
