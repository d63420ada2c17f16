/* A libnvidia-ml.so.1 whose machine is a text file that a test rewrites.
 *
 * The file named by PRSMD_FAKE_NVML is read again at every call, so a change shows at once. It holds
 * one record a line with tab-separated fields (tests/support/gpus.py writes it):
 *
 *   driver       VERSION                   without it there is no driver
 *   init         CODE                      nvmlInitWithFlags returns CODE
 *   hang         FUNCTION                  FUNCTION does not return while this stands
 *   crash        FUNCTION                  FUNCTION aborts the process
 *   gpu          UUID NAME TOTAL USED UTIL MEMORY_UTIL CELSIUS MILLIWATTS MIG RECOVERY ERROR
 *   mig          PARENT_UUID UUID NAME TOTAL USED
 *   process      UUID PID BYTES KIND       KIND is compute, graphics or mps; BYTES -1: not told
 *   fail         UUID FUNCTION CODE        FUNCTION on this device ("*": on any) returns CODE
 *   xid          SERIAL UUID XID           delivered once to every event set that is older than it
 *
 * It covers what prsmd calls and nothing else; a symbol that is missing here is missing for pynvml
 * too ("Function Not Found"), as with an older driver.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15
};
enum { FIELDS = 12, DEVICES = 64, ROWS = 512, XID_EVENT = 8, RECOVERY_FIELD = 230 };

typedef unsigned int u32;
typedef unsigned long long u64;
typedef struct { char uuid[96]; } Device;             /* what a handle points to; lives for ever */
typedef struct { char *field[FIELDS]; int count; } Row;
typedef struct { u64 total, free, used; } Memory;
typedef struct { u32 gpu, memory; } Utilization;
typedef struct { u32 pid; u64 used; u32 gpu_instance, compute_instance; } Process;
typedef struct { Device *device; u64 type, data; u32 gpu_instance, compute_instance; } Event;
typedef struct { Device *devices[DEVICES]; int count; long seen; } EventSet;
typedef struct {
    u32 id, scope; long long timestamp, latency; u32 type, result; union { double d; u32 u; u64 ull; } value;
} FieldValue;

static Device known[DEVICES];
static Row rows[ROWS];
static int row_count;
static char text[1 << 20];
static int initialized;

static void load(void) {
    const char *path = getenv("PRSMD_FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    row_count = 0;
    if (!file) return;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    char *line_end, *field_end;
    for (char *line = strtok_r(text, "\n", &line_end); line && row_count < ROWS;
         line = strtok_r(NULL, "\n", &line_end)) {
        Row *row = &rows[row_count++];
        row->count = 0;
        for (char *field = strtok_r(line, "\t", &field_end); field && row->count < FIELDS;
             field = strtok_r(NULL, "\t", &field_end))
            row->field[row->count++] = field;
    }
}

static Row *find(const char *kind, const char *first) {
    for (int i = 0; i < row_count; i++)
        if (!strcmp(rows[i].field[0], kind) && (!first || !strcmp(rows[i].field[1], first)))
            return &rows[i];
    return NULL;
}

static Row *nth(const char *kind, const char *first, u32 index) {
    for (int i = 0; i < row_count; i++)
        if (!strcmp(rows[i].field[0], kind) && (!first || !strcmp(rows[i].field[1], first)) && !index--)
            return &rows[i];
    return NULL;
}

static Row *mig_row(const char *uuid) {
    for (int i = 0; i < row_count; i++)
        if (!strcmp(rows[i].field[0], "mig") && !strcmp(rows[i].field[2], uuid)) return &rows[i];
    return NULL;
}

static Device *handle_of(const char *uuid) {
    for (int i = 0; i < DEVICES; i++) {
        if (!known[i].uuid[0]) strncpy(known[i].uuid, uuid, sizeof known[i].uuid - 1);
        if (!strcmp(known[i].uuid, uuid)) return &known[i];
    }
    return NULL;
}

static long number(const Row *row, int field) { return strtol(row->field[field], NULL, 10); }

/* Every entry point goes through here: read the file, then hang, crash or fail as it says. */
static int enter(const char *function, const Device *device) {
    load();
    for (; find("hang", function); load()) usleep(20000);
    if (find("crash", function)) abort();
    if (!device && !strcmp(function, "nvmlInitWithFlags")) return SUCCESS;
    if (!initialized) return UNINITIALIZED;
    if (!find("driver", NULL)) return DRIVER_NOT_LOADED;
    if (!device) return SUCCESS;
    for (int i = 0; i < row_count; i++)
        if (!strcmp(rows[i].field[0], "fail") && !strcmp(rows[i].field[2], function) &&
            (!strcmp(rows[i].field[1], "*") || !strcmp(rows[i].field[1], device->uuid)))
            return (int)number(&rows[i], 3);
    Row *gpu = find("gpu", device->uuid), *mig = mig_row(device->uuid);
    if (mig) gpu = find("gpu", mig->field[1]);
    return gpu ? (int)number(gpu, 11) : GPU_IS_LOST;
}
#define ENTER(device) do { int code_ = enter(__func__, device); if (code_) return code_; } while (0)
#define GPU_ONLY(device) \
    Row *gpu = find("gpu", (device)->uuid); \
    if (!gpu) return NOT_SUPPORTED

static int copy(char *to, u32 size, const char *from) {
    if (strlen(from) >= size) return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return SUCCESS;
}

int nvmlInitWithFlags(u32 flags) {
    (void)flags;
    ENTER(NULL);
    Row *row = find("init", NULL);
    if (row) return (int)number(row, 1);
    if (!find("driver", NULL)) return DRIVER_NOT_LOADED;
    initialized = 1;
    return SUCCESS;
}

int nvmlShutdown(void) { initialized = 0; return SUCCESS; }

const char *nvmlErrorString(int code) { (void)code; return "steered error"; }

int nvmlSystemGetDriverVersion(char *version, u32 size) {
    ENTER(NULL);
    return copy(version, size, find("driver", NULL)->field[1]);
}

int nvmlDeviceGetCount_v2(u32 *count) {
    ENTER(NULL);
    for (*count = 0; nth("gpu", NULL, *count); ++*count) {}
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(u32 index, Device **device) {
    ENTER(NULL);
    Row *gpu = nth("gpu", NULL, index);
    if (!gpu) return INVALID_ARGUMENT;
    *device = handle_of(gpu->field[1]);
    return enter(__func__, *device);
}

int nvmlDeviceGetUUID(Device *device, char *uuid, u32 size) {
    ENTER(device);
    return copy(uuid, size, device->uuid);
}

int nvmlDeviceGetName(Device *device, char *name, u32 size) {
    ENTER(device);
    Row *gpu = find("gpu", device->uuid);
    return copy(name, size, gpu ? gpu->field[2] : mig_row(device->uuid)->field[3]);
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    ENTER(device);
    Row *gpu = find("gpu", device->uuid), *row = gpu ? gpu : mig_row(device->uuid);
    memory->total = number(row, gpu ? 3 : 4);
    memory->used = number(row, gpu ? 4 : 5);
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *utilization) {
    ENTER(device);
    GPU_ONLY(device);
    utilization->gpu = number(gpu, 5);
    utilization->memory = number(gpu, 6);
    return SUCCESS;
}

int nvmlDeviceGetTemperature(Device *device, u32 sensor, u32 *celsius) {
    (void)sensor;
    ENTER(device);
    GPU_ONLY(device);
    *celsius = number(gpu, 7);
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(Device *device, u32 *milliwatts) {
    ENTER(device);
    GPU_ONLY(device);
    *milliwatts = number(gpu, 8);
    return SUCCESS;
}

static int processes(Device *device, const char *kind, u32 *count, Process *out) {
    u32 found = 0, room = *count;
    for (int i = 0; i < row_count; i++) {
        Row *row = &rows[i];
        if (strcmp(row->field[0], "process") || strcmp(row->field[1], device->uuid) || strcmp(row->field[4], kind))
            continue;
        if (out && found < room)
            out[found] = (Process){(u32)number(row, 2), (u64)number(row, 3), ~0u, ~0u};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, u32 *count, Process *out) {
    ENTER(device);
    return processes(device, "compute", count, out);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(Device *device, u32 *count, Process *out) {
    ENTER(device);
    return processes(device, "graphics", count, out);
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(Device *device, u32 *count, Process *out) {
    ENTER(device);
    return processes(device, "mps", count, out);
}

int nvmlDeviceGetFieldValues(Device *device, int count, FieldValue *values) {
    ENTER(device);
    GPU_ONLY(device);
    for (int i = 0; i < count; i++) {
        values[i].type = 1;
        values[i].result = values[i].id == RECOVERY_FIELD ? SUCCESS : NOT_SUPPORTED;
        values[i].value.u = number(gpu, 10);
    }
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Device *device, u32 *current, u32 *pending) {
    ENTER(device);
    GPU_ONLY(device);
    *current = *pending = number(gpu, 9);
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(Device *device, u32 *count) {
    ENTER(device);
    *count = 7;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, u32 index, Device **instance) {
    ENTER(device);
    Row *mig = nth("mig", device->uuid, index);
    if (!mig) return NOT_FOUND;
    *instance = handle_of(mig->field[2]);
    return SUCCESS;
}

int nvmlEventSetCreate(EventSet **set) {
    ENTER(NULL);
    *set = calloc(1, sizeof **set);
    for (int i = 0; i < row_count; i++)
        if (!strcmp(rows[i].field[0], "xid") && number(&rows[i], 1) > (*set)->seen)
            (*set)->seen = number(&rows[i], 1);
    return SUCCESS;
}

int nvmlDeviceGetSupportedEventTypes(Device *device, u64 *types) {
    ENTER(device);
    *types = XID_EVENT | 1 | 2;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(Device *device, u64 types, EventSet *set) {
    ENTER(device);
    if (types & XID_EVENT) set->devices[set->count++] = device;
    return SUCCESS;
}

int nvmlEventSetWait_v2(EventSet *set, Event *event, u32 milliseconds) {
    (void)milliseconds;
    ENTER(NULL);
    for (int i = 0; i < row_count; i++) {
        Row *row = &rows[i];
        if (strcmp(row->field[0], "xid") || number(row, 1) <= set->seen) continue;
        set->seen = number(row, 1);
        for (int j = 0; j < set->count; j++)
            if (!strcmp(set->devices[j]->uuid, row->field[2])) {
                *event = (Event){set->devices[j], XID_EVENT, (u64)number(row, 3), ~0u, ~0u};
                return SUCCESS;
            }
    }
    return TIMEOUT;
}

int nvmlEventSetFree(EventSet *set) { free(set); return SUCCESS; }
