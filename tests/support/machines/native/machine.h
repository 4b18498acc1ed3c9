/* The machine that is described, the handles that stand for its devices, and what happens on every NVML call. */
#ifndef MACHINE_H
#define MACHINE_H

#include <math.h>
#include <pthread.h>
#include <sys/stat.h>

#include "json.h"

typedef int nvmlReturn_t;
enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    FUNCTION_NOT_FOUND = 13,
    ARGUMENT_VERSION_MISMATCH = 25,
};

enum { MAX_GPUS = 64, MAX_INSTANCES = 16 };

/* Handles are cells of this table, not nodes of the tree: they stay good when the description is read again. */
typedef struct {
    int gpu, instance; /* instance -1: the whole GPU */
} handle;
static handle handles[MAX_GPUS][MAX_INSTANCES + 1];

static node *machine;
static int sessions; /* nvmlInit calls not yet undone */

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    struct stat seen;
    if (!file || fstat(fileno(file), &seen))
        fail("the description %s cannot be read", path);
    char *text = malloc((size_t)seen.st_size + 1);
    text[fread(text, 1, (size_t)seen.st_size, file)] = '\0';
    fclose(file);
    return text;
}

static void refresh_alone(void)
{
    static struct stat last;
    struct stat now;
    const char *path = getenv("MSCLI_TEST_MACHINE");
    if (!path || stat(path, &now))
        fail("MSCLI_TEST_MACHINE must name a machine description, not %s", path ? path : "nothing");
    if (machine && now.st_ino == last.st_ino && now.st_size == last.st_size &&
        now.st_mtim.tv_sec == last.st_mtim.tv_sec && now.st_mtim.tv_nsec == last.st_mtim.tv_nsec)
        return;
    char *text = read_file(path);
    forget(machine);
    at = text;
    machine = read_value();
    last = now;
    free(text);
}

/* The real libraries may be called from several threads at once. */
static void refresh(void)
{
    static pthread_mutex_t alone = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&alone);
    refresh_alone();
    pthread_mutex_unlock(&alone);
}

/* The description of GPU `index`: an entry with "count" stands for that many GPUs. */
static node *gpu_at(int index)
{
    node *gpus = get(machine, "gpus"), *gpu = gpus ? gpus->child : NULL;
    for (; gpu; gpu = gpu->next) {
        int count = (int)number_or(get(gpu, "count"), 1);
        if (index < count)
            return gpu;
        index -= count;
    }
    return NULL;
}

static int gpu_count(void)
{
    int count = 0;
    while (gpu_at(count))
        count++;
    return count;
}

static node *member_at(node *array, int index)
{
    node *member = array ? array->child : NULL;
    while (member && index-- > 0)
        member = member->next;
    return member;
}

static node *described(const handle *device)
{
    node *gpu = gpu_at(device->gpu);
    return device->instance < 0 ? gpu : member_at(get(gpu, "instances"), device->instance);
}

static handle *handle_of(int gpu, int instance)
{
    if (gpu >= MAX_GPUS || instance >= MAX_INSTANCES)
        fail("more than %d GPUs or %d instances", MAX_GPUS, MAX_INSTANCES);
    handle *device = &handles[gpu][instance + 1];
    *device = (handle){gpu, instance};
    return device;
}

static int is_handle(const handle *device)
{
    return device >= &handles[0][0] && device <= &handles[MAX_GPUS - 1][MAX_INSTANCES] && described(device);
}

/* Without "uuid" the first byte is the GPU's index, so that short prefixes are unambiguous. */
static void uuid_of(const handle *device, char *out, size_t size)
{
    node *written = get(described(device), "uuid");
    if (written)
        snprintf(out, size, "%s", written->text);
    else if (device->instance < 0)
        snprintf(out, size, "GPU-%02x5d1c07-4b8e-9f23-a6d0-5e7c3b1f0a42", device->gpu);
    else
        snprintf(out, size, "MIG-%02x%02x41be-7c0d-5a96-8e13-d2f4906b7ac5", device->gpu, device->instance);
}

/* ---- what happens on every call ---- */

static void record(const char *call, const handle *device)
{
    const char *path = getenv("MSCLI_TEST_NVML_LOG");
    FILE *log = path ? fopen(path, "a") : NULL;
    if (!log)
        return;
    if (device)
        fprintf(log, "%s %d\n", call, device->gpu);
    else
        fprintf(log, "%s\n", call);
    fclose(log);
}

/* The error asked for by "errors": under the symbol's own name, its name without _v2 or _v3, or "*". */
static nvmlReturn_t ordered_error(const node *owner, const char *call)
{
    char plain[128];
    node *errors = get(owner, "errors"), *found = get(errors, call);
    size_t length = strlen(call);
    snprintf(plain, sizeof plain, "%s", call);
    if (length > 3 && call[length - 3] == '_' && call[length - 2] == 'v')
        plain[length - 3] = '\0';
    found = found ? found : get(errors, plain);
    found = found ? found : get(errors, "*");
    return (nvmlReturn_t)number_or(found, SUCCESS);
}

static int is_missing(const char *call)
{
    node *missing = get(machine, "missing");
    for (node *name = missing ? missing->child : NULL; name; name = name->next)
        if (!strcmp(name->text, call))
            return 1;
    return 0;
}

/* pynvml raises the same FunctionNotFound for this answer and for a symbol that the library does not export. */
static nvmlReturn_t enter(const char *call, const handle *device)
{
    refresh();
    record(call, device);
    if (is_missing(call))
        return FUNCTION_NOT_FOUND;
    if (!sessions)
        return UNINITIALIZED;
    if (!device)
        return ordered_error(machine, call);
    if (!is_handle(device))
        return INVALID_ARGUMENT;
    nvmlReturn_t code = ordered_error(gpu_at(device->gpu), call);
    return code || device->instance < 0 ? code : ordered_error(described(device), call);
}

static nvmlReturn_t enter_pair(const char *call, const handle *first, const handle *second)
{
    nvmlReturn_t code = enter(call, first);
    if (code)
        return code;
    return is_handle(second) ? ordered_error(gpu_at(second->gpu), call) : INVALID_ARGUMENT;
}

static nvmlReturn_t give_text(const char *text, char *out, unsigned size)
{
    if (!text)
        return NOT_SUPPORTED;
    if (strlen(text) + 1 > size)
        return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return SUCCESS;
}

static nvmlReturn_t give_number(const node *value, double scale, unsigned *out)
{
    if (!value)
        return NOT_SUPPORTED;
    *out = (unsigned)lround(value->number * scale);
    return SUCCESS;
}

#endif
