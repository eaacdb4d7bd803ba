/* A reader of the plain CheckRequest: takes out method, path, host, scheme and the headers that the policies read, and
 * no more.
 *
 * Scanner(names).scan(message) -> (method, path, host, scheme, {name: (line, ...)}) | None
 *
 * None says "not plain" (or not a CheckRequest at all): the caller then lets the full codec decide. Plain is what Envoy
 * sends: each message once, text in ASCII, one of the two header forms, no groups. So whatever is answered here is what
 * the full codec would have read; parts of the message that are not looked into are not checked.
 *
 * A scanner keeps the texts that it gave last, one for each of a fixed number of places: a text that comes again (a
 * method, a host, a token) is that very object, whose hash is known already, instead of a copy whose half a kilobyte
 * has to be hashed for the look-up of the token. Whether it is the same is found by comparing all of it. Which place a
 * text has can be guessed by a client, who can thereby make others' texts be made anew, and nothing else.
 *
 * All reads go through `span`, which never passes its end. A test compares this reader with the full codec on generated
 * and mutated messages.
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
enum { PLACES = 2048 /* a power of two */, MAX_KEPT = 2048 /* bytes of a text: 4 MB at most */ };

/* A text that was given before. */
typedef struct {
    PyObject *text;    /* owned, ASCII; NULL while there was none */
    const char *bytes; /* its content */
    Py_ssize_t length; /* at least 1, or 0 while there was none */
} place;

typedef struct {
    PyObject_HEAD
    PyObject *names; /* owned tuple of str */
    const char *name[MAX_NAMES];
    Py_ssize_t length[MAX_NAMES];
    Py_ssize_t count;
    place places[PLACES];
} Scanner;

/* What one call works on. */
typedef struct {
    Scanner *scanner; /* borrowed */
    PyObject *lines;  /* owned */
    int joined_form, raw_form;
} work;

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

/* Where a text, which is not empty, is kept. */
static place *place_of(Scanner *scanner, span text)
{
    /* Of all kinds of texts the ends differ: tokens in their signatures, paths in what they name. */
    size_t length = (size_t)(text.end - text.at);
    uint64_t end = 0;
    memcpy(&end, length < sizeof end ? text.at : text.end - sizeof end, length < sizeof end ? length : sizeof end);
    return &scanner->places[((end ^ length) * 0x9e3779b97f4a7c15u) >> 32 & (PLACES - 1)];
}

/* A new reference; NULL with a Python error. */
static PyObject *text_of(Scanner *scanner, span text)
{
    Py_ssize_t length = text.end - text.at;
    if (length == 0 || length > MAX_KEPT)
        return PyUnicode_DecodeLatin1((const char *)text.at, length, NULL);
    place *p = place_of(scanner, text);
    if (p->length == length && memcmp(p->bytes, text.at, (size_t)length) == 0)
        return Py_NewRef(p->text);
    PyObject *made = PyUnicode_DecodeLatin1((const char *)text.at, length, NULL);
    if (!made || !is_ascii(text))
        return made;
    const char *bytes = PyUnicode_AsUTF8AndSize(made, &length); /* of ASCII: its own */
    if (!bytes) {
        Py_DECREF(made);
        return NULL;
    }
    PyObject *before = p->text;
    *p = (place){Py_NewRef(made), bytes, length};
    Py_XDECREF(before);
    return made;
}

/* Add one line of the header called names[index]; only the raw form has more than one, and not too many when it is
 * plain. 1: added, 0: not plain, -1: Python error. */
static int add_line(work *w, Py_ssize_t index, span value, int raw)
{
    PyObject *name = PyTuple_GetItem(w->scanner->names, index); /* borrowed */
    PyObject *text = name ? text_of(w->scanner, value) : NULL;
    PyObject *lines = text ? PyTuple_Pack(1, text) : NULL;
    Py_XDECREF(text);
    if (!lines)
        return -1;
    PyObject *known = PyDict_GetItemWithError(w->lines, name); /* borrowed */
    if (known) {
        if (!raw || PyTuple_Size(known) >= MAX_LINES) {
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
static int header(work *w, span entry, int raw)
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
    for (Py_ssize_t i = 0; i < w->scanner->count; i++) {
        Py_ssize_t length = w->scanner->length[i];
        if (key.end - key.at != length || memcmp(key.at, w->scanner->name[i], (size_t)length) != 0)
            continue;
        if (!is_ascii(value))
            return 0;
        return add_line(w, i, bytes.at < bytes.end ? bytes : value, raw);
    }
    return 1;
}

static int header_map(work *w, span map)
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
static int http_request(work *w, span http, span *method, span *path, span *host, span *scheme)
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

static PyObject *scan(PyObject *self, PyObject *message)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(message, &bytes, &size))
        return NULL;
    work w = {.scanner = (Scanner *)self, .lines = PyDict_New()};
    if (!w.lines)
        return NULL;
    span whole = {(const uint8_t *)bytes, (const uint8_t *)bytes + size};
    span attributes, request, http;
    span method = {NULL, NULL}, path = {NULL, NULL}, host = {NULL, NULL}, scheme = {NULL, NULL};
    int plain = only(whole, 1, &attributes) && only(attributes, 4, &request) && only(request, 2, &http);
    if (plain)
        plain = http_request(&w, http, &method, &path, &host, &scheme);
    PyObject *answer = NULL;
    if (plain == 1) {
        PyObject *texts[4] = {text_of(w.scanner, method), text_of(w.scanner, path), text_of(w.scanner, host),
                              text_of(w.scanner, scheme)};
        if (texts[0] && texts[1] && texts[2] && texts[3])
            answer = PyTuple_Pack(5, texts[0], texts[1], texts[2], texts[3], w.lines);
        for (int i = 0; i < 4; i++)
            Py_XDECREF(texts[i]);
    } else if (plain == 0) {
        answer = Py_NewRef(Py_None);
    }
    Py_DECREF(w.lines);
    return answer;
}

static int fill(Scanner *self, PyObject *names)
{
    self->count = PyTuple_Size(names);
    if (self->count > MAX_NAMES) {
        self->count = 0;
        PyErr_Format(PyExc_ValueError, "more than %d names", (int)MAX_NAMES);
        return -1;
    }
    self->names = Py_NewRef(names);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        self->name[i] = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(names, i), &self->length[i]);
        if (!self->name[i])
            return -1;
    }
    return 0;
}

static PyObject *scanner_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *parameters[] = {"names", NULL};
    PyObject *names;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!", parameters, &PyTuple_Type, &names))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = allocate(type, 0); /* all zero */
    if (self && fill((Scanner *)self, names))
        Py_CLEAR(self);
    return self;
}

static void scanner_dealloc(PyObject *self)
{
    Scanner *scanner = (Scanner *)self;
    for (size_t i = 0; i < PLACES; i++)
        Py_XDECREF(scanner->places[i].text);
    Py_XDECREF(scanner->names);
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"scan", scan, METH_O,
     "scan(message) -> (method, path, host, scheme, {name: (line, ...)}), or None when the message is not plain."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Scanner(names): takes these headers out of messages."},
    {Py_tp_new, (void *)scanner_new},
    {Py_tp_dealloc, (void *)scanner_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

/* Holds nothing that could refer to it: no garbage collection. */
static PyType_Spec specification = {.name = "extauthz.checkapi._scan.Scanner",
                                    .basicsize = sizeof(Scanner),
                                    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                                    .slots = slots};

static int add_types(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&specification);
    int failed = !type || PyModule_AddObjectRef(module, "Scanner", type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)add_types}, {0, NULL}};

static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT,
                                        .m_name = "_scan",
                                        .m_doc = "A reader of the plain CheckRequest.",
                                        .m_slots = module_slots};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModuleDef_Init(&definition);
}
