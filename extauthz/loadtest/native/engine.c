/* Arrivals, waiting calls, timeouts, and the loop that turns them. */
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 64 };

int64_t clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void engine_wake(engine *e)
{
    uint64_t one = 1;
    /* A full counter is as good as a written one: the loop wakes up. */
    if (write(e->wake_fd, &one, sizeof one) < 0)
        return;
}

/* ---- calls ---- */

/* A free call, NULL without memory. */
static call *call_new(engine *e)
{
    call *c;
    if (!hook_alone(&e->pool)) {
        c = OWNER(call, under_way, e->pool.after);
        hook_remove(&c->under_way);
    } else {
        c = calloc(1, sizeof *c);
        if (!c)
            return NULL;
        hook_reset(&c->under_way);
        hook_reset(&c->place);
        hook_reset(&c->framed);
    }
    c->sent = 0;
    c->stream = -1;
    c->http_status = 0;
    c->grpc_status = -1;
    c->connection = NULL;
    c->body_sent = c->answer_length = 0;
    return c;
}

void call_finish(engine *e, call *c, int outcome)
{
    record *r = &e->records[e->records_tail & (e->ring_size - 1)];
    *r = (record){c->due, c->taken, c->sent, e->now, outcome, c->payload};
    __atomic_store_n(&e->records_tail, e->records_tail + 1, __ATOMIC_RELEASE);
    hook_remove(&c->under_way);
    hook_remove(&c->place);
    hook_remove(&c->framed);
    c->connection = NULL;
    if (c->answer_capacity > ANSWER_KEPT) {
        free(c->answer);
        c->answer = NULL;
        c->answer_capacity = 0;
    }
    hook_append(&e->pool, &c->under_way);
    e->in_flight--;
}

void call_written(call *c, int64_t at)
{
    c->sent = at;
    hook_remove(&c->framed);
}

/* ---- from arrivals to connections ---- */

/* The connection that has waited longest for a call and has room for one; NULL when none has. */
static connection *pick(engine *e)
{
    for (hook *l = e->connections.after; l != &e->connections; l = l->after) {
        connection *k = OWNER(connection, place, l);
        if (k->state == OPEN && e->protocol->room(k) > 0) {
            hook_remove(l);
            hook_append(&e->connections, l);
            return k;
        }
    }
    return NULL;
}

static void give(engine *e, call *c, connection *k)
{
    c->connection = k;
    hook_remove(&c->place);
    hook_append(&k->calls, &c->place);
    if (e->protocol->submit(k, c) < 0)
        e->failed = ENOMEM;
    connection_dirty(k);
}

void engine_give_room(engine *e)
{
    while (!hook_alone(&e->waiting)) {
        connection *k = pick(e);
        if (!k)
            return;
        give(e, OWNER(call, place, e->waiting.after), k);
    }
}

void engine_fail_waiting_if_hopeless(engine *e)
{
    int failure = hook_alone(&e->waiting) ? 0 : connection_failure(e);
    if (!failure)
        return;
    while (!hook_alone(&e->waiting))
        call_finish(e, OWNER(call, place, e->waiting.after), failure);
}

/* Whether the record of one more call is certain to find its place: no sample is ever dropped. */
static int has_record_room(const engine *e)
{
    uint64_t unread = e->records_tail - __atomic_load_n(&e->records_head, __ATOMIC_ACQUIRE);
    return unread + e->in_flight < e->ring_size;
}

static const arrival *next_arrival(const engine *e)
{
    if (e->arrivals_head == __atomic_load_n(&e->arrivals_tail, __ATOMIC_ACQUIRE))
        return NULL;
    return &e->arrivals[e->arrivals_head & (e->ring_size - 1)];
}

static void take_due(engine *e)
{
    const arrival *a;
    while ((a = next_arrival(e)) && a->due <= e->now && has_record_room(e)) {
        call *c = call_new(e);
        if (!c) {
            e->failed = ENOMEM;
            return;
        }
        c->due = a->due;
        c->payload = a->payload;
        c->taken = e->now;
        __atomic_store_n(&e->arrivals_head, e->arrivals_head + 1, __ATOMIC_RELEASE);
        hook_append(&e->under_way, &c->under_way);
        if (++e->in_flight > e->peak_in_flight)
            e->peak_in_flight = e->in_flight;
        connection *k = hook_alone(&e->waiting) ? pick(e) : NULL;
        int failure = k ? 0 : connection_failure(e);
        if (k)
            give(e, c, k);
        else if (failure)
            call_finish(e, c, failure);
        else
            hook_append(&e->waiting, &c->place);
    }
}

/* Forget the arrivals that are not due yet; Python counts them as never asked for. */
static void withdraw(engine *e)
{
    const arrival *a = next_arrival(e);
    if (a && a->due <= e->now)
        return; /* Due, but without room for its record: withdraw when it was taken. */
    uint64_t tail = __atomic_load_n(&e->arrivals_tail, __ATOMIC_ACQUIRE);
    uint64_t count = tail - e->arrivals_head;
    __atomic_store_n(&e->arrivals_head, tail, __ATOMIC_RELEASE);
    __atomic_store_n(&e->withdraw, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&e->withdrawn, e->withdrawn + count, __ATOMIC_RELEASE);
}

/* Calls are under way in the order they were due, so the oldest come first. */
static void expire(engine *e)
{
    while (!hook_alone(&e->under_way)) {
        call *c = OWNER(call, under_way, e->under_way.after);
        if (c->due + e->timeout > e->now)
            return;
        hook_remove(&c->place);
        if (c->connection)
            e->protocol->cancel(c->connection, c);
        call_finish(e, c, OUTCOME_TIMEOUT);
    }
}

/* ---- the loop ---- */

static void arm(engine *e, int64_t at)
{
    if (at == e->timer_at)
        return;
    e->timer_at = at;
    struct itimerspec when = {{0, 0}, {0, 0}};
    if (at != INT64_MAX)
        when.it_value = (struct timespec){at / 1000000000, at % 1000000000};
    if (timerfd_settime(e->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
        e->failed = errno;
}

/* Milliseconds for epoll_wait: 0 when there is work already, otherwise the timer is set to what comes next. */
static int time_to_wait(engine *e)
{
    if (!hook_alone(&e->dirty))
        return 0;
    int64_t at = connections_next_retry(e);
    const arrival *a = next_arrival(e);
    int full = a && !has_record_room(e);
    if (a && !full && a->due < at)
        at = a->due;
    if (!hook_alone(&e->under_way)) {
        int64_t expiry = OWNER(call, under_way, e->under_way.after)->due + e->timeout;
        if (expiry < at)
            at = expiry;
    }
    if (at != INT64_MAX && at - e->spin <= clock_now())
        return 0;
    arm(e, at == INT64_MAX ? at : at - e->spin);
    /* Nothing tells that Python has read records; it does so many times a second. */
    return full ? 1 : -1;
}

static void wait_and_read(engine *e)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(e->epoll_fd, events, EVENTS, time_to_wait(e));
    if (count < 0 && errno != EINTR)
        e->failed = errno;
    for (int i = 0; i < count; i++) {
        void *source = events[i].data.ptr;
        if (source == &e->timer_fd || source == &e->wake_fd) {
            uint64_t times;
            if (read(*(int *)source, &times, sizeof times) < 0 && errno != EAGAIN && errno != EINTR)
                e->failed = errno;
            if (source == &e->timer_fd)
                e->timer_at = INT64_MAX;
        } else {
            connection_event(source, events[i].events);
        }
    }
}

static int watch(engine *e, int *fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = fd};
    return epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, *fd, &event) < 0 ? errno : 0;
}

static int start(engine *e)
{
    e->timer_at = INT64_MAX;
    e->now = clock_now();
    e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    e->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (e->epoll_fd < 0 || e->timer_fd < 0)
        return errno;
    int error = watch(e, &e->timer_fd);
    if (!error)
        error = watch(e, &e->wake_fd);
    return error ? error : connections_open(e);
}

static void end(engine *e)
{
    e->now = clock_now();
    while (!hook_alone(&e->under_way))
        call_finish(e, OWNER(call, under_way, e->under_way.after), OUTCOME_UNFINISHED);
    connections_close(e);
    while (!hook_alone(&e->pool)) {
        call *c = OWNER(call, under_way, e->pool.after);
        hook_remove(&c->under_way);
        free(c->answer);
        free(c);
    }
    if (e->timer_fd >= 0)
        close(e->timer_fd);
    if (e->epoll_fd >= 0)
        close(e->epoll_fd);
    e->timer_fd = e->epoll_fd = -1;
}

int engine_run(engine *e)
{
    e->failed = start(e);
    while (!e->failed && !__atomic_load_n(&e->stop, __ATOMIC_ACQUIRE)) {
        e->now = clock_now();
        take_due(e);
        if (__atomic_load_n(&e->withdraw, __ATOMIC_ACQUIRE))
            withdraw(e);
        expire(e);
        connections_retry(e);
        engine_give_room(e);
        connections_flush(e);
        engine_fail_waiting_if_hopeless(e);
        wait_and_read(e);
    }
    end(e);
    return e->failed;
}
