/* JSON as a tree of nodes. A missing key is a null pointer, which every reader accepts.
 * A broken text ends the process with a message: a test must never run on half a machine. */
#ifndef JSON_H
#define JSON_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { NOTHING, TRUTH, NUMBER, TEXT, ARRAY, OBJECT };

typedef struct node {
    enum kind kind;
    char *key, *text;
    double number;
    struct node *child, *next;
} node;

static const char *at; /* where the reader stands in the description */

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("stand-in for the driver: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

static void skip_space(void)
{
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
        at++;
}

static void expect(char wanted)
{
    skip_space();
    if (*at != wanted)
        fail("expected '%c' in the description, before: %.40s", wanted, at);
    at++;
}

static char *read_text(void)
{
    expect('"');
    char *text = malloc(strlen(at) + 1), *end = text;
    while (*at && *at != '"') {
        if (*at == '\\' && (*++at == '\0' || !strchr("\"\\/", *at)))
            fail("this escape is not understood: \\%.5s", at);
        *end++ = *at++;
    }
    expect('"');
    *end = '\0';
    return text;
}

static node *read_value(void);

static node *read_members(char close, int keyed)
{
    node *first = NULL, **last = &first;
    at++;
    skip_space();
    while (*at != close) {
        char *key = keyed ? read_text() : NULL;
        if (keyed)
            expect(':');
        *last = read_value();
        (*last)->key = key;
        last = &(*last)->next;
        skip_space();
        if (*at != close)
            expect(',');
        skip_space();
    }
    at++;
    return first;
}

static node *read_value(void)
{
    node *value = calloc(1, sizeof *value);
    skip_space();
    if (*at == '{' || *at == '[') {
        value->kind = *at == '{' ? OBJECT : ARRAY;
        value->child = read_members(*at == '{' ? '}' : ']', *at == '{');
    } else if (*at == '"') {
        value->kind = TEXT;
        value->text = read_text();
    } else if (!strncmp(at, "null", 4)) {
        at += 4;
    } else if (!strncmp(at, "true", 4) || !strncmp(at, "false", 5)) {
        value->kind = TRUTH;
        value->number = *at == 't';
        at += *at == 't' ? 4 : 5;
    } else {
        char *end;
        value->kind = NUMBER;
        value->number = strtod(at, &end);
        if (end == at)
            fail("no value in the description, before: %.40s", at);
        at = end;
    }
    return value;
}

static void forget(node *value)
{
    while (value) {
        node *next = value->next;
        forget(value->child);
        free(value->key);
        free(value->text);
        free(value);
        value = next;
    }
}

static node *get(const node *object, const char *key)
{
    node *member = object && object->kind == OBJECT ? object->child : NULL;
    while (member && strcmp(member->key, key))
        member = member->next;
    return member;
}

static double number_or(const node *value, double otherwise)
{
    return value && (value->kind == NUMBER || value->kind == TRUTH) ? value->number : otherwise;
}

#endif
