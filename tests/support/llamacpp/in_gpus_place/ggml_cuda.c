/* A stand-in for llama.cpp's libggml-cuda.so where no GPU can be: a back end "CUDA" whose devices compute on the CPU.
 *
 *   cc -shared -fPIC -O1 -o libggml-cuda.so ggml_cuda.c libcudart.so
 *
 * Its devices are those of CUDA_VISIBLE_DEVICES (identifiers as NVML gives them), with the names and the memory that
 * NVML gives. Everything else is done by the build for the CPU that lies beside it, libggml-cpu-x64.so, which also says
 * which version of the interface ggml speaks. The structures are those of ggml/src/ggml-backend-impl.h and
 * ggml/include/ggml-backend.h, as far as what is changed in them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GPU = 1, MOST = 16, WORDS_OF_A_BACKEND = 24 };

typedef struct device device;
typedef struct registry registry;

struct device {
    const char *(*get_name)(device *);
    const char *(*get_description)(device *);
    void (*get_memory)(device *, size_t *, size_t *);
    int (*get_type)(device *);
    void (*get_props)(device *, void *);
    void *(*init_backend)(device *, const char *);
    void *unchanged[9];
    registry *owner;
    void *context;
};

struct registry {
    int api_version;
    const char *(*get_name)(registry *);
    size_t (*get_device_count)(registry *);
    device *(*get_device)(registry *, size_t);
    void *(*get_proc_address)(registry *, const char *);
    void *context;
};

struct props {
    const char *name, *description;
    size_t free, total;
    int type;
};

struct memory {
    unsigned long long total, free, used;
};

extern void cudart_stand_in(void);

static device devices[MOST], *cpu;
static char names[MOST][16], descriptions[MOST][96];
static struct memory memories[MOST];
static size_t count;

static const char *name_of(device *it) { return names[it - devices]; }
static const char *description_of(device *it) { return descriptions[it - devices]; }
static int type_of(device *it) { (void)it; return GPU; }

static void memory_of(device *it, size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = memories[it - devices].free;
    *total_bytes = memories[it - devices].total;
}

static void props_of(device *it, void *out)
{
    struct props *props = out;
    cpu->get_props(cpu, out);
    props->name = name_of(it);
    props->description = description_of(it);
    props->type = GPU;
    memory_of(it, &props->free, &props->total);
}

/* A back end of the CPU that says that it belongs to this device: llama.cpp looks for the last one that is a CPU's. */
static void *backend_of(device *it, const char *params)
{
    void **words = cpu->init_backend(cpu, params);
    for (int place = 0; place < WORDS_OF_A_BACKEND; place++)
        if (words[place] == cpu) {
            words[place] = it;
            break;
        }
    return words;
}

static const char *registry_name(registry *it) { (void)it; return "CUDA"; }
static size_t registry_count(registry *it) { (void)it; return count; }
static device *registry_device(registry *it, size_t index) { (void)it; return &devices[index]; }
static void *registry_address(registry *it, const char *name) { (void)it; (void)name; return NULL; }
static registry own = {0, registry_name, registry_count, registry_device, registry_address, NULL};

static registry *of_the_cpu(void)
{
    Dl_info here;
    char path[4096];
    dladdr((void *)registry_name, &here);
    int folder = (int)(strrchr(here.dli_fname, '/') + 1 - here.dli_fname);
    snprintf(path, sizeof path, "%.*slibggml-cpu-x64.so", folder, here.dli_fname);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    registry *(*begin)(void) = library ? (registry *(*)(void))dlsym(library, "ggml_backend_init") : NULL;
    return begin ? begin() : NULL;
}

static void add(const char *name, const struct memory *memory)
{
    device *it = &devices[count];
    *it = *cpu;
    it->get_name = name_of;
    it->get_description = description_of;
    it->get_memory = memory_of;
    it->get_type = type_of;
    it->get_props = props_of;
    it->init_backend = backend_of;
    it->owner = &own;
    snprintf(names[count], sizeof names[count], "CUDA%zu", count);
    snprintf(descriptions[count], sizeof descriptions[count], "%s", name);
    memories[count++] = *memory;
}

/* The GPUs that NVML shows and CUDA_VISIBLE_DEVICES leaves. */
static void look(void *nvml)
{
    int (*start)(unsigned) = (int (*)(unsigned))dlsym(nvml, "nvmlInitWithFlags");
    int (*at)(unsigned, void **) = (int (*)(unsigned, void **))dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2");
    int (*uuid_of)(void *, char *, unsigned) = (int (*)(void *, char *, unsigned))dlsym(nvml, "nvmlDeviceGetUUID");
    int (*named)(void *, char *, unsigned) = (int (*)(void *, char *, unsigned))dlsym(nvml, "nvmlDeviceGetName");
    int (*holds)(void *, struct memory *) = (int (*)(void *, struct memory *))dlsym(nvml, "nvmlDeviceGetMemoryInfo");
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    char uuid[96], name[96];
    struct memory memory;
    void *handle;
    if (start(0))
        return;
    for (unsigned index = 0; count < MOST && !at(index, &handle); index++) {
        uuid_of(handle, uuid, sizeof uuid);
        named(handle, name, sizeof name);
        holds(handle, &memory);
        if (!visible || strstr(visible, uuid))
            add(name, &memory);
    }
}

registry *ggml_backend_init(void)
{
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    registry *real = of_the_cpu();
    cudart_stand_in();
    if (!real || !nvml)
        return NULL;
    cpu = real->get_device(real, 0);
    own.api_version = real->api_version;
    look(nvml);
    return &own;
}
