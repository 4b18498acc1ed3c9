/* A stand-in for libnvidia-ml.so.1, below the real pynvml bindings: it answers from a machine description.
 *
 *   cc -shared -fPIC -O1 -o libnvidia-ml.so.1 nvml.c -lm
 *
 * MSCLI_TEST_MACHINE  the description, a JSON file (tests/support/machines/descriptions/README.md explains every key). It is read again
 *                     whenever the file has changed, so a test can give memory back while a process runs.
 * MSCLI_TEST_NVML_LOG a file to which each call appends its name and, for calls on a device, the GPU's index.
 *
 * A value that the description does not have is NVML_ERROR_NOT_SUPPORTED, as it is on real hardware.
 */
#include "machine.h"

#define MIB (1024.0 * 1024.0)
#define NOT_AVAILABLE (~0ULL)
#define MEMORY_V2 0x02000028u

/* ---- the system ---- */

nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    refresh();
    record(__func__, NULL);
    nvmlReturn_t code = (nvmlReturn_t)number_or(get(machine, "init_error"), SUCCESS);
    sessions += !code;
    return code;
}

nvmlReturn_t nvmlShutdown(void)
{
    nvmlReturn_t code = enter(__func__, NULL);
    sessions -= !code;
    return code;
}

const char *nvmlErrorString(nvmlReturn_t code)
{
    static char text[64];
    snprintf(text, sizeof text, "NVML error %d", code);
    return text;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned size)
{
    nvmlReturn_t code = enter(__func__, NULL);
    node *driver = get(machine, "driver");
    return code ? code : give_text(driver ? driver->text : NULL, out, size);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *out)
{
    nvmlReturn_t code = enter(__func__, NULL);
    node *cuda = get(machine, "cuda");
    int major, minor;
    if (code)
        return code;
    if (!cuda || sscanf(cuda->text, "%d.%d", &major, &minor) != 2)
        return NOT_SUPPORTED;
    *out = major * 1000 + minor * 10;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count)
{
    nvmlReturn_t code = enter(__func__, NULL);
    *count = code ? 0 : (unsigned)gpu_count();
    return code;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, handle **out)
{
    refresh();
    if (!gpu_at((int)index))
        return INVALID_ARGUMENT;
    *out = handle_of((int)index, -1);
    return enter(__func__, *out);
}

/* ---- one device ---- */

nvmlReturn_t nvmlDeviceGetName(handle *device, char *out, unsigned size)
{
    nvmlReturn_t code = enter(__func__, device);
    node *name = code ? NULL : get(described(device), "name");
    return code ? code : give_text(name ? name->text : NULL, out, size);
}

nvmlReturn_t nvmlDeviceGetUUID(handle *device, char *out, unsigned size)
{
    char uuid[96];
    nvmlReturn_t code = enter(__func__, device);
    if (code)
        return code;
    uuid_of(device, uuid, sizeof uuid);
    return give_text(uuid, out, size);
}

typedef struct {
    char bus_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} pci_info;

static nvmlReturn_t give_pci(int gpu, const node *written, pci_info *out)
{
    memset(out, 0, sizeof *out);
    if (written)
        snprintf(out->bus_id, sizeof out->bus_id, "%s", written->text);
    else
        snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", 16 * gpu + 1);
    snprintf(out->bus_legacy, sizeof out->bus_legacy, "%.11s", out->bus_id + 4);
    sscanf(out->bus_id, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(handle *device, pci_info *out)
{
    nvmlReturn_t code = enter(__func__, device);
    return code ? code : give_pci(device->gpu, get(gpu_at(device->gpu), "bus"), out);
}

typedef struct {
    unsigned long long total, free, used;
} memory_v1;

typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} memory_v2;

static int read_memory(const handle *device, memory_v2 *out)
{
    node *memory = get(described(device), "memory_mib");
    out->total = (unsigned long long)(number_or(get(memory, "total"), 0) * MIB);
    out->used = (unsigned long long)(number_or(get(memory, "used"), 0) * MIB);
    out->reserved = (unsigned long long)(number_or(get(memory, "reserved"), 0) * MIB);
    out->free = out->total - out->used - out->reserved;
    return memory != NULL;
}

/* As in the driver: the older call counts what the driver reserves as used, the newer one tells it apart. */
nvmlReturn_t nvmlDeviceGetMemoryInfo(handle *device, memory_v1 *out)
{
    memory_v2 memory;
    nvmlReturn_t code = enter(__func__, device);
    if (code || !read_memory(device, &memory))
        return code ? code : NOT_SUPPORTED;
    *out = (memory_v1){memory.total, memory.free, memory.used + memory.reserved};
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(handle *device, memory_v2 *out)
{
    nvmlReturn_t code = enter(__func__, device);
    if (code)
        return code;
    if (out->version != MEMORY_V2)
        return ARGUMENT_VERSION_MISMATCH;
    return read_memory(device, out) ? SUCCESS : NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(handle *device, int *major, int *minor)
{
    nvmlReturn_t code = enter(__func__, device);
    node *capability = code ? NULL : get(gpu_at(device->gpu), "compute_capability");
    if (code)
        return code;
    return capability && sscanf(capability->text, "%d.%d", major, minor) == 2 ? SUCCESS : NOT_SUPPORTED;
}

typedef struct {
    unsigned gpu, memory;
} utilisation;

nvmlReturn_t nvmlDeviceGetUtilizationRates(handle *device, utilisation *out)
{
    nvmlReturn_t code = enter(__func__, device);
    out->memory = 0;
    return code ? code : give_number(get(described(device), "utilisation_percent"), 1, &out->gpu);
}

nvmlReturn_t nvmlDeviceGetTemperature(handle *device, int sensor, unsigned *out)
{
    nvmlReturn_t code = enter(__func__, device);
    (void)sensor;
    return code ? code : give_number(get(described(device), "temperature_c"), 1, out);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(handle *device, unsigned *milliwatts)
{
    nvmlReturn_t code = enter(__func__, device);
    return code ? code : give_number(get(described(device), "power_w"), 1000, milliwatts);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(handle *device, unsigned *milliwatts)
{
    nvmlReturn_t code = enter(__func__, device);
    return code ? code : give_number(get(described(device), "power_limit_w"), 1000, milliwatts);
}

nvmlReturn_t nvmlDeviceGetMemoryBusWidth(handle *device, unsigned *bits)
{
    nvmlReturn_t code = enter(__func__, device);
    return code ? code : give_number(get(get(described(device), "clocks"), "bus_bits"), 1, bits);
}

nvmlReturn_t nvmlDeviceGetNumGpuCores(handle *device, unsigned *cores)
{
    nvmlReturn_t code = enter(__func__, device);
    return code ? code : give_number(get(get(described(device), "clocks"), "cores"), 1, cores);
}

/* Of kind 1 the cores' clock, of kind 2 the memory's. */
nvmlReturn_t nvmlDeviceGetMaxClockInfo(handle *device, int kind, unsigned *mhz)
{
    nvmlReturn_t code = enter(__func__, device);
    return code ? code : give_number(get(get(described(device), "clocks"), kind == 2 ? "memory_mhz" : "sm_mhz"), 1, mhz);
}

/* ---- how well a device is ---- */

/* Errors of kind 1 (uncorrected) since the driver was loaded (counter 0) or in all (1). */
nvmlReturn_t nvmlDeviceGetTotalEccErrors(handle *device, int kind, int counter, unsigned long long *out)
{
    nvmlReturn_t code = enter(__func__, device);
    node *ecc = code ? NULL : get(described(device), "ecc");
    if (code || !ecc)
        return code ? code : NOT_SUPPORTED;
    *out = kind ? (unsigned long long)number_or(get(ecc, counter ? "aggregate" : "volatile"), 0) : 0;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRemappedRows(handle *device, unsigned *correctable, unsigned *uncorrectable,
                                       unsigned *pending, unsigned *failed)
{
    nvmlReturn_t code = enter(__func__, device);
    node *rows = code ? NULL : get(described(device), "remapped_rows");
    if (code || !rows)
        return code ? code : NOT_SUPPORTED;
    *correctable = (unsigned)number_or(get(rows, "correctable"), 0);
    *uncorrectable = (unsigned)number_or(get(rows, "uncorrectable"), 0);
    *pending = (unsigned)number_or(get(rows, "pending"), 0);
    *failed = (unsigned)number_or(get(rows, "failed"), 0);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(handle *device, unsigned *pending)
{
    nvmlReturn_t code = enter(__func__, device);
    return code ? code : give_number(get(described(device), "retired_pages_pending"), 1, pending);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(handle *device, unsigned long long *out)
{
    unsigned reasons;
    nvmlReturn_t code = enter(__func__, device);
    code = code ? code : give_number(get(described(device), "throttle_reasons"), 1, &reasons);
    if (!code)
        *out = reasons;
    return code;
}

nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(handle *device, unsigned *out)
{
    nvmlReturn_t code = enter(__func__, device);
    return code ? code : give_number(get(get(described(device), "pcie"), "width"), 1, out);
}

nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(handle *device, unsigned *out)
{
    nvmlReturn_t code = enter(__func__, device);
    return code ? code : give_number(get(get(described(device), "pcie"), "max_width"), 1, out);
}

typedef struct {
    unsigned char cluster[16];
    nvmlReturn_t status;
    unsigned clique;
    unsigned char state;
} fabric_info;

nvmlReturn_t nvmlDeviceGetGpuFabricInfo(handle *device, fabric_info *out)
{
    nvmlReturn_t code = enter(__func__, device);
    node *fabric = code ? NULL : get(described(device), "fabric");
    if (code || !fabric)
        return code ? code : NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    out->state = (unsigned char)number_or(get(fabric, "state"), 0);
    out->status = (nvmlReturn_t)number_or(get(fabric, "status"), 0);
    return SUCCESS;
}

/* ---- processes ---- */

typedef struct {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
} process_info;

static nvmlReturn_t give_processes(const char *call, handle *device, const char *list, unsigned *count,
                                   process_info *out)
{
    nvmlReturn_t code = enter(call, device);
    if (code)
        return code;
    node *processes = get(described(device), list), *process = processes ? processes->child : NULL;
    unsigned room = *count;
    for (*count = 0; process; process = process->next, (*count)++) {
        if (!out || *count >= room)
            continue; /* only counting: the caller comes back with a larger array */
        node *used = get(process, "memory_mib");
        out[*count] = (process_info){(unsigned)number_or(get(process, "pid"), 0),
                                     used ? (unsigned long long)(used->number * MIB) : NOT_AVAILABLE, ~0u, ~0u};
    }
    return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(handle *device, unsigned *count, process_info *out)
{
    return give_processes(__func__, device, "compute", count, out);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(handle *device, unsigned *count, process_info *out)
{
    return give_processes(__func__, device, "compute", count, out);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(handle *device, unsigned *count, process_info *out)
{
    return give_processes(__func__, device, "graphics", count, out);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(handle *device, unsigned *count, process_info *out)
{
    return give_processes(__func__, device, "graphics", count, out);
}

/* ---- MIG ---- */

nvmlReturn_t nvmlDeviceGetMigMode(handle *device, unsigned *current, unsigned *pending)
{
    nvmlReturn_t code = enter(__func__, device);
    code = code ? code : give_number(get(described(device), "mig"), 1, current);
    *pending = *current;
    return code;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(handle *device, unsigned *count)
{
    nvmlReturn_t code = enter(__func__, device);
    *count = get(gpu_at(device->gpu), "mig") ? 7 : 0;
    return code;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(handle *device, unsigned index, handle **out)
{
    nvmlReturn_t code = enter(__func__, device);
    if (code)
        return code;
    *out = handle_of(device->gpu, (int)index);
    return described(*out) ? SUCCESS : NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(handle *device, unsigned *id)
{
    nvmlReturn_t code = enter(__func__, device);
    return code ? code : give_number(get(described(device), "gpu_instance"), 1, id);
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(handle *device, unsigned *id)
{
    nvmlReturn_t code = enter(__func__, device);
    return code ? code : give_number(get(described(device), "compute_instance"), 1, id);
}

/* ---- how GPUs reach each other ---- */

/* The bundle of NVLink lanes that lane `link` belongs to: {"lanes", "remote" or "switch", "active"}. */
static nvmlReturn_t find_bundle(const char *call, const handle *device, unsigned link, node **out)
{
    nvmlReturn_t code = enter(call, device);
    if (code)
        return code;
    node *nvlinks = get(gpu_at(device->gpu), "nvlinks");
    if (!nvlinks)
        return NOT_SUPPORTED;
    for (*out = nvlinks->child; *out; *out = (*out)->next) {
        unsigned lanes = (unsigned)number_or(get(*out, "lanes"), 0);
        if (link < lanes)
            return SUCCESS;
        link -= lanes;
    }
    return INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetNvLinkState(handle *device, unsigned link, unsigned *active)
{
    node *bundle;
    nvmlReturn_t code = find_bundle(__func__, device, link, &bundle);
    if (!code)
        *active = (unsigned)number_or(get(bundle, "active"), 1);
    return code;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(handle *device, unsigned link, unsigned *type)
{
    node *bundle;
    nvmlReturn_t code = find_bundle(__func__, device, link, &bundle);
    if (!code)
        *type = get(bundle, "switch") ? 2 : 0;
    return code;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(handle *device, unsigned link, pci_info *out)
{
    node *bundle;
    nvmlReturn_t code = find_bundle(__func__, device, link, &bundle);
    if (code)
        return code;
    int remote = (int)number_or(get(bundle, "remote"), -1);
    node *bus = get(bundle, "switch");
    return give_pci(remote, bus ? bus : get(gpu_at(remote), "bus"), out);
}

nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(handle *first, handle *second, unsigned *level)
{
    static const char *const names[] = {"internal", "single-switch", "multiple-switches", "host-bridge", "node", "system"};
    nvmlReturn_t code = enter_pair(__func__, first, second);
    node *path = get(get(machine, "topology"), "path");
    for (unsigned i = 0; !code && path && i < sizeof names / sizeof *names; i++)
        if (!strcmp(path->text, names[i])) {
            *level = 10 * i;
            return SUCCESS;
        }
    return code ? code : NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetP2PStatus(handle *first, handle *second, int capability, unsigned *status)
{
    nvmlReturn_t code = enter_pair(__func__, first, second);
    node *p2p = get(get(machine, "topology"), "p2p");
    (void)capability;
    if (code || !p2p)
        return code ? code : NOT_SUPPORTED;
    *status = p2p->number ? 0 : 1; /* 1: the chipset does not support it */
    return SUCCESS;
}
