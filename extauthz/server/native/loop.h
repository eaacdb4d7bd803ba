/* What loop.c (epoll, accept, drain) and connection.c (one socket) share. */
#ifndef EXTAUTHZ_NATIVE_LOOP_H
#define EXTAUTHZ_NATIVE_LOOP_H

#include "native.h"

#define INPUT_BYTES (64 * 1024)
#define OUTPUT_BYTES (128 * 1024)
#define CHECK_SECONDS 0.1 /* at least, between two passes over the connections */

enum source { LISTENER, CONNECTION, WAKE };

struct listener {
    enum source source; /* first, as in each struct that epoll's data points at */
    int fd;             /* owned */
    struct listener *next;
};

struct connection {
    enum source source;
    int fd;                  /* owned; -1 once closed */
    struct loop *loop;       /* borrowed */
    struct session *session; /* owned; NULL before the first byte and while lingering */
    uint8_t *unsent;         /* owned; NULL when the socket takes all. While there is some, nothing is read */
    size_t unsent_length, unsent_offset;
    bool lingering;          /* closed on our side, waits for the peer's */
    bool draining, ending;   /* the first and the second step of the graceful close are taken */
    /* Moments: */
    double accepted;
    double active;  /* when a byte last came in */
    double blocked; /* when a byte last went out, while there is something unsent */
    double drained; /* when draining began */
    double retire;  /* when its age is over; INFINITY for never */
    double end;     /* when it is closed whatever is in flight; INFINITY for never */
    struct connection *previous, *next; /* among the loop's connections, or (next) among the dead */
};

struct loop {
    enum source source;               /* WAKE */
    int epoll, wake_read, wake_write; /* owned */
    struct core core;
    struct surroundings around;
    struct listener *listeners;       /* owned */
    struct connection *connections;   /* owned */
    struct connection *dead;          /* owned, until the end of the round */
    size_t open;                      /* connections */
    double now;                       /* when the round began */
    double next_check;                /* when something of a connection may fall due; never later than that */
    double listen_again;              /* INFINITY while listening */
    size_t busy_rounds;
    bool stopping, draining;          /* asked to; */
    bool closed;                      /* the listeners are closed, and connections are being drained */
    double notice_until, drain_seconds, drain_until;
    uint64_t scatter;                 /* state of a small generator that spreads the ages of connections */
    uint8_t input[INPUT_BYTES];       /* what is being read; */
    uint8_t output[OUTPUT_BYTES];     /* frames on their way to one send: one pair for all connections */
};

/* A connection for an accepted socket, which it owns from then on; NULL when there is no memory, and `fd` is still the
   caller's. */
struct connection *connection_open(struct loop *loop, int fd);

/* Closes at once. The struct lives on until bury(), as events of the round may still point at it. */
void connection_close(struct connection *connection);
void bury(struct loop *loop);

/* The socket is readable, writable or broken. */
void connection_event(struct connection *connection);

/* Begins the two-step graceful close (session_drain); `seconds` are for the calls in flight, INFINITY for no limit. */
void connection_drain(struct connection *connection, double seconds);

/* Acts on what is due, and gives the moment when the next thing is, INFINITY for never. */
double connection_check(struct connection *connection);

/* Something falls due at `moment`: the loop looks at its connections by then. */
static inline void due_at(struct loop *loop, double moment)
{
    if (moment < loop->next_check)
        loop->next_check = moment;
}

#endif
