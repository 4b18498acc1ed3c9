/* A stand-in for libcuda.so.1: CUDA's driver API as far as a first context and allocation, answered from the same
 * machine description as nvml.c.
 *
 *   cc -shared -fPIC -O1 -o libcuda.so.1 cuda.c -lm -lpthread
 *
 * It shows the GPUs that CUDA_VISIBLE_DEVICES leaves, by index in PCI order or by the start of their UUID; of a GPU cut
 * into MIG instances the first one. "cuda_errors" orders what a call answers: an error's number, "hang" or "crash".
 */
#pragma GCC diagnostic ignored "-Wunused-function"
#include <signal.h>
#include <unistd.h>

#include "machine.h"

#define MIB (1024.0 * 1024.0)

typedef int CUresult;
typedef int CUdevice;
typedef struct context *CUcontext;
typedef unsigned long long CUdeviceptr;
enum {
    CUDA_OK = 0,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    SYSTEM_DRIVER_MISMATCH = 803,
};

static handle devices[MAX_GPUS]; /* in CUDA's order */
static int device_count = -1;    /* -1: cuInit has not succeeded */
static _Thread_local CUdevice current = -1;

static CUresult ordered(const node *owner, const char *call)
{
    node *found = get(get(owner, "cuda_errors"), call);
    if (found && found->kind == TEXT && !strcmp(found->text, "hang"))
        for (;;)
            pause();
    if (found && found->kind == TEXT && !strcmp(found->text, "crash")) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    return (CUresult)number_or(found, CUDA_OK);
}

static CUresult enter_device(const char *call, CUdevice device)
{
    refresh();
    if (device_count < 0)
        return NOT_INITIALIZED;
    if (device < 0 || device >= device_count)
        return INVALID_DEVICE;
    CUresult code = ordered(machine, call);
    return code ? code : ordered(gpu_at(devices[device].gpu), call);
}

/* ---- which devices there are ---- */

static int usable(int gpu)
{
    node *description = gpu_at(gpu), *mig = get(description, "mig");
    if (number_or(get(get(description, "errors"), "*"), 0) || number_or(get(description, "cuda_hidden"), 0))
        return 0;
    return !number_or(mig, 0) || member_at(get(description, "instances"), 0);
}

static handle first_device(int gpu)
{
    return *handle_of(gpu, number_or(get(gpu_at(gpu), "mig"), 0) ? 0 : -1);
}

/* The GPU that an entry of CUDA_VISIBLE_DEVICES names, -1 for none. */
static int named(const char *entry)
{
    char *end, uuid[96];
    long index = strtol(entry, &end, 10);
    if (end != entry)
        return *end == '\0' && index >= 0 && index < gpu_count() && usable((int)index) ? (int)index : -1;
    for (int gpu = 0; gpu < gpu_count(); gpu++) {
        handle device = first_device(gpu);
        uuid_of(&device, uuid, sizeof uuid);
        if (*entry && usable(gpu) && !strncmp(entry, uuid, strlen(entry)))
            return gpu;
    }
    return -1;
}

static void find_devices(void)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    device_count = 0;
    if (!visible) {
        for (int gpu = 0; gpu < gpu_count(); gpu++)
            if (usable(gpu))
                devices[device_count++] = first_device(gpu);
    } else {
        char *list = strdup(visible), *rest = list, *entry;
        while ((entry = strsep(&rest, ",")) && named(entry) >= 0 && device_count < MAX_GPUS)
            devices[device_count++] = first_device(named(entry));
        free(list);
    }
    for (int i = 0; i < device_count; i++)
        if (devices[i].instance >= 0)
            device_count = 1; /* a process has one MIG instance and no whole GPU beside it */
}

/* ---- the calls ---- */

CUresult cuInit(unsigned flags)
{
    (void)flags;
    refresh();
    int nvml = (int)number_or(get(machine, "init_error"), 0);
    CUresult code = ordered(machine, __func__);
    if (nvml && !get(get(machine, "cuda_errors"), __func__))
        code = nvml == 18 ? SYSTEM_DRIVER_MISMATCH : NO_DEVICE;
    if (code)
        return code;
    find_devices();
    if (device_count > 0)
        return CUDA_OK;
    device_count = -1;
    return NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version)
{
    int major = 0, minor = 0;
    refresh();
    node *cuda = get(machine, "cuda");
    if (cuda)
        sscanf(cuda->text, "%d.%d", &major, &minor);
    *version = major * 1000 + minor * 10;
    return ordered(machine, __func__);
}

CUresult cuGetErrorName(CUresult code, const char **name)
{
    static const struct {
        CUresult code;
        const char *name;
    } names[] = {{OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
                 {34, "CUDA_ERROR_STUB_LIBRARY"},
                 {46, "CUDA_ERROR_DEVICE_UNAVAILABLE"},
                 {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
                 {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
                 {214, "CUDA_ERROR_ECC_UNCORRECTABLE"},
                 {802, "CUDA_ERROR_SYSTEM_NOT_READY"},
                 {SYSTEM_DRIVER_MISMATCH, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
                 {804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"},
                 {999, "CUDA_ERROR_UNKNOWN"}};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == code) {
            *name = names[i].name;
            return CUDA_OK;
        }
    *name = NULL;
    return 1;
}

CUresult cuDeviceGetCount(int *count)
{
    refresh();
    *count = device_count;
    return device_count < 0 ? NOT_INITIALIZED : ordered(machine, __func__);
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return enter_device(__func__, ordinal);
}

CUresult cuDeviceGetName(char *out, int size, CUdevice device)
{
    CUresult code = enter_device(__func__, device);
    node *name = code ? NULL : get(described(&devices[device]), "name");
    snprintf(out, (size_t)size, "%s", name ? name->text : "unknown");
    return code;
}

static double memory_of(CUdevice device, const char *key)
{
    return number_or(get(get(described(&devices[device]), "memory_mib"), key), 0) * MIB;
}

/* A GPU without memory of its own is given 64 GiB: it shares the host's. */
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    CUresult code = enter_device(__func__, device);
    if (code)
        return code;
    double total = number_or(get(gpu_at(devices[device].gpu), "cuda_memory_mib"), 0) * MIB;
    if (total > 0) {
        *bytes = (size_t)total;
        return CUDA_OK;
    }
    total = memory_of(device, "total");
    *bytes = total > 0 ? (size_t)(total - memory_of(device, "reserved")) : (size_t)(65536 * MIB);
    return CUDA_OK;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    CUresult code = enter_device(__func__, device);
    *context = code ? NULL : (CUcontext)&devices[device];
    return code;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    return enter_device(__func__, device);
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    current = (CUdevice)((handle *)context - devices);
    return enter_device(__func__, current);
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    CUresult code = current < 0 ? INVALID_CONTEXT : cuDeviceTotalMem_v2(total, current);
    if (!code)
        *free_bytes = *total - (size_t)memory_of(current, "used");
    return code ? code : ordered(gpu_at(devices[current].gpu), __func__);
}

CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes)
{
    size_t free_bytes, total;
    CUresult code = current < 0 ? INVALID_CONTEXT : enter_device(__func__, current);
    code = code ? code : cuMemGetInfo_v2(&free_bytes, &total);
    *out = 0x7f0000000000ULL;
    return code ? code : free_bytes < bytes ? OUT_OF_MEMORY : CUDA_OK;
}

CUresult cuMemFree_v2(CUdeviceptr memory)
{
    (void)memory;
    return current < 0 ? INVALID_CONTEXT : enter_device(__func__, current);
}
