/* HTTP/2 with prior knowledge: Check calls (gRPC) and plain requests. nghttp2 does the protocol. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW = 1 << 20, CONNECTION_WINDOW = 16 << 20 };
enum { STREAMS_BEFORE_SETTINGS = 100 };
enum { LAST_STREAM = 0x7ffffff0 }; /* a connection has used its stream ids up */
enum { PREFIX_BYTES = 5 };

/* ---- packed header fields: count, then for each the lengths of name and value and their bytes; 32 bits, host order ---- */

static int take(payload *from, void *to, size_t length)
{
    if (from->length < length)
        return 0;
    memcpy(to, from->data, length);
    from->data += length;
    from->length -= length;
    return 1;
}

ssize_t fields_unpack(payload from, nghttp2_nv *fields, size_t *body)
{
    payload rest = from;
    uint32_t count, lengths[2];
    if (!take(&rest, &count, sizeof count) || count > HEADER_FIELDS)
        return -1;
    for (uint32_t i = 0; i < count; i++) {
        if (!take(&rest, lengths, sizeof lengths) || rest.length < (size_t)lengths[0] + lengths[1])
            return -1;
        /* nghttp2 takes them as not const, and copies them. */
        uint8_t *name = (uint8_t *)(uintptr_t)rest.data;
        fields[i] = (nghttp2_nv){name, name + lengths[0], lengths[0], lengths[1], NGHTTP2_NV_FLAG_NONE};
        rest.data += (size_t)lengths[0] + lengths[1];
        rest.length -= (size_t)lengths[0] + lengths[1];
    }
    *body = from.length - rest.length;
    return (ssize_t)count;
}

/* ---- sending ---- */

static ssize_t read_check_body(nghttp2_session *h2, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                               nghttp2_data_source *source, void *user)
{
    (void)h2, (void)stream;
    call *c = source->ptr;
    payload message = ((connection *)user)->engine->payloads[c->payload];
    uint32_t length = (uint32_t)message.length;
    const uint8_t prefix[PREFIX_BYTES] = {0, (uint8_t)(length >> 24), (uint8_t)(length >> 16), (uint8_t)(length >> 8),
                                          (uint8_t)length};
    size_t n = 0;
    while (c->body_sent < PREFIX_BYTES && n < room)
        to[n++] = prefix[c->body_sent++];
    if (n == room)
        return (ssize_t)n;
    size_t done = c->body_sent - PREFIX_BYTES, left = message.length - done;
    size_t part = left < room - n ? left : room - n;
    memcpy(to + n, message.data + done, part);
    c->body_sent += part;
    if (part == left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)(n + part);
}

static ssize_t read_body(nghttp2_session *h2, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user)
{
    (void)h2, (void)stream;
    call *c = source->ptr;
    payload whole = ((connection *)user)->engine->payloads[c->payload];
    size_t left = whole.length - c->body_sent, part = left < room ? left : room;
    memcpy(to, whole.data + c->body_sent, part);
    c->body_sent += part;
    if (part == left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)part;
}

static int submit(connection *k, call *c, payload packed, nghttp2_data_provider *body)
{
    nghttp2_nv fields[HEADER_FIELDS];
    size_t start;
    ssize_t count = fields_unpack(packed, fields, &start);
    if (count < 0)
        return -1;
    if (!body->source.ptr && start < packed.length) {
        body->source.ptr = c;
        c->body_sent = start;
    }
    c->stream = nghttp2_submit_request(k->h2, NULL, fields, (size_t)count, body->source.ptr ? body : NULL, c);
    if (c->stream < 0)
        return -1;
    k->in_use++;
    return 0;
}

static int submit_check(connection *k, call *c)
{
    nghttp2_data_provider body = {{.ptr = c}, read_check_body};
    return submit(k, c, k->engine->headers, &body);
}

static int submit_request(connection *k, call *c)
{
    nghttp2_data_provider body = {{.ptr = NULL}, read_body};
    return submit(k, c, k->engine->payloads[c->payload], &body);
}

static uint32_t room(connection *k)
{
    uint32_t most = nghttp2_session_get_remote_settings(k->h2, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    if (most == UINT32_MAX && k->answered == 0)
        most = STREAMS_BEFORE_SETTINGS;
    return most > k->in_use ? most - k->in_use : 0;
}

static void mark_written(connection *k)
{
    int64_t at = clock_now();
    while (!hook_alone(&k->framed)) {
        call *c = OWNER(call, framed, k->framed.after);
        if (c->framed_end > k->out_total + k->out_written)
            return;
        call_written(c, at);
    }
}

static int write_frames(connection *k)
{
    for (;;) {
        int more = 1;
        while (k->out_length < OUT_BYTES) {
            const uint8_t *frame;
            ssize_t n = nghttp2_session_mem_send(k->h2, &frame);
            if (n < 0)
                return -1;
            if (n == 0) {
                more = 0;
                break;
            }
            memcpy(k->out + k->out_length, frame, (size_t)n);
            k->out_length += (size_t)n;
        }
        size_t written;
        if (connection_write(k, k->out + k->out_written, k->out_length - k->out_written, &written) < 0)
            return -1;
        k->out_written += written;
        mark_written(k);
        if (k->out_written < k->out_length)
            return 0;
        k->out_total += k->out_length;
        k->out_length = k->out_written = 0;
        if (!more)
            break;
    }
    return nghttp2_session_want_read(k->h2) || nghttp2_session_want_write(k->h2) ? 0 : -1;
}

/* nghttp2 calls this when it has given all bytes of the frame, and they are in `out`. */
static int frame_sent(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    connection *k = user;
    if ((frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        call *c = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
        if (c && hook_alone(&c->framed)) {
            c->framed_end = k->out_total + k->out_length;
            hook_append(&k->framed, &c->framed);
        }
    }
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
        k->faulty = 1;
    return 0;
}

/* ---- receiving ---- */

static int number(const uint8_t *text, size_t length)
{
    int value = 0;
    if (length == 0 || length > 5)
        return -1;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

static int is(const uint8_t *text, size_t length, const char *wanted)
{
    return length == strlen(wanted) && memcmp(text, wanted, length) == 0;
}

static int field_received(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                          const uint8_t *value, size_t value_length, uint8_t flags, void *user)
{
    (void)flags, (void)user;
    call *c = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (!c)
        return 0;
    if (is(name, name_length, ":status"))
        c->http_status = number(value, value_length);
    else if (is(name, name_length, "grpc-status"))
        c->grpc_status = number(value, value_length);
    return 0;
}

static int data_received(nghttp2_session *h2, uint8_t flags, int32_t stream, const uint8_t *data, size_t length,
                         void *user)
{
    (void)flags;
    connection *k = user;
    call *c = nghttp2_session_get_stream_user_data(h2, stream);
    if (!c || k->engine->protocol != &check_protocol)
        return 0;
    size_t needed = c->answer_length + length;
    if (needed > ANSWER_BYTES) { /* on_stream_close then gives the call its outcome */
        c->grpc_status = 8;
        return nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
    }
    if (needed > c->answer_capacity) {
        size_t capacity = c->answer_capacity ? c->answer_capacity : 1024;
        while (capacity < needed)
            capacity *= 2;
        uint8_t *grown = realloc(c->answer, capacity);
        if (!grown)
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        c->answer = grown;
        c->answer_capacity = capacity;
    }
    memcpy(c->answer + c->answer_length, data, length);
    c->answer_length = needed;
    return 0;
}

/* HTTP status -> gRPC status, for answers that a proxy gave (grpc's http-grpc-status-mapping). */
static int grpc_status_of(int http_status)
{
    switch (http_status) {
    case 400: return 13;
    case 401: return 16;
    case 403: return 7;
    case 404: return 12;
    case 429: case 502: case 503: case 504: return 14;
    default: return 2;
    }
}

static int outcome_of(const connection *k, const call *c, uint32_t error)
{
    if (error == NGHTTP2_REFUSED_STREAM)
        return OUTCOME_REFUSED_STREAM;
    if (k->engine->protocol != &check_protocol) {
        if (error != NGHTTP2_NO_ERROR)
            return OUTCOME_RESET;
        return c->http_status >= 200 ? c->http_status : OUTCOME_PROTOCOL;
    }
    if (c->grpc_status > 0)
        return OUTCOME_GRPC - c->grpc_status;
    if (error != NGHTTP2_NO_ERROR)
        return OUTCOME_RESET;
    if (c->grpc_status < 0)
        return c->http_status == 200 ? OUTCOME_PROTOCOL : OUTCOME_GRPC - grpc_status_of(c->http_status);
    return check_outcome(c->answer, c->answer_length);
}

static int stream_closed(nghttp2_session *h2, int32_t stream, uint32_t error, void *user)
{
    connection *k = user;
    call *c = nghttp2_session_get_stream_user_data(h2, stream);
    if (k->in_use)
        k->in_use--;
    if (!c)
        return 0;
    k->answered++;
    call_finish(k->engine, c, outcome_of(k, c, error));
    return 0;
}

/* nghttp2_session_mem_recv has closed what a GOAWAY says was not looked at; the rest is still answered. */
static int received(connection *k, const uint8_t *data, size_t length)
{
    if (nghttp2_session_mem_recv(k->h2, data, length) < 0)
        return -1;
    if (k->state == OPEN && (!nghttp2_session_check_request_allowed(k->h2) ||
                             nghttp2_session_get_next_stream_id(k->h2) > LAST_STREAM))
        connection_leave(k, 1);
    return 0;
}

static void cancel(connection *k, call *c)
{
    nghttp2_session_set_stream_user_data(k->h2, c->stream, NULL);
    nghttp2_submit_rst_stream(k->h2, NGHTTP2_FLAG_NONE, c->stream, NGHTTP2_CANCEL);
    connection_dirty(k);
}

static int ended(connection *k)
{
    (void)k;
    return -1;
}

/* ---- a connection ---- */

static int callbacks_new(engine *e)
{
    nghttp2_session_callbacks *set;
    if (nghttp2_session_callbacks_new(&set) != 0)
        return -1;
    nghttp2_session_callbacks_set_on_header_callback(set, field_received);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(set, data_received);
    nghttp2_session_callbacks_set_on_stream_close_callback(set, stream_closed);
    nghttp2_session_callbacks_set_on_frame_send_callback(set, frame_sent);
    e->callbacks = set;
    return 0;
}

static int opened(connection *k)
{
    engine *e = k->engine;
    if (!e->callbacks && callbacks_new(e) < 0)
        return -1;
    if (nghttp2_session_client_new(&k->h2, e->callbacks, k) != 0) {
        k->h2 = NULL;
        return -1;
    }
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
    if (nghttp2_submit_settings(k->h2, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings) != 0)
        return -1;
    return nghttp2_session_set_local_window_size(k->h2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) == 0 ? 0 : -1;
}

const protocol check_protocol = {opened, room, submit_check, received, write_frames, cancel, ended};
const protocol http2_protocol = {opened, room, submit_request, received, write_frames, cancel, ended};
