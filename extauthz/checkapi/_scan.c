/* A reader of the plain CheckRequest: takes out method, path, host, scheme and the headers that the policies read, and
 * no more.
 *
 * scan(message, names) -> (method, path, host, scheme, {name: (line, ...)}) | None
 *
 * None says "not plain" (or not a CheckRequest at all): the caller then lets the full codec decide. Plain is what Envoy
 * sends: each message once, text in ASCII, one of the two header forms, no groups. So whatever is answered here is what
 * the full codec would have read; parts of the message that are not looked into are not checked.
 *
 * Nothing is kept between calls and nothing is allocated but the answer. All reads go through `span`, which never passes
 * its end. A test compares this reader with the full codec on generated and mutated messages.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const uint8_t *at, *end; /* borrowed from the message */
} span;

enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 };
enum { MAX_NAMES = 256, MAX_LINES = 64 /* of one header: adding a line copies the ones before it */ };

/* What one call works on. `lines` is owned. */
typedef struct {
    PyObject *names; /* borrowed tuple of str */
    const char *name[MAX_NAMES];
    Py_ssize_t length[MAX_NAMES];
    Py_ssize_t count;
    PyObject *lines;
    int joined_form, raw_form;
} scanner;

/* A varint of at most 32 bits; 0 on anything else. */
static int varint(span *s, uint32_t *value)
{
    if (s->at < s->end && *s->at < 0x80) {
        *value = *s->at++;
        return 1;
    }
    uint64_t result = 0;
    for (int shift = 0; shift < 35 && s->at < s->end; shift += 7) {
        uint8_t byte = *s->at++;
        result |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = (uint32_t)result;
            return result <= UINT32_MAX;
        }
    }
    return 0;
}

static int skip(span *s, size_t bytes)
{
    if ((size_t)(s->end - s->at) < bytes)
        return 0;
    s->at += bytes;
    return 1;
}

/* The next field: its number and wire type, and for LENGTH its content; other values are skipped. 0 when not plain. */
static int next_field(span *s, uint32_t *number, int *type, span *content)
{
    uint32_t tag, length;
    if (!varint(s, &tag))
        return 0;
    *number = tag >> 3;
    *type = (int)(tag & 7);
    if (*number == 0)
        return 0;
    switch (*type) {
    case LENGTH:
        if (!varint(s, &length))
            return 0;
        content->at = s->at;
        if (!skip(s, length))
            return 0;
        content->end = s->at;
        return 1;
    case VARINT:
        for (int i = 0; i < 10 && s->at < s->end; i++)
            if (*s->at++ < 0x80)
                return 1;
        return 0;
    case FIXED64:
        return skip(s, 8);
    case FIXED32:
        return skip(s, 4);
    default:
        return 0;
    }
}

/* The content of the one field `wanted` of a message. 0 when it is absent, given twice, or the message is not plain. */
static int only(span message, uint32_t wanted, span *found)
{
    int times = 0;
    while (message.at < message.end) {
        uint32_t number;
        int type;
        span content;
        if (!next_field(&message, &number, &type, &content))
            return 0;
        if (number == wanted) {
            if (type != LENGTH || times++)
                return 0;
            *found = content;
        }
    }
    return times == 1;
}

static int is_ascii(span text)
{
    for (; text.end - text.at >= 8; text.at += 8) {
        uint64_t word;
        memcpy(&word, text.at, 8);
        if (word & 0x8080808080808080u)
            return 0;
    }
    for (; text.at < text.end; text.at++)
        if (*text.at & 0x80)
            return 0;
    return 1;
}

static PyObject *text_of(span text)
{
    return PyUnicode_DecodeLatin1((const char *)text.at, text.end - text.at, NULL);
}

/* Add one line of the header called names[index]. 1: added, 0: too many to be plain, -1: Python error. */
static int add_line(scanner *w, Py_ssize_t index, span value)
{
    PyObject *name = PyTuple_GetItem(w->names, index); /* borrowed */
    PyObject *text = name ? text_of(value) : NULL;
    PyObject *lines = text ? PyTuple_Pack(1, text) : NULL;
    Py_XDECREF(text);
    if (!lines)
        return -1;
    PyObject *known = PyDict_GetItemWithError(w->lines, name); /* borrowed */
    if (known) {
        if (PyTuple_Size(known) >= MAX_LINES) {
            Py_DECREF(lines);
            return 0;
        }
        PyObject *longer = PySequence_Concat(known, lines);
        Py_DECREF(lines);
        lines = longer;
    } else if (PyErr_Occurred()) {
        Py_DECREF(lines);
        return -1;
    }
    int failed = !lines || PyDict_SetItem(w->lines, name, lines);
    Py_XDECREF(lines);
    return failed ? -1 : 1;
}

/* One header: an entry of `headers` (key, value) or of `header_map` (key, value, raw_value).
 * 1: taken or not asked for, 0: not plain, -1: Python error. */
static int header(scanner *w, span entry, int raw)
{
    span key = {NULL, NULL}, value = {NULL, NULL}, bytes = {NULL, NULL};
    while (entry.at < entry.end) {
        uint32_t number;
        int type;
        span content;
        if (!next_field(&entry, &number, &type, &content))
            return 0;
        if (type != LENGTH) {
            if (number <= 3)
                return 0;
            continue;
        }
        if (number == 1)
            key = content;
        else if (number == 2)
            value = content;
        else if (number == 3 && raw)
            bytes = content;
    }
    for (Py_ssize_t i = 0; i < w->count; i++) {
        if (key.end - key.at != w->length[i] || memcmp(key.at, w->name[i], (size_t)w->length[i]) != 0)
            continue;
        if (!is_ascii(value))
            return 0;
        if (!raw) {
            int known = PyDict_Contains(w->lines, PyTuple_GetItem(w->names, i));
            if (known)
                return known < 0 ? -1 : 0;
        }
        return add_line(w, i, bytes.at < bytes.end ? bytes : value);
    }
    return 1;
}

static int header_map(scanner *w, span map)
{
    while (map.at < map.end) {
        uint32_t number;
        int type;
        span content;
        if (!next_field(&map, &number, &type, &content))
            return 0;
        if (number != 1)
            continue;
        if (type != LENGTH)
            return 0;
        w->raw_form = 1;
        int taken = header(w, content, 1);
        if (taken != 1)
            return taken;
    }
    return 1;
}

/* The HttpRequest: 1 with its texts and the headers, 0 not plain, -1 Python error. */
static int http_request(scanner *w, span http, span *method, span *path, span *host, span *scheme)
{
    int maps = 0;
    while (http.at < http.end) {
        uint32_t number;
        int type, taken = 1;
        span content;
        if (!next_field(&http, &number, &type, &content))
            return 0;
        if (type != LENGTH) {
            if (number >= 2 && number <= 6)
                return 0;
            continue;
        }
        switch (number) {
        case 2:
            *method = content;
            break;
        case 3:
            w->joined_form = 1;
            taken = header(w, content, 0);
            break;
        case 4:
            *path = content;
            break;
        case 5:
            *host = content;
            break;
        case 6:
            *scheme = content;
            break;
        case 13:
            taken = maps++ ? 0 : header_map(w, content);
            break;
        default:
            break;
        }
        if (taken != 1)
            return taken;
    }
    if (w->joined_form && w->raw_form)
        return 0;
    return is_ascii(*method) && is_ascii(*path) && is_ascii(*host) && is_ascii(*scheme) && method->at < method->end;
}

static int prepare(scanner *w, PyObject *names)
{
    w->names = names;
    w->count = PyTuple_Size(names);
    w->joined_form = w->raw_form = 0;
    if (w->count < 0 || w->count > MAX_NAMES) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "more than %d names", (int)MAX_NAMES);
        return -1;
    }
    for (Py_ssize_t i = 0; i < w->count; i++) {
        w->name[i] = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(names, i), &w->length[i]);
        if (!w->name[i])
            return -1;
    }
    w->lines = PyDict_New();
    return w->lines ? 0 : -1;
}

static PyObject *scan(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    char *bytes;
    Py_ssize_t size;
    if (count != 2 || !PyTuple_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "scan(message: bytes, names: tuple)");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(arguments[0], &bytes, &size))
        return NULL;
    scanner work;
    if (prepare(&work, arguments[1]))
        return NULL;
    span message = {(const uint8_t *)bytes, (const uint8_t *)bytes + size};
    span attributes, request, http;
    span method = {NULL, NULL}, path = {NULL, NULL}, host = {NULL, NULL}, scheme = {NULL, NULL};
    int plain = only(message, 1, &attributes) && only(attributes, 4, &request) && only(request, 2, &http);
    if (plain)
        plain = http_request(&work, http, &method, &path, &host, &scheme);
    PyObject *answer = NULL;
    if (plain == 1) {
        PyObject *texts[4] = {text_of(method), text_of(path), text_of(host), text_of(scheme)};
        if (texts[0] && texts[1] && texts[2] && texts[3])
            answer = PyTuple_Pack(5, texts[0], texts[1], texts[2], texts[3], work.lines);
        for (int i = 0; i < 4; i++)
            Py_XDECREF(texts[i]);
    } else if (plain == 0) {
        answer = Py_None;
        Py_INCREF(answer);
    }
    Py_DECREF(work.lines);
    return answer;
}

static PyMethodDef methods[] = {
    {"scan", (PyCFunction)(void (*)(void))scan, METH_FASTCALL,
     "scan(message, names) -> (method, path, host, scheme, {name: (line, ...)}), or None when the message is not plain."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_scan", .m_doc = "A reader of the plain CheckRequest.", .m_methods = methods};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModuleDef_Init(&definition);
}
