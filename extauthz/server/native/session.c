/* One HTTP/2 connection as a machine on nghttp2: bytes in, calls out, bytes out (native.h).

   nghttp2 does the protocol, call.c the calls; this file ties them together and says what a peer may do to a
   connection. Calls are answered inside `session_input`, in nghttp2's callback for their last frame. */
#include "session.h"

#include <math.h>
#include <string.h>
#include <time.h>

/* Later than 1.52 (Debian has them there too), so used where the library at hand has them. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wredundant-decls"
void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option *, uint64_t, uint64_t) __attribute__((weak));
#pragma GCC diagnostic pop

#define HEADER_BYTES_FACTOR 16 /* a header list this much over its limit ends the connection: an HPACK bomb */

static const uint8_t drain_ping[8] = "drain..";

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- nghttp2's callbacks -------------------------------------------------------------------------------------- */

static int on_begin_frame(nghttp2_session *h2, const nghttp2_frame_hd *header, void *context)
{
    struct session *session = context;
    if (header->type == NGHTTP2_HEADERS || (header->type == NGHTTP2_DATA && header->length))
        return 0;
    if (session->control_credit < 1) {
        double now = seconds_now();
        session->control_credit = (now - session->control_at) * CONTROL_FRAMES_PER_SECOND;
        session->control_at = now;
    }
    if (session->control_credit > CONTROL_FRAMES_BURST)
        session->control_credit = CONTROL_FRAMES_BURST;
    if (session->control_credit >= 1) {
        session->control_credit -= 1;
        return 0;
    }
    if (!session->flooded) {
        session->flooded = true;
        session->core->counters.refused_flood++;
        return nghttp2_session_terminate_session(h2, NGHTTP2_ENHANCE_YOUR_CALM);
    }
    return 0;
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *context)
{
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct stream *stream = stream_open(context, frame->hd.stream_id);
    if (!stream)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id, stream)) {
        stream_close(stream);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return 0;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *context)
{
    (void)flags;
    struct session *session = context;
    struct stream *stream = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (!stream)
        return 0;
    const size_t limit = session->core->limits.header_bytes;
    stream->header_bytes += name_length + value_length + 32; /* RFC 9113 section 6.5.2 */
    if (stream->header_bytes <= limit) {
        if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            call_header(stream, name, name_length, value, value_length);
    } else if (stream->header_bytes / HEADER_BYTES_FACTOR > limit) {
        session->core->counters.refused_headers++;
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t length, void *context)
{
    (void)context;
    struct stream *stream = nghttp2_session_get_stream_user_data(h2, id);
    if (!stream || stream->answered)
        return 0;
    if (flags & NGHTTP2_FLAG_END_STREAM)
        stream->ended = true;
    return call_data(stream, data, length);
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *context)
{
    struct session *session = context;
    struct stream *stream;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        stream = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
        if (!stream)
            return 0;
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
            stream->ended = true;
        if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
            int result = call_begin(stream);
            if (result)
                return result;
        }
        return stream->ended && !stream->answered ? call_finish(stream) : 0;
    case NGHTTP2_SETTINGS:
        session->greeted = true;
        return 0;
    case NGHTTP2_RST_STREAM:
        session->core->counters.resets_total++;
        return 0;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK && !memcmp(frame->ping.opaque_data, drain_ping, sizeof drain_ping))
            return session_end(session);
        return 0;
    default:
        return 0;
    }
}

/* A caller that is answered before it has sent everything is told to stop (RFC 9113 section 8.1). Not before the answer
   is out: nghttp2 drops what is submitted on a stream that is being reset. */
static int on_frame_sent(nghttp2_session *h2, const nghttp2_frame *frame, void *context)
{
    (void)context;
    if (frame->hd.type != NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    struct stream *stream = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (!stream || stream->ended)
        return 0;
    return nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
}

/* Each of these ends its stream or its connection; nghttp2 sees to that. */
static int on_invalid_frame(nghttp2_session *h2, const nghttp2_frame *frame, int error, void *context)
{
    (void)h2;
    (void)frame;
    (void)error;
    struct session *session = context;
    session->core->counters.refused_protocol++;
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t id, uint32_t error, void *context)
{
    (void)error;
    (void)context;
    struct stream *stream = nghttp2_session_get_stream_user_data(h2, id);
    if (stream) {
        nghttp2_session_set_stream_user_data(h2, id, NULL);
        stream_close(stream);
    }
    return 0;
}

/* ---- the session ---------------------------------------------------------------------------------------------- */

const char *http2_library_version(void)
{
    return nghttp2_version(0)->version_str;
}

int core_open(struct core *core)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *options;
    if (nghttp2_session_callbacks_new(&callbacks))
        return -1;
    if (nghttp2_option_new(&options)) {
        nghttp2_session_callbacks_del(callbacks);
        return -1;
    }
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_option_set_no_closed_streams(options, 1);
    /* The library's own default cuts off an Envoy whose clients leave; our bucket counts resets as well. */
    if (nghttp2_option_set_stream_reset_rate_limit)
        nghttp2_option_set_stream_reset_rate_limit(options, CONTROL_FRAMES_BURST, CONTROL_FRAMES_PER_SECOND);
    core->callbacks = callbacks;
    core->options = options;
    return 0;
}

void core_close(struct core *core)
{
    nghttp2_session_callbacks_del(core->callbacks);
    nghttp2_option_del(core->options);
    while (core->spare) {
        struct stream *stream = core->spare;
        core->spare = stream->newer;
        deallocate(core, stream);
    }
}

struct session *session_open(struct core *core)
{
    struct session *session = allocate(core, sizeof *session);
    if (!session)
        return NULL;
    *session = (struct session){.core = core,
                                .round = core->round,
                                .control_credit = CONTROL_FRAMES_BURST,
                                .control_at = seconds_now(),
                                .deadline = INFINITY};
    if (nghttp2_session_server_new3(&session->h2, core->callbacks, session, core->options,
                                    (nghttp2_mem *)core->memory)) {
        deallocate(core, session);
        return NULL;
    }
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, (uint32_t)core->limits.streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)core->limits.header_bytes},
    };
    if (nghttp2_submit_settings(session->h2, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings) ||
        nghttp2_session_set_local_window_size(session->h2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW_BYTES)) {
        session_close(session);
        return NULL;
    }
    return session;
}

void session_close(struct session *session)
{
    while (session->oldest)
        stream_close(session->oldest);
    if (!session->corrupt)
        nghttp2_session_del(session->h2);
    deallocate(session->core, session);
}

int session_input(struct session *session, const uint8_t *data, size_t length)
{
    ssize_t taken = nghttp2_session_mem_recv(session->h2, data, length);
    int kept = call_give_back(session);
    if (taken >= 0 && !kept)
        return 0;
    struct counters *counters = &session->core->counters;
    if (taken == NGHTTP2_ERR_FLOODED)
        counters->refused_flood++; /* the library's own limit: too many of its answers wait to be sent */
    else if (!session->greeted)
        counters->refused_preface++;
    else
        counters->refused_protocol++;
    return -1;
}

ssize_t session_output(struct session *session, const uint8_t **data)
{
    ssize_t n = nghttp2_session_mem_send(session->h2, data);
    if (n == NGHTTP2_ERR_NOMEM)
        session->corrupt = true;
    return n;
}

bool session_finished(const struct session *session)
{
    return !nghttp2_session_want_read(session->h2) && !nghttp2_session_want_write(session->h2);
}

bool session_greeted(const struct session *session)
{
    return session->greeted;
}

int session_drain(struct session *session)
{
    if (session->draining)
        return 0;
    session->draining = true;
    if (nghttp2_submit_shutdown_notice(session->h2))
        return -1;
    return nghttp2_submit_ping(session->h2, NGHTTP2_FLAG_NONE, drain_ping) ? -1 : 0;
}

int session_end(struct session *session)
{
    if (session->ending)
        return 0;
    session->ending = true;
    int32_t last = nghttp2_session_get_last_proc_stream_id(session->h2);
    return nghttp2_submit_goaway(session->h2, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0) ? -1 : 0;
}

/* Ends calls whose caller waits no longer. */
static void expire_deadlines(struct session *session, double now)
{
    if (session->deadline > now)
        return;
    session->deadline = INFINITY;
    for (struct stream *stream = session->oldest; stream; stream = stream->newer) {
        if (stream->answered)
            continue;
        if (stream->begun + stream->timeout <= now)
            call_expire(stream);
        else
            session->deadline = fmin(session->deadline, stream->begun + stream->timeout);
    }
}

double session_expire(struct session *session, double now)
{
    const double limit = session->core->limits.call_seconds;
    expire_deadlines(session, now);
    if (limit <= 0)
        return session->deadline;
    for (struct stream *stream = session->oldest; stream; stream = stream->newer) {
        if (stream->begun + limit > now)
            return fmin(stream->begun + limit, session->deadline);
        if (stream->begun > -INFINITY) {
            /* Closed by what is submitted here once that is sent; not looked at again until then. */
            stream->begun = -INFINITY;
            call_expire(stream);
        }
    }
    return session->deadline;
}

double session_deadline(const struct session *session)
{
    return session->deadline;
}

size_t session_streams(const struct session *session)
{
    return session->streams;
}

size_t session_held(const struct session *session)
{
    return session->held;
}
