/* The native transport: gRPC over HTTP/2 on libnghttp2, one thread, no queues. What its files share.

   session.c   one HTTP/2 connection as a machine: bytes in, calls out, bytes out. Knows no sockets and no Python;
   call.c      one gRPC call on a stream of it.
   loop.c      sockets and time: epoll, accept, limits on connections, timers, drain. Knows no HTTP/2 and no Python.
   module.c    the Python type: options in, handlers called, the GIL. Knows neither HTTP/2 nor sockets.

   A round of the loop looks at the sockets once, then for each that has something: read it into the one input buffer,
   let the session take calls out of it, let the handler answer each complete call at once, and write all answers of
   the connection with one send. Nothing waits inside: an answer that a peer does not take is the only thing that is
   kept, and while a socket is full its connection is not read either.

   Ownership. A `loop` owns its connections and listeners, a connection its `session` and its unsent bytes, a session
   its nghttp2 session and its streams, a stream the part of a message that has arrived and the answer until it is
   sent. All of it lives in one thread (module.c: under the GIL); nothing is shared, locked or atomic.

   Errors. Functions that can fail return 0 or a negative number; a failure always ends at most the connection it
   happened on. Nothing asserts on input or on memory. */
#ifndef EXTAUTHZ_NATIVE_H
#define EXTAUTHZ_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- limits and counters ------------------------------------------------------------------------------------- */

/* What a peer may take. 0 in a time, and in `in_flight`, means without limit. */
struct limits {
    size_t message_bytes;  /* one message, without its 5-byte prefix; larger: RESOURCE_EXHAUSTED */
    size_t header_bytes;   /* all header fields of a call, as SETTINGS_MAX_HEADER_LIST_SIZE counts them */
    size_t streams;        /* concurrent streams of a connection (SETTINGS_MAX_CONCURRENT_STREAMS) */
    size_t connections;    /* open at once; further ones are closed when accepted */
    size_t in_flight;      /* calls that wait together: found in one round; further ones: RESOURCE_EXHAUSTED */
    size_t held_bytes;     /* unfinished messages and unsent answers of all connections; the largest holder goes */
    double preface_seconds;   /* from accept to the client's SETTINGS */
    double idle_seconds;      /* without a byte from the peer; then a graceful close */
    double call_seconds;      /* from a call's first header to its last byte, and for a full socket to take anything */
    double age_seconds;       /* of a connection, a tenth more or less; then a graceful close */
    double age_grace_seconds; /* for the calls in flight after that */
};

/* Control frames (all but HEADERS and filled DATA): a bucket that calls and time refill. Envoy resets a call whenever
   its client leaves, so resets come in bursts as large as its load. */
#define CONTROL_FRAMES_BURST 20000
#define CONTROL_FRAMES_PER_SECOND 10000
#define CONTROL_FRAMES_PER_CALL 8

#define STREAM_WINDOW_BYTES (1 << 20)     /* flow control: what a peer may send ahead on a stream, */
#define CONNECTION_WINDOW_BYTES (16 << 20) /* and on a connection; none of it is ever waiting here */
#define DRAIN_PING_SECONDS 1.0 /* for the PING between the two GOAWAYs to come back */
#define LINGER_SECONDS 1.0     /* for the peer to close after us, so that no reset destroys what it has yet to read */

#define COUNTERS(X)                                                                                                    \
    X(connections_total)                                                                                               \
    X(calls_total)            /* handed to a handler */                                                                \
    X(handler_errors_total)   /* of these, answered with an error */                                                   \
    X(resets_total)           /* RST_STREAM frames received */                                                         \
    X(received_bytes_total)                                                                                            \
    X(sent_bytes_total)                                                                                                \
    X(refused_connection_limit)                                                                                        \
    X(refused_preface)        /* no HTTP/2 preface, or not in time */                                                  \
    X(refused_protocol)       /* frames that break HTTP/2: each ends its stream or connection */                       \
    X(refused_flood)          /* connections ended for too many control frames */                                      \
    X(refused_held_bytes)     /* connections cut off as the largest holder of memory */                                \
    X(refused_stalled)        /* connections that did not take what was sent */                                        \
    X(refused_headers)        /* calls, from here on */                                                                \
    X(refused_content_type)                                                                                            \
    X(refused_te)                                                                                                      \
    X(refused_method)         /* unknown path, or not POST */                                                          \
    X(refused_message_size)                                                                                            \
    X(refused_message_form)   /* compressed, or of another length than announced */                                    \
    X(refused_in_flight)                                                                                               \
    X(refused_deadline)       /* the caller's (grpc-timeout), or call_seconds */

struct counters {
#define DECLARE(name) uint64_t name;
    COUNTERS(DECLARE)
#undef DECLARE
};

/* ---- sessions (session.c) ------------------------------------------------------------------------------------ */

/* The answer to one call. `data` lies in `owner`, which whoever holds the answer gives back to `release`. */
struct answer {
    int status;           /* gRPC status; 0: `data` is the message, otherwise the error's text (UTF-8) */
    const uint8_t *data;
    size_t length;
    void *owner;          /* NULL: nothing to give back */
};

/* A method that can be called. `path` is borrowed from the service. */
struct method {
    const char *path;
    size_t path_length;
    bool probe;           /* never refused for `in_flight`: a health check is not load */
};

/* Who answers calls. `message` is lent for the time of the call. */
struct service {
    void *context;
    const struct method *methods;
    size_t method_count;
    void (*call)(void *context, size_t method, const uint8_t *message, size_t length, struct answer *answer);
    void (*release)(void *context, void *owner);
};

struct session;
struct stream;

/* What the sessions of one loop share; outlives them. */
struct core {
    struct limits limits;
    struct counters counters;
    struct service service;
    void *callbacks;          /* nghttp2_session_callbacks, owned */
    void *options;            /* nghttp2_option, owned */
    const void *memory;       /* nghttp2_mem, borrowed; NULL: malloc. Only tests set it, to make allocations fail */
    struct stream *spare;     /* streams kept for the next calls, owned */
    size_t spares;
    size_t streams;           /* open now */
    size_t held;              /* bytes counted against limits.held_bytes */
    uint64_t round;           /* the loop's round, */
    size_t round_calls;       /* calls that it found so far, */
    size_t round_share;       /* and how many each connection may have in any case */
};

/* Prepares a core whose limits, service and memory are set. Returns -1 when there is no memory. */
int core_open(struct core *core);
void core_close(struct core *core);

/* The version of the nghttp2 that is loaded. */
const char *http2_library_version(void);

/* Monotonic seconds. */
double seconds_now(void);

/* A new connection's session, with its SETTINGS waiting to be sent; NULL when there is no memory. */
struct session *session_open(struct core *core);
void session_close(struct session *session);

/* Takes what was read, calling handlers. Negative: the connection is over once what session_output gives is sent. */
int session_input(struct session *session, const uint8_t *data, size_t length);

/* Points `data` at the next bytes to send, valid until the next call. Returns their number, 0 for none, negative when
   the connection is broken. */
ssize_t session_output(struct session *session, const uint8_t **data);

/* Whether nothing more will be read or written: the connection can be closed. */
bool session_finished(const struct session *session);

/* Whether the client's preface and SETTINGS have come. */
bool session_greeted(const struct session *session);

/* The first step of a graceful close: GOAWAY without an end, and PING. The second, GOAWAY with the last stream, follows
   when the PING comes back, or with `session_end`. Calls up to it are answered. */
int session_drain(struct session *session);
int session_end(struct session *session);

/* Ends calls that are past their caller's deadline or older than limits.call_seconds. Gives the moment when the next
   one is due, INFINITY for never. */
double session_expire(struct session *session, double now);

/* Not later than the first deadline of a call whose message has not come yet; INFINITY for none. */
double session_deadline(const struct session *session);

size_t session_streams(const struct session *session);
size_t session_held(const struct session *session);

/* ---- the loop (loop.c) --------------------------------------------------------------------------------------- */

/* What the loop asks of its surroundings. */
struct surroundings {
    void *context;
    void (*enter_wait)(void *context); /* about to block: others may run */
    void (*leave_wait)(void *context);
    bool (*interrupted)(void *context); /* whether loop_run must return now; asked once a round */
};

struct loop;

/* Returns NULL with errno. What it is given is copied; what that points at is borrowed. */
struct loop *loop_open(const struct limits *limits, const struct service *service, const struct surroundings *around);
void loop_close(struct loop *loop);

/* Accepts from `fd`, a listening socket, which the loop owns from then on; at -1, with errno, the caller still does. */
int loop_listen(struct loop *loop, int fd);

enum { LOOP_ENDED = 0, LOOP_INTERRUPTED = 1, LOOP_FAILED = -1 };

/* Runs until drained or stopped (LOOP_ENDED), interrupted (can be run again), or LOOP_FAILED with errno. */
int loop_run(struct loop *loop);

/* These only leave a note and wake the loop: from any thread that may (module.c: the GIL), and from handlers. */
void loop_drain(struct loop *loop, double notice_seconds, double seconds);
void loop_stop(struct loop *loop);

/* A byte written here wakes the loop (signal.set_wakeup_fd). */
int loop_wake_fd(const struct loop *loop);

const struct core *loop_core(const struct loop *loop);
size_t loop_connections(const struct loop *loop);

#endif
