/* What session.c (an HTTP/2 connection) and call.c (a gRPC call on one of its streams) share. */
#ifndef EXTAUTHZ_NATIVE_SESSION_H
#define EXTAUTHZ_NATIVE_SESSION_H

#include "native.h"

#include <nghttp2/nghttp2.h>

#define PREFIX_BYTES 5 /* of a gRPC message: compressed flag, length */

struct stream {
    struct session *session;        /* borrowed */
    struct stream *older, *newer;   /* in the session, by age; `newer` alone links spare ones */
    int32_t id;
    bool is_post, is_grpc, has_te;
    bool ended;                     /* the frame with END_STREAM has at least begun */
    bool answered;                  /* an answer or error is submitted; what still comes in is dropped */
    size_t method;                  /* index in the service, or NO_METHOD */
    size_t header_bytes;
    double begun, timeout;          /* seconds; the caller's timeout: INFINITY for none, negative when malformed */
    uint8_t prefix[PREFIX_BYTES];   /* of the message as far as it has come; later of the answer */
    size_t prefix_length;
    size_t length, received;        /* of the message, without prefix */
    uint8_t *buffer;                /* owned; what has come of a message in parts, or NULL */
    size_t capacity;
    const uint8_t *lent;            /* the whole message, inside the input being read, or NULL */
    struct answer answer;           /* owner is owned until released */
    size_t sent;                    /* of prefix and answer */
};

struct session {
    struct core *core;              /* borrowed, outlives the session */
    nghttp2_session *h2;            /* owned */
    struct stream *oldest, *newest; /* owned */
    struct stream *lender;          /* the stream whose message is `lent`: at most one, as frames come one by one */
    size_t streams;
    size_t held;                    /* this session's part of core->held */
    uint64_t round;                 /* the round in which */
    size_t round_calls;             /* so many calls were found */
    double control_credit, control_at; /* frames, and when last refilled */
    double deadline;                /* not later than the first deadline (grpc-timeout) of a call without an answer */
    bool greeted, flooded, draining, ending;
    bool corrupt;                   /* sending ran out of memory: nghttp2 1.52 would free twice when it is deleted, so
                                       that what it still has is left behind */
};

/* With core->memory, or malloc. */
void *allocate(const struct core *core, size_t size);
void *reallocate(const struct core *core, void *block, size_t size);
void deallocate(const struct core *core, void *block);

/* A new stream at the young end of the session's list, or NULL; and its end, which gives back all it holds. */
struct stream *stream_open(struct session *session, int32_t id);
void stream_close(struct stream *stream);

/* The steps of a call, in order. Each returns 0 or an error of nghttp2 that ends the connection; whether the call was
   answered on the way, `stream->answered` says. */
void call_header(struct stream *stream, const uint8_t *name, size_t length, const uint8_t *value, size_t value_length);
int call_begin(struct stream *stream);
int call_data(struct stream *stream, const uint8_t *data, size_t length);
int call_finish(struct stream *stream);

/* The input that was read is about to go away: keeps the message that a stream has only been lent. */
int call_give_back(struct session *session);

/* The call is older than limits.call_seconds. */
int call_expire(struct stream *stream);

#endif
