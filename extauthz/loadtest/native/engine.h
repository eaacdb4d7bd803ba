/* The sending engine of the load tester: what its parts share.
 *
 * One thread (`engine_run`, without the GIL) sends calls at the times it is given, over a fixed number of connections,
 * and writes down when each was due, taken up, written out and answered. It is never slowed by answers: a call that no
 * connection has room for waits in the engine, and the wait is part of its latency. Arrivals come and records go through
 * two rings with one writer and one reader each, so the thread that owns Python never holds a send up.
 *
 * engine.c       arrivals, waiting calls, timeouts, the loop
 * connection.c   sockets: connect, reconnect, read, lose
 * http2.c        Check calls (gRPC) and h2c requests on nghttp2
 * http1.c        HTTP/1.1 requests
 * answer.c       CheckResponse bytes -> outcome
 * module.c       the Python type
 */
#ifndef EXTAUTHZ_LOADTEST_ENGINE_H
#define EXTAUTHZ_LOADTEST_ENGINE_H

#include <nghttp2/nghttp2.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/* How a call ended: an HTTP status (a Check call that was denied: the status of its denied_response), OUTCOME_ALLOWED
 * for a Check call that was allowed, or one of these. outcomes.py has the same numbers. */
enum {
    OUTCOME_ALLOWED = 0,
    OUTCOME_REFUSED = -1,        /* nobody listens */
    OUTCOME_UNREACHABLE = -2,    /* another failure to connect */
    OUTCOME_RESET = -3,          /* the connection or the stream ended before the answer */
    OUTCOME_TIMEOUT = -4,        /* no answer within the timeout, counted from when the call was due */
    OUTCOME_PROTOCOL = -5,       /* the answer cannot be understood */
    OUTCOME_REFUSED_STREAM = -6, /* RST_STREAM REFUSED_STREAM: not looked at */
    OUTCOME_UNFINISHED = -7,     /* under way when the run was ended */
    OUTCOME_GRPC = -100,         /* less the gRPC status: -114 is UNAVAILABLE */
};

enum {
    OUT_BYTES = 64 * 1024,          /* gathered for one write */
    IN_BYTES = 64 * 1024,           /* of one read */
    ANSWER_BYTES = 4 * 1024 * 1024, /* the largest answer to a Check call, as gRPC's clients */
    ANSWER_KEPT = 16 * 1024,        /* the largest answer buffer that a call keeps for its next use */
    HEADER_FIELDS = 128,            /* of one request */
    LINE_BYTES = 16 * 1024,         /* of one header line of an HTTP/1.1 answer */
};

/* A place in a doubly linked list; a list is a link that is its own neighbour when empty. */
typedef struct hook {
    struct hook *before, *after;
} hook;

#define OWNER(type, member, place) ((type *)(void *)((char *)(place)-offsetof(type, member)))

static inline void hook_reset(hook *l) { l->before = l->after = l; }
static inline int hook_alone(const hook *l) { return l->after == l; }
static inline void hook_remove(hook *l)
{
    l->before->after = l->after;
    l->after->before = l->before;
    hook_reset(l);
}
static inline void hook_append(hook *list, hook *l)
{
    l->before = list->before;
    l->after = list;
    list->before->after = l;
    list->before = l;
}

/* Bytes of a request, owned by a Python object that outlives the engine: for Check the CheckRequest, for HTTP/1.1 the
 * whole request, for h2c its packed header fields (`fields_unpack`) and then the body. */
typedef struct {
    const uint8_t *data;
    size_t length;
} payload;

typedef struct {
    int64_t due; /* CLOCK_MONOTONIC, ns */
    uint32_t payload;
    uint32_t unused;
} arrival;

/* One finished call, as Python reads it. Times are CLOCK_MONOTONIC in ns; `sent` is 0 when it was never written out. */
typedef struct {
    int64_t due, taken, sent, done;
    int32_t outcome;
    uint32_t payload;
} record;

struct connection;

typedef struct call {
    int64_t due, taken, sent;
    uint32_t payload;
    int32_t stream;                /* HTTP/2 stream id */
    int32_t http_status;           /* 0 until seen */
    int32_t grpc_status;           /* -1 until seen */
    struct connection *connection; /* NULL while it waits for one */
    hook under_way;                /* in engine.under_way, by due time; in engine.pool when free */
    hook place;                    /* in engine.waiting or connection.calls */
    hook framed;                   /* in connection.framed from its last frame to the write that carries it */
    uint64_t framed_end;           /* of connection.out_total: when so much is written, the call is */
    size_t body_sent;
    uint8_t *answer; /* owned; the DATA of a Check call */
    size_t answer_length, answer_capacity;
} call;

typedef struct engine engine;

enum { CLOSED, CONNECTING, OPEN, LEAVING /* no new calls: GOAWAY, or `connection: close` */ };

/* What a parser of HTTP/1.1 answers is at. */
enum { STATUS_LINE, HEADER_LINE, BODY, BODY_TO_END, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER_LINE };

typedef struct connection {
    engine *engine;
    int fd, state, wants_out, dirty;
    int64_t retry_at;    /* when CLOSED */
    int failure;         /* the outcome of calls while it cannot be opened; 0: not known to fail */
    uint64_t answered;   /* calls since it was opened */
    hook calls, framed;  /* of call */
    hook place;          /* in engine.connections or engine.leaving */
    hook dirty_place;    /* in engine.dirty */
    nghttp2_session *h2; /* owned */
    uint32_t in_use;     /* streams */
    int faulty;          /* nghttp2 has ended it for what the peer sent */
    uint8_t *out;        /* owned, OUT_BYTES + one frame */
    size_t out_length, out_written;
    uint64_t out_total;  /* bytes written before those in `out` */
    /* HTTP/1.1: the parser of the one answer under way, and what is left to write of its request */
    const uint8_t *request;
    size_t request_left;
    int at, keep_alive, chunked, old_version;
    int64_t body_left; /* -1: no length given */
    int status;
    char *line; /* owned, LINE_BYTES */
    size_t line_length;
} connection;

/* What a protocol does with a connection. Functions that return int give 0, or -1 when the connection is to be lost. */
typedef struct {
    int (*opened)(connection *);
    uint32_t (*room)(connection *); /* for how many more calls */
    int (*submit)(connection *, call *);
    int (*received)(connection *, const uint8_t *, size_t);
    int (*write)(connection *);           /* as much as the socket takes of what waits */
    void (*cancel)(connection *, call *); /* its answer is no longer wanted; the call is detached afterwards */
    int (*ended)(connection *);          /* the peer has closed: 0 when that completed an answer */
} protocol;

extern const protocol check_protocol, http2_protocol, http1_protocol;

struct engine {
    /* set before the run, not changed after */
    const protocol *protocol;
    struct sockaddr_storage address;
    socklen_t address_length;
    payload *payloads; /* owned array, borrowed bytes */
    size_t payload_count;
    payload headers; /* of every Check call, packed */
    int64_t timeout;
    int64_t spin; /* ns before a call is due that are waited for awake */
    uint32_t connection_count;

    /* rings: one side writes `tail`, the other `head`; sizes are powers of two */
    arrival *arrivals; /* Python writes, engine reads */
    uint64_t arrivals_head, arrivals_tail;
    record *records; /* engine writes, Python reads */
    uint64_t records_head, records_tail;
    uint64_t ring_size;

    /* requests of Python to the running engine */
    int stop, withdraw, wake_fd;
    uint64_t withdrawn;

    /* the engine's own */
    int epoll_fd, timer_fd, failed;
    int64_t now, timer_at;
    hook under_way, waiting, pool, connections, leaving, dirty;
    uint64_t in_flight, peak_in_flight, opened;
    uint32_t closed; /* connections in that state */
    nghttp2_session_callbacks *callbacks; /* owned */
    uint8_t *in;                          /* owned, IN_BYTES */
};

/* engine.c */
int64_t clock_now(void);
int engine_run(engine *e);                                   /* 0, or errno */
void engine_wake(engine *e);                                 /* any thread */
void call_finish(engine *e, call *c, int outcome);           /* records it and takes it back */
void call_written(call *c, int64_t at);
void engine_give_room(engine *e);                            /* waiting calls to connections that have room */
void engine_fail_waiting_if_hopeless(engine *e);

/* connection.c */
int connections_open(engine *e);                             /* 0, or errno */
void connection_event(connection *c, uint32_t events);
void connection_dirty(connection *c);
void connections_flush(engine *e);
void connections_retry(engine *e);
int64_t connections_next_retry(engine *e);                   /* INT64_MAX when none */
void connection_leave(connection *c, int sent_away);         /* no new calls on it; a new one takes its place */
int connection_write(connection *c, const uint8_t *data, size_t length, size_t *written); /* 0, or -1 */
void connections_close(engine *e);
int connection_failure(engine *e);                           /* the outcome when no connection can be had, else 0 */

/* http2.c */
ssize_t fields_unpack(payload from, nghttp2_nv *fields, size_t *body); /* how many, or -1; `body`: where it starts */

/* answer.c */
int check_outcome(const uint8_t *message, size_t length); /* of DATA: a gRPC message, its prefix included */

#endif
