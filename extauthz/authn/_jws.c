/* A reader of plain tokens: sections, base64url, JSON and the registered claims in one go.
 *
 * read(token, known, names) -> (algorithm, key_id, issuer, not_before, expires, audiences, claims, header, payload,
 *                               signed, signature) | None
 *
 * `known` has what header sections say: {section: (algorithm, key_id)}. `names` has strings, {name: name}: a member
 * whose name is among them gets that string, so that remembered tokens share it.
 *
 * None says "not plain", or no token at all: the caller then lets the readers in Python decide, which know Envoy's
 * lenient spellings and the status of each error. Plain is what issuers write: three sections, a known header,
 * base64url without padding, strict JSON (RFC 8259) with an object on top, no escapes, no member twice, registered
 * claims of their types. Whatever is answered here is what those readers would have made of it; a test compares the
 * two.
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
    PyObject *names;         /* borrowed; NULL where no JSON is read */
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

/* The number of bytes that a section stands for, -1 when it is not plain. */
static Py_ssize_t decode(span section, uint8_t bytes[MAX_BYTES])
{
    uint32_t bits = 0;
    Py_ssize_t used = 0, length = section.end - section.at;
    if (length > MAX_CHARACTERS || length % 4 == 1)
        return -1;
    for (Py_ssize_t i = 0; i < length; i++) {
        uint8_t character = section.at[i];
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

/* The name of a member: the shared string where there is one. */
static PyObject *member_name(span *s)
{
    PyObject *name = string(s);
    PyObject *shared = name ? PyDict_GetItemWithError(s->names, name) : NULL; /* borrowed */
    if (!shared)
        return name;
    Py_DECREF(name);
    return Py_NewRef(shared);
}

/* One member; 0 when that does not work out. */
static int member(span *s, PyObject *members, int levels)
{
    PyObject *name = member_name(s), *content = NULL;
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

/* ---- tokens ---- */

enum { ALGORITHM, KEY_ID, ISSUER, NOT_BEFORE, EXPIRES, AUDIENCES, CLAIMS, HEADER, PAYLOAD, SIGNED, SIGNATURE, FIELDS };

/* What `read` works on. All references are owned. */
typedef struct {
    PyObject *field[FIELDS];
    PyObject *empty;
    uint8_t bytes[MAX_BYTES];
} token;

/* Each of the following fills fields; 0 when that does not work out. */

/* Three sections, none of them empty. */
static int sections(span text, span *header, span *payload, span *signature)
{
    span *all[] = {header, payload, signature};
    for (int i = 0; i < 3; i++) {
        const uint8_t *dot = memchr(text.at, '.', (size_t)(text.end - text.at));
        if ((dot == NULL) != (i == 2))
            return 0;
        *all[i] = (span){text.at, dot ? dot : text.end, NULL};
        if (all[i]->at == all[i]->end)
            return 0;
        text.at = dot ? dot + 1 : text.end;
    }
    return 1;
}

static PyObject *text_of(span s)
{
    return PyUnicode_FromStringAndSize((const char *)s.at, s.end - s.at);
}

static int read_header(token *t, span header, PyObject *known)
{
    PyObject *said; /* borrowed */
    t->field[HEADER] = text_of(header);
    if (!t->field[HEADER] || !(said = PyDict_GetItemWithError(known, t->field[HEADER])) || !PyTuple_Check(said))
        return 0;
    t->field[ALGORITHM] = PySequence_GetItem(said, 0);
    t->field[KEY_ID] = PySequence_GetItem(said, 1);
    return t->field[ALGORITHM] && t->field[KEY_ID];
}

/* Whether the claims that are checked and not kept have their types. */
static int are_well_typed(token *t)
{
    PyObject *claims = t->field[CLAIMS];
    PyObject *checked[] = {
        text_claim(claims, "sub", t->empty),
        text_claim(claims, "jti", t->empty),
        time_claim(claims, "iat"),
    };
    int well = checked[0] && checked[1] && checked[2];
    for (int i = 0; i < 3; i++)
        Py_XDECREF(checked[i]);
    return well;
}

static int read_payload(token *t, span payload, PyObject *names)
{
    Py_ssize_t size = decode(payload, t->bytes);
    if (size < 0)
        return 0;
    span s = {t->bytes, t->bytes + size, names};
    space(&s);
    PyObject *claims = t->field[CLAIMS] = value(&s, MAX_LEVELS);
    if (!claims || s.at != s.end || !PyDict_Check(claims) || !are_well_typed(t))
        return 0;
    t->field[ISSUER] = text_claim(claims, "iss", t->empty);
    t->field[NOT_BEFORE] = time_claim(claims, "nbf");
    t->field[EXPIRES] = time_claim(claims, "exp");
    t->field[AUDIENCES] = audiences(claims);
    t->field[PAYLOAD] = text_of(payload);
    return t->field[ISSUER] && t->field[NOT_BEFORE] && t->field[EXPIRES] && t->field[AUDIENCES] && t->field[PAYLOAD];
}

static int read_signature(token *t, span header, span payload, span signature)
{
    Py_ssize_t size = decode(signature, t->bytes);
    if (size < 0)
        return 0;
    t->field[SIGNATURE] = PyBytes_FromStringAndSize((const char *)t->bytes, size);
    t->field[SIGNED] = PyBytes_FromStringAndSize((const char *)header.at, payload.end - header.at);
    return t->field[SIGNATURE] && t->field[SIGNED];
}

static PyObject *answer_of(const token *t)
{
    PyObject *answer = PyTuple_New(FIELDS);
    for (int i = 0; answer && i < FIELDS; i++)
        if (PyTuple_SetItem(answer, i, Py_NewRef(t->field[i])))
            Py_CLEAR(answer);
    return answer;
}

static PyObject *read_token(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    token t;
    Py_ssize_t length = 0;
    span header, payload, signature;
    if (count != 3 || !PyUnicode_Check(arguments[0]) || !PyDict_Check(arguments[1]) || !PyDict_Check(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "read(token: str, known: dict, names: dict)");
        return NULL;
    }
    memset(t.field, 0, sizeof t.field);
    t.empty = PyUnicode_FromStringAndSize("", 0);
    const char *text = t.empty ? PyUnicode_AsUTF8AndSize(arguments[0], &length) : NULL;
    span whole = {(const uint8_t *)text, (const uint8_t *)text + length, NULL};
    PyObject *answer = NULL;
    if (text && sections(whole, &header, &payload, &signature) && read_header(&t, header, arguments[1]) &&
        read_payload(&t, payload, arguments[2]) && read_signature(&t, header, payload, signature))
        answer = answer_of(&t);
    for (int i = 0; i < FIELDS; i++)
        Py_XDECREF(t.field[i]);
    Py_XDECREF(t.empty);
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
    {"read", (PyCFunction)(void (*)(void))read_token, METH_FASTCALL,
     "read(token, known, names) -> the fields of a Jws, or None when the token is not plain."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT,
                                        .m_name = "_jws",
                                        .m_doc = "A reader of plain tokens.",
                                        .m_methods = methods};

PyMODINIT_FUNC PyInit__jws(void)
{
    return PyModuleDef_Init(&definition);
}
