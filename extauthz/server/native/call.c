/* A gRPC call on one stream of an HTTP/2 connection: what it must have, how its message comes together, how it is
   answered or refused (PROTOCOL-HTTP2.md of gRPC), and what it holds meanwhile. */
#include "session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, DEADLINE_EXCEEDED = 4, RESOURCE_EXHAUSTED = 8, UNIMPLEMENTED = 12, INTERNAL = 13 };

#define SPARE_STREAMS 256
#define FIRST_BUFFER_BYTES 4096 /* for a message that comes in parts; doubled up to its length as parts arrive */
#define ERROR_TEXT_BYTES 1024   /* of grpc-message, percent-encoded; longer texts are cut */
#define NO_METHOD SIZE_MAX

/* ---- memory --------------------------------------------------------------------------------------------------- */

void *allocate(const struct core *core, size_t size)
{
    nghttp2_mem *memory = (nghttp2_mem *)core->memory;
    return memory ? memory->malloc(size, memory->mem_user_data) : malloc(size);
}

void *reallocate(const struct core *core, void *block, size_t size)
{
    nghttp2_mem *memory = (nghttp2_mem *)core->memory;
    return memory ? memory->realloc(block, size, memory->mem_user_data) : realloc(block, size);
}

void deallocate(const struct core *core, void *block)
{
    nghttp2_mem *memory = (nghttp2_mem *)core->memory;
    if (memory)
        memory->free(block, memory->mem_user_data);
    else
        free(block);
}

static void hold(struct session *session, size_t bytes)
{
    session->held += bytes;
    session->core->held += bytes;
}

static void unhold(struct session *session, size_t bytes)
{
    session->held -= bytes;
    session->core->held -= bytes;
}

struct stream *stream_open(struct session *session, int32_t id)
{
    struct core *core = session->core;
    struct stream *stream = core->spare;
    if (stream) {
        core->spare = stream->newer;
        core->spares--;
    } else if (!(stream = allocate(core, sizeof *stream))) {
        return NULL;
    }
    *stream = (struct stream){
        .session = session, .id = id, .method = NO_METHOD, .begun = seconds_now(), .timeout = INFINITY};
    stream->older = session->newest;
    if (session->newest)
        session->newest->newer = stream;
    else
        session->oldest = stream;
    session->newest = stream;
    session->streams++;
    core->streams++;
    return stream;
}

static void stream_drop_message(struct stream *stream)
{
    struct session *session = stream->session;
    if (stream->buffer) {
        deallocate(session->core, stream->buffer);
        unhold(session, stream->capacity);
        stream->buffer = NULL;
        stream->capacity = 0;
    }
    stream->lent = NULL;
    if (session->lender == stream)
        session->lender = NULL;
}

static void stream_drop_answer(struct stream *stream)
{
    const struct service *service = &stream->session->core->service;
    unhold(stream->session, stream->answer.length);
    if (stream->answer.owner)
        service->release(service->context, stream->answer.owner);
    stream->answer = (struct answer){0};
}

void stream_close(struct stream *stream)
{
    struct session *session = stream->session;
    struct core *core = session->core;
    stream_drop_message(stream);
    stream_drop_answer(stream);
    if (stream->older)
        stream->older->newer = stream->newer;
    else
        session->oldest = stream->newer;
    if (stream->newer)
        stream->newer->older = stream->older;
    else
        session->newest = stream->older;
    if (!--session->streams)
        session->deadline = INFINITY;
    core->streams--;
    if (core->spares < SPARE_STREAMS) {
        stream->newer = core->spare;
        core->spare = stream;
        core->spares++;
    } else {
        deallocate(core, stream);
    }
}

/* ---- answers -------------------------------------------------------------------------------------------------- */

#define STATIC (NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)
#define FIELD(name, value, length, flags) {(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, length, flags}
#define CONSTANT(name, value) FIELD(name, value, sizeof(value) - 1, STATIC)

/* What a callback of nghttp2 returns after submitting something: only want of memory can go wrong, and ends all. */
static int submitted(int error)
{
    return error ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* nghttp2_data_source_read_callback: the next part of prefix and message, then the trailers. */
static ssize_t read_answer(nghttp2_session *h2, int32_t id, uint8_t *out, size_t room, uint32_t *flags,
                           nghttp2_data_source *source, void *context)
{
    (void)context;
    struct stream *stream = source->ptr;
    size_t written = 0, total = PREFIX_BYTES + stream->answer.length;
    while (stream->sent < PREFIX_BYTES && written < room)
        out[written++] = stream->prefix[stream->sent++];
    size_t part = total - stream->sent;
    if (part > room - written)
        part = room - written;
    if (part) {
        memcpy(out + written, stream->answer.data + (stream->sent - PREFIX_BYTES), part);
        stream->sent += part;
        written += part;
    }
    if (stream->sent == total) {
        static const nghttp2_nv trailers[] = {CONSTANT("grpc-status", "0")};
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (submitted(nghttp2_submit_trailer(h2, id, trailers, 1)))
            return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return (ssize_t)written;
}

/* Takes over `answer`, whose status is 0. */
static int submit_message(struct stream *stream, const struct answer *answer)
{
    static const nghttp2_nv headers[] = {CONSTANT(":status", "200"), CONSTANT("content-type", "application/grpc")};
    stream->answer = *answer;
    hold(stream->session, answer->length);
    stream->prefix[0] = 0;
    for (int i = 0; i < 4; i++)
        stream->prefix[1 + i] = (uint8_t)(answer->length >> (24 - 8 * i));
    const nghttp2_data_provider provider = {.source = {.ptr = stream}, .read_callback = read_answer};
    return submitted(nghttp2_submit_response(stream->session->h2, stream->id, headers, 2, &provider));
}

static size_t percent_encode(const uint8_t *text, size_t length, char *out, size_t room)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t used = 0;
    for (size_t i = 0; i < length && used + 3 <= room; i++) {
        if (text[i] >= 0x20 && text[i] <= 0x7e && text[i] != '%') {
            out[used++] = (char)text[i];
        } else {
            out[used++] = '%';
            out[used++] = digits[text[i] >> 4];
            out[used++] = digits[text[i] & 15];
        }
    }
    return used;
}

/* Ends the call with an error, trailers-only. */
static int fail(struct stream *stream, int status, const void *text, size_t length)
{
    char code[12], encoded[ERROR_TEXT_BYTES];
    size_t code_length = (size_t)snprintf(code, sizeof code, "%d", status);
    size_t encoded_length = percent_encode(text, length, encoded, sizeof encoded);
    const nghttp2_nv headers[] = {
        CONSTANT(":status", "200"),
        CONSTANT("content-type", "application/grpc"),
        FIELD("grpc-status", code, code_length, NGHTTP2_NV_FLAG_NO_COPY_NAME),
        FIELD("grpc-message", encoded, encoded_length, NGHTTP2_NV_FLAG_NO_COPY_NAME),
        CONSTANT("grpc-accept-encoding", "identity"),
    };
    stream->answered = true;
    stream_drop_message(stream);
    size_t count = sizeof headers / sizeof *headers - (status == UNIMPLEMENTED ? 0 : 1);
    return submitted(nghttp2_submit_response(stream->session->h2, stream->id, headers, count, NULL));
}

static int fail_with(struct stream *stream, uint64_t *counter, int status, const char *text)
{
    ++*counter;
    return fail(stream, status, text, strlen(text));
}

/* Ends a request that is no gRPC call with an HTTP status, so that no client takes the 200 of an error for success. */
static int refuse_http(struct stream *stream, uint64_t *counter, const char *status)
{
    const nghttp2_nv headers[] = {FIELD(":status", status, 3, NGHTTP2_NV_FLAG_NO_COPY_NAME)};
    ++*counter;
    stream->answered = true;
    return submitted(nghttp2_submit_response(stream->session->h2, stream->id, headers, 1, NULL));
}

/* ---- a call, step by step ------------------------------------------------------------------------------------- */

#define IS(text) (length == sizeof(text) - 1 && !memcmp(name, text, sizeof(text) - 1))

static size_t find_method(const struct service *service, const uint8_t *path, size_t length)
{
    for (size_t i = 0; i < service->method_count; i++)
        if (service->methods[i].path_length == length && !memcmp(service->methods[i].path, path, length))
            return i;
    return NO_METHOD;
}

static bool is_grpc_type(const uint8_t *value, size_t length)
{
    static const char type[] = "application/grpc";
    const size_t n = sizeof type - 1;
    return length >= n && !memcmp(value, type, n) && (length == n || value[n] == '+' || value[n] == ';');
}

/* grpc-timeout: at most 8 digits and a unit. Gives seconds, negative when it is malformed. */
static double read_timeout(const uint8_t *value, size_t length)
{
    if (length < 2 || length > 9)
        return -1;
    double number = 0;
    for (size_t i = 0; i < length - 1; i++) {
        if (value[i] < '0' || value[i] > '9')
            return -1;
        number = number * 10 + (value[i] - '0');
    }
    switch (value[length - 1]) {
    case 'H': return number * 3600;
    case 'M': return number * 60;
    case 'S': return number;
    case 'm': return number / 1e3;
    case 'u': return number / 1e6;
    case 'n': return number / 1e9;
    default: return -1;
    }
}

void call_header(struct stream *stream, const uint8_t *name, size_t length, const uint8_t *value, size_t value_length)
{
    if (IS(":path")) {
        stream->method = find_method(&stream->session->core->service, value, value_length);
    } else if (IS(":method")) {
        stream->is_post = value_length == 4 && !memcmp(value, "POST", 4);
    } else if (IS("content-type")) {
        stream->is_grpc = is_grpc_type(value, value_length);
    } else if (IS("te")) {
        stream->has_te = true; /* nghttp2 lets no other value than "trailers" pass */
    } else if (IS("grpc-timeout")) {
        stream->timeout = read_timeout(value, value_length);
    }
}

/* All headers are here: whether this is a call that can be made. */
int call_begin(struct stream *stream)
{
    struct core *core = stream->session->core;
    struct counters *counters = &core->counters;
    if (stream->header_bytes > core->limits.header_bytes)
        return fail_with(stream, &counters->refused_headers, RESOURCE_EXHAUSTED, "Header list larger than max");
    if (!stream->is_post)
        return refuse_http(stream, &counters->refused_method, "405");
    if (!stream->is_grpc)
        return refuse_http(stream, &counters->refused_content_type, "415");
    if (!stream->has_te)
        return fail_with(stream, &counters->refused_te, INTERNAL, "Missing header te: trailers");
    if (stream->timeout < 0)
        return fail_with(stream, &counters->refused_headers, INTERNAL, "Malformed header grpc-timeout");
    if (stream->method == NO_METHOD)
        return fail_with(stream, &counters->refused_method, UNIMPLEMENTED, "Method not found!");
    if (stream->begun + stream->timeout < stream->session->deadline)
        stream->session->deadline = stream->begun + stream->timeout;
    return 0;
}

/* The prefix is complete: whether the message can be taken. */
static int begin_message(struct stream *stream)
{
    struct core *core = stream->session->core;
    struct counters *counters = &core->counters;
    const uint8_t *prefix = stream->prefix;
    if (prefix[0] == 1)
        return fail_with(stream, &counters->refused_message_form, UNIMPLEMENTED, "Compressed message");
    if (prefix[0])
        return fail_with(stream, &counters->refused_message_form, INTERNAL, "Malformed message prefix");
    stream->length =
        (size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 | (size_t)prefix[4];
    if (stream->length <= core->limits.message_bytes)
        return 0;
    char text[96];
    snprintf(text, sizeof text, "Received message larger than max (%zu vs. %zu)", stream->length,
             core->limits.message_bytes);
    return fail_with(stream, &counters->refused_message_size, RESOURCE_EXHAUSTED, text);
}

/* Keeps a part of a message. The buffer grows with what has come, not with what was announced. */
static int keep(struct stream *stream, const uint8_t *data, size_t length)
{
    struct session *session = stream->session;
    size_t needed = stream->received + length;
    if (needed > stream->capacity) {
        size_t capacity = stream->capacity ? 2 * stream->capacity : FIRST_BUFFER_BYTES;
        if (capacity < needed)
            capacity = needed;
        if (capacity > stream->length)
            capacity = stream->length;
        uint8_t *buffer = reallocate(session->core, stream->buffer, capacity);
        if (!buffer)
            return fail_with(stream, &session->core->counters.refused_message_size, RESOURCE_EXHAUSTED,
                             "Out of memory");
        hold(session, capacity - stream->capacity);
        stream->buffer = buffer;
        stream->capacity = capacity;
    }
    memcpy(stream->buffer + stream->received, data, length);
    stream->received = needed;
    return 0;
}

int call_data(struct stream *stream, const uint8_t *data, size_t length)
{
    while (length && stream->prefix_length < PREFIX_BYTES) {
        stream->prefix[stream->prefix_length++] = *data++;
        length--;
        if (stream->prefix_length == PREFIX_BYTES) {
            int result = begin_message(stream);
            if (result || stream->answered)
                return result;
        }
    }
    if (!length)
        return 0;
    if (length > stream->length - stream->received)
        return fail_with(stream, &stream->session->core->counters.refused_message_form, INTERNAL,
                         "Wrong message length");
    if (stream->ended && length == stream->length && !stream->received) {
        /* The whole message lies in the input, and its call will be made while it does, or call_give_back keeps it. */
        stream->lent = data;
        stream->received = length;
        stream->session->lender = stream;
        return 0;
    }
    return keep(stream, data, length);
}

/* The input is about to go away while the frame that ends a lent message has not (its padding is missing). */
int call_give_back(struct session *session)
{
    struct stream *stream = session->lender;
    if (!stream)
        return 0;
    const uint8_t *lent = stream->lent;
    session->lender = NULL;
    stream->lent = NULL;
    stream->received = 0;
    return keep(stream, lent, stream->length);
}

/* Sheds what waits together beyond the limit; each connection gets its share first. */
static bool is_admitted(struct stream *stream)
{
    struct session *session = stream->session;
    struct core *core = session->core;
    if (!core->limits.in_flight || core->service.methods[stream->method].probe)
        return true;
    if (session->round != core->round) {
        session->round = core->round;
        session->round_calls = 0;
    }
    session->round_calls++;
    core->round_calls++;
    return core->round_calls <= core->limits.in_flight || session->round_calls <= core->round_share;
}

/* The caller has sent everything: make the call. */
int call_finish(struct stream *stream)
{
    struct session *session = stream->session;
    struct core *core = session->core;
    struct counters *counters = &core->counters;
    if (stream->prefix_length < PREFIX_BYTES || stream->received != stream->length)
        return fail_with(stream, &counters->refused_message_form, INTERNAL, "Wrong message length");
    if (!is_admitted(stream))
        return fail_with(stream, &counters->refused_in_flight, RESOURCE_EXHAUSTED, "Too many calls in flight");
    if (stream->timeout < INFINITY && seconds_now() - stream->begun >= stream->timeout)
        return fail_with(stream, &counters->refused_deadline, DEADLINE_EXCEEDED, "Deadline Exceeded");
    session->control_credit += CONTROL_FRAMES_PER_CALL;
    counters->calls_total++;
    stream->answered = true;
    struct answer answer = {.status = INTERNAL};
    const uint8_t *message = stream->lent ? stream->lent : stream->buffer;
    core->service.call(core->service.context, stream->method, message, stream->length, &answer);
    stream_drop_message(stream);
    if (answer.status == OK)
        return submit_message(stream, &answer);
    counters->handler_errors_total++;
    int result = fail(stream, answer.status, answer.data, answer.length);
    if (answer.owner)
        core->service.release(core->service.context, answer.owner);
    return result;
}

int call_expire(struct stream *stream)
{
    struct session *session = stream->session;
    if (!stream->answered)
        return fail_with(stream, &session->core->counters.refused_deadline, DEADLINE_EXCEEDED, "Deadline Exceeded");
    /* What is left of an answered call is a caller that does not take the answer, or does not stop sending. */
    session->core->counters.refused_stalled++;
    return nghttp2_submit_rst_stream(session->h2, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
}
