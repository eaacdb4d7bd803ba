/* A reader of the plain payload of a token: base64url, JSON and the registered claims in one go.
 *
 * read(section) -> (issuer, not_before, expires, audiences, claims) | None
 *
 * None says "not plain" (or no payload at all): the caller then lets the readers in Python decide, which know Envoy's
 * lenient spellings and the status of each error. Plain is what issuers write: base64url without padding, strict JSON
 * (RFC 8259) with an object on top, no escapes, no member twice, registered claims of their types. Whatever is answered
 * here is what those readers would have made of it; a test compares the two.
 *
 * All reads go through `span`, which never passes its end; nesting is bounded.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { MAX_CHARACTERS = 16384, MAX_BYTES = MAX_CHARACTERS / 4 * 3, MAX_LEVELS = 20 };
enum { EXACT_DIGITS = 15 /* of a whole number that a double holds exactly */, MAX_NUMBER = 64 };

typedef struct {
    const uint8_t *at, *end; /* borrowed */
} span;

/* ---- base64url ---- */

static const int8_t SIXTETS[128] = {
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 62, -1, -1,
    52, 53, 54, 55, 56, 57, 58, 59, 60, 61, -1, -1, -1, -1, -1, -1,
    -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, -1, -1, -1, -1, 63,
    -1, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
    41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, -1, -1, -1, -1, -1,
};

/* The number of bytes that `text` stands for, -1 when it is not plain. */
static Py_ssize_t decode(const char *text, Py_ssize_t length, uint8_t *bytes)
{
    uint32_t bits = 0;
    Py_ssize_t used = 0;
    if (length > MAX_CHARACTERS || length % 4 == 1)
        return -1;
    for (Py_ssize_t i = 0; i < length; i++) {
        uint8_t character = (uint8_t)text[i];
        int sixtet = character < 128 ? SIXTETS[character] : -1;
        if (sixtet < 0)
            return -1;
        bits = bits << 6 | (uint32_t)sixtet;
        switch (i & 3) {
        case 1:
            bytes[used++] = (uint8_t)(bits >> 4);
            break;
        case 2:
            bytes[used++] = (uint8_t)(bits >> 2);
            break;
        case 3:
            bytes[used++] = (uint8_t)bits;
            break;
        }
    }
    return used;
}

/* ---- JSON: each function gives a new reference, or NULL: not plain, or a Python error ---- */

static PyObject *value(span *s, int levels);

static void space(span *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

/* Whether the next character is this one, which is then passed, and the space after it. */
static int take(span *s, uint8_t character)
{
    if (s->at >= s->end || *s->at != character)
        return 0;
    s->at++;
    space(s);
    return 1;
}

static PyObject *string(span *s)
{
    if (s->at >= s->end || *s->at != '"')
        return NULL;
    const uint8_t *start = ++s->at;
    while (s->at < s->end && *s->at != '"') {
        if (*s->at < 0x20 || *s->at == '\\')
            return NULL;
        s->at++;
    }
    if (s->at >= s->end)
        return NULL;
    return PyUnicode_DecodeUTF8((const char *)start, s->at++ - start, NULL);
}

static int digits(span *s)
{
    const uint8_t *start = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
        s->at++;
    return s->at > start;
}

static PyObject *number(span *s)
{
    const uint8_t *start = s->at;
    int negative = s->at < s->end && *s->at == '-', whole = 1;
    s->at += negative;
    const uint8_t *first = s->at;
    if (!digits(s) || (*first == '0' && s->at - first > 1))
        return NULL;
    if (s->at < s->end && *s->at == '.') {
        whole = 0;
        s->at++;
        if (!digits(s))
            return NULL;
    }
    if (s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        whole = 0;
        s->at++;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-'))
            s->at++;
        if (!digits(s))
            return NULL;
    }
    if (whole && s->at - first <= EXACT_DIGITS) {
        int64_t count = 0;
        for (const uint8_t *digit = first; digit < s->at; digit++)
            count = count * 10 + (*digit - '0');
        return PyFloat_FromDouble(negative ? -(double)count : (double)count);
    }
    char text[MAX_NUMBER + 1];
    size_t length = (size_t)(s->at - start);
    if (length > MAX_NUMBER)
        return NULL;
    memcpy(text, start, length);
    text[length] = 0;
    double result = PyOS_string_to_double(text, NULL, NULL);
    return isfinite(result) && !PyErr_Occurred() ? PyFloat_FromDouble(result) : NULL;
}

static PyObject *word(span *s, const char *text, PyObject *meaning)
{
    size_t length = strlen(text);
    if ((size_t)(s->end - s->at) < length || memcmp(s->at, text, length) != 0)
        return NULL;
    s->at += length;
    return Py_NewRef(meaning);
}

static PyObject *array(span *s, int levels)
{
    PyObject *items = PyList_New(0);
    if (!items || !take(s, '['))
        goto failed;
    if (take(s, ']'))
        return items;
    do {
        PyObject *item = value(s, levels);
        int failed = !item || PyList_Append(items, item);
        Py_XDECREF(item);
        if (failed)
            goto failed;
    } while (take(s, ','));
    if (take(s, ']'))
        return items;
failed:
    Py_XDECREF(items);
    return NULL;
}

/* One member; 0 when that does not work out. */
static int member(span *s, PyObject *members, int levels)
{
    PyObject *name = string(s), *content = NULL;
    Py_ssize_t before = PyDict_Size(members);
    int added = 0;
    if (name) {
        space(s);
        if (take(s, ':'))
            content = value(s, levels);
        added = content && !PyDict_SetItem(members, name, content) && PyDict_Size(members) > before;
    }
    Py_XDECREF(name);
    Py_XDECREF(content);
    return added;
}

static PyObject *object(span *s, int levels)
{
    PyObject *members = PyDict_New();
    if (!members || !take(s, '{'))
        goto failed;
    if (take(s, '}'))
        return members;
    do {
        if (!member(s, members, levels))
            goto failed;
    } while (take(s, ','));
    if (take(s, '}'))
        return members;
failed:
    Py_XDECREF(members);
    return NULL;
}

/* A value of at most so many levels, and the space after it. */
static PyObject *value(span *s, int levels)
{
    PyObject *result = NULL;
    if (s->at >= s->end)
        return NULL;
    switch (*s->at) {
    case '{':
        return levels > 0 ? object(s, levels - 1) : NULL;
    case '[':
        return levels > 0 ? array(s, levels - 1) : NULL;
    case '"':
        result = string(s);
        break;
    case 't':
        result = word(s, "true", Py_True);
        break;
    case 'f':
        result = word(s, "false", Py_False);
        break;
    case 'n':
        result = word(s, "null", Py_None);
        break;
    default:
        result = number(s);
    }
    space(s);
    return result;
}

/* ---- registered claims: new references, NULL as above ---- */

/* A claim that is a string; `otherwise` when it is absent. */
static PyObject *text_claim(PyObject *claims, const char *name, PyObject *otherwise)
{
    PyObject *claim = PyDict_GetItemString(claims, name); /* borrowed */
    if (!claim)
        return Py_NewRef(otherwise);
    return PyUnicode_Check(claim) ? Py_NewRef(claim) : NULL;
}

/* A claim that is a time, in whole seconds; 0 when it is absent. */
static PyObject *time_claim(PyObject *claims, const char *name)
{
    PyObject *claim = PyDict_GetItemString(claims, name); /* borrowed */
    if (!claim)
        return PyLong_FromLong(0);
    if (!PyFloat_Check(claim))
        return NULL;
    double seconds = PyFloat_AsDouble(claim);
    return seconds >= 0 && seconds < 18446744073709551616.0 ? PyLong_FromDouble(seconds) : NULL;
}

static PyObject *audiences(PyObject *claims)
{
    PyObject *claim = PyDict_GetItemString(claims, "aud"); /* borrowed */
    if (!claim)
        return PyTuple_New(0);
    if (PyUnicode_Check(claim))
        return PyTuple_Pack(1, claim);
    if (!PyList_Check(claim))
        return NULL;
    for (Py_ssize_t i = 0; i < PyList_Size(claim); i++)
        if (!PyUnicode_Check(PyList_GetItem(claim, i)))
            return NULL;
    return PyList_AsTuple(claim);
}

static PyObject *registered(PyObject *claims)
{
    PyObject *empty = PyUnicode_FromStringAndSize("", 0);
    if (!empty)
        return NULL;
    PyObject *checked[] = {
        text_claim(claims, "sub", empty),
        text_claim(claims, "jti", empty),
        time_claim(claims, "iat"),
    };
    PyObject *parts[] = {
        text_claim(claims, "iss", empty),
        time_claim(claims, "nbf"),
        time_claim(claims, "exp"),
        audiences(claims),
    };
    PyObject *answer = NULL;
    if (checked[0] && checked[1] && checked[2] && parts[0] && parts[1] && parts[2] && parts[3])
        answer = PyTuple_Pack(5, parts[0], parts[1], parts[2], parts[3], claims);
    for (int i = 0; i < 3; i++)
        Py_XDECREF(checked[i]);
    for (int i = 0; i < 4; i++)
        Py_XDECREF(parts[i]);
    Py_DECREF(empty);
    return answer;
}

/* ---- the module ---- */

static PyObject *read_payload(PyObject *module, PyObject *section)
{
    (void)module;
    uint8_t bytes[MAX_BYTES];
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(section, &length);
    Py_ssize_t size = text ? decode(text, length, bytes) : 0;
    PyObject *answer = NULL;
    if (size > 0) {
        span s = {bytes, bytes + size};
        space(&s);
        PyObject *claims = value(&s, MAX_LEVELS);
        if (claims && s.at == s.end && PyDict_Check(claims))
            answer = registered(claims);
        Py_XDECREF(claims);
    }
    if (answer)
        return answer;
    if (PyErr_Occurred()) {
        /* Text that is no UTF-8, a number that is none: for others to judge. */
        if (!PyErr_ExceptionMatches(PyExc_ValueError))
            return NULL;
        PyErr_Clear();
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"read", read_payload, METH_O,
     "read(section) -> (issuer, not_before, expires, audiences, claims), or None when the payload is not plain."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT,
                                        .m_name = "_payload",
                                        .m_doc = "A reader of the plain payload of a token.",
                                        .m_methods = methods};

PyMODINIT_FUNC PyInit__payload(void)
{
    return PyModuleDef_Init(&definition);
}
