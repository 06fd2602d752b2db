/* An emulated NVML: libnvidia-ml.so.1 with the GPUs of gpu.h behind it.
 *
 * It is told what to be by text commands: one at a time through emu_command(), or all lines of the file named in
 * AIMETER_TEST_NVML when a process starts (see `command` near the end). Prototypes, sizes and codes follow NVIDIA's
 * public NVML reference; no vendor header is needed to build this.
 */
#include "gpu.h"

static Fault library_faults[FUNCTION_COUNT];
static long library_calls[FUNCTION_COUNT];
#define USUAL_DRIVER "570.86.15"
static char driver_version[TEXT] = USUAL_DRIVER;
/* A fresh library looks as if it were not installed, until it is told what to be. */
static int init_code = LIBRARY_NOT_FOUND;

/* Reads of real devices queue up behind the driver's lock, so one mutex serialises everything here too. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int references;     /* nvmlInit minus nvmlShutdown */
static pid_t owner;        /* NVML's state does not survive fork: only the process that initialised it may call */
static uintptr_t generation; /* goes into every handle, so one kept across a new nvmlInit is seen to be stale */
static double pause_after_s; /* second half of the running call's latency */

/* ---- every call passes through begin() and end() ------------------------------------------------------------- */

typedef void *Handle; /* generation << 16 | (MIG instance + 1) << 8 | (device + 1); never dereferenced */

static Handle handle_of(const Device *d, int mig)
{
    return (Handle)(generation << 16 | (uintptr_t)(mig + 1) << 8 | (uintptr_t)(d - devices + 1));
}
static int mig_of(Handle h) { return (int)((uintptr_t)h >> 8 & 0xff) - 1; }

static Device *device_of(Handle h)
{
    uintptr_t bits = (uintptr_t)h, index = bits & 0xff;
    if (bits >> 16 != generation || index == 0 || index > (uintptr_t)device_count)
        return NULL;
    return &devices[index - 1];
}

static int alive(void) { return references > 0 && owner == getpid(); }

static int begin_library(Function f)
{
    Fault *fault;
    pthread_mutex_lock(&lock);
    pause_after_s = 0;
    library_calls[f]++;
    if (!alive())
        return UNINITIALIZED;
    fault = due(&library_faults[f]);
    return fault ? fault->code : SUCCESS;
}

/* `metered` functions have their faults applied by answer(), once for each value. */
static int begin(Function f, Handle h, Device **device, int metered)
{
    Device *d;
    Fault *fault;
    double latency_s;
    int code = begin_library(f);
    if (code)
        return code;
    d = *device = device_of(h);
    if (!d)
        return INVALID_ARGUMENT;
    d->calls[f]++;
    d->reads++;
    if (d->power_latency_s > 0 && f != F_nvmlDeviceGetTotalEnergyConsumption)
        latency_s = d->power_latency_s;
    else if (d->burst_every > 0 && d->reads % (long)d->burst_every == 0)
        latency_s = d->burst_s;
    else
        latency_s = d->latency_s * (1 - d->latency_spread * log(1 - chance(d->reads)));
    pass(latency_s * d->taken_at);
    pause_after_s = latency_s * (1 - d->taken_at);
    fault = metered ? NULL : due(&d->faults[f]);
    return fault ? fault->code : SUCCESS;
}

static int end(int code)
{
    pass(pause_after_s);
    pause_after_s = 0;
    pthread_mutex_unlock(&lock);
    return code;
}

#define DEVICE_CALL(fn, handle, ok)                           \
    Device *d = NULL;                                         \
    int code = begin(F_##fn, handle, &d, 0);                  \
    if (!code && !(ok))                                       \
        code = INVALID_ARGUMENT;                              \
    if (code)                                                 \
        return end(code)

static int copy_text(char *to, unsigned room, const char *from)
{
    if (!to)
        return INVALID_ARGUMENT;
    if (strlen(from) + 1 > room)
        return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return SUCCESS;
}

/* ---- NVML: library -------------------------------------------------------------------------------------------- */

static int initialise(Function f)
{
    Fault *fault;
    int code;
    pthread_mutex_lock(&lock);
    library_calls[f]++;
    fault = due(&library_faults[f]);
    code = fault ? fault->code : init_code;
    if (code == SUCCESS) {
        if (!alive()) {
            references = 0;
            owner = getpid();
            generation++;
        }
        references++;
    }
    pthread_mutex_unlock(&lock);
    return code;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return initialise(F_nvmlInitWithFlags); }
int nvmlInit_v2(void) { return initialise(F_nvmlInit_v2); }

int nvmlShutdown(void)
{
    int code = begin_library(F_nvmlShutdown);
    if (code == SUCCESS)
        references--;
    return end(code);
}

const char *nvmlErrorString(int code)
{
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions",
        "Already Initialized", "Not Found", "Insufficient Size", "Insufficient External Power", "Driver Not Loaded",
        "Timeout", "Interrupt Request Issue", "NVML Shared Library Not Found", "Function Not Found",
        "Corrupted infoROM", "GPU is lost", "GPU requires reset",
        "The operating system has blocked the request", "Driver/library version mismatch", "In use by another client",
        "Insufficient Memory", "No data",
    };
    return code >= 0 && code < (int)(sizeof texts / sizeof *texts) ? texts[code] : "Unknown Error";
}

int nvmlSystemGetDriverVersion(char *text, unsigned room)
{
    int code = begin_library(F_nvmlSystemGetDriverVersion);
    return end(code ? code : copy_text(text, room, driver_version));
}

int nvmlSystemGetNVMLVersion(char *text, unsigned room)
{
    int code = begin_library(F_nvmlSystemGetNVMLVersion);
    return end(code ? code : copy_text(text, room, "12.570.86.15"));
}

int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    int code = begin_library(F_nvmlSystemGetCudaDriverVersion_v2);
    if (!code)
        *version = 12080;
    return end(code);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    int code = begin_library(F_nvmlDeviceGetCount_v2);
    if (!code)
        *count = (unsigned)device_count; /* also counts devices whose handle is refused, as the real one does */
    return end(code);
}

/* ---- NVML: handles and identity ------------------------------------------------------------------------------ */

/* Hands out a device found by index, UUID or bus id, unless a fault refuses it. */
static int give(Function f, int index, int mig, Handle *handle, int absent)
{
    Fault *fault;
    if (index < 0 || index >= device_count)
        return absent;
    devices[index].calls[f]++;
    fault = due(&devices[index].faults[f]);
    if (fault)
        return fault->code;
    *handle = handle_of(&devices[index], mig);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle *handle)
{
    int code = begin_library(F_nvmlDeviceGetHandleByIndex_v2);
    return end(code ? code : give(F_nvmlDeviceGetHandleByIndex_v2, (int)index, -1, handle, INVALID_ARGUMENT));
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Handle *handle)
{
    int code = begin_library(F_nvmlDeviceGetHandleByUUID), index = -1, mig = -1;
    for (int i = 0; uuid && i < device_count; i++) {
        if (strcmp(devices[i].uuid, uuid) == 0)
            index = i;
        for (int m = 0; m < devices[i].mig_count; m++)
            if (strcmp(devices[i].migs[m].uuid, uuid) == 0)
                index = i, mig = m;
    }
    return end(code ? code : give(F_nvmlDeviceGetHandleByUUID, index, mig, handle, NOT_FOUND));
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, Handle *handle)
{
    int code = begin_library(F_nvmlDeviceGetHandleByPciBusId_v2), index = -1;
    for (int i = 0; bus_id && i < device_count; i++)
        if (strcasecmp(devices[i].bus_id, bus_id) == 0)
            index = i;
    return end(code ? code : give(F_nvmlDeviceGetHandleByPciBusId_v2, index, -1, handle, NOT_FOUND));
}

int nvmlDeviceGetName(Handle h, char *text, unsigned room)
{
    DEVICE_CALL(nvmlDeviceGetName, h, text);
    return end(copy_text(text, room, d->name));
}

int nvmlDeviceGetUUID(Handle h, char *text, unsigned room)
{
    DEVICE_CALL(nvmlDeviceGetUUID, h, text);
    return end(copy_text(text, room, mig_of(h) < 0 ? d->uuid : d->migs[mig_of(h)].uuid));
}

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} PciInfo;
_Static_assert(sizeof(PciInfo) == 68 && offsetof(PciInfo, bus_id) == 36, "nvmlPciInfo_t");

int nvmlDeviceGetPciInfo_v3(Handle h, PciInfo *info)
{
    DEVICE_CALL(nvmlDeviceGetPciInfo_v3, h, info);
    memset(info, 0, sizeof *info);
    sscanf(d->bus_id, "%x:%x:%x", &info->domain, &info->bus, &info->device);
    snprintf(info->legacy, sizeof info->legacy, "%04X:%02X:%02X.0", info->domain & 0xffff, info->bus & 0xff,
             info->device & 0xff);
    strcpy(info->bus_id, d->bus_id);
    return end(SUCCESS);
}

#define GIVES(fn, type, expression)                  \
    int fn(Handle h, type *out)                      \
    {                                                \
        DEVICE_CALL(fn, h, out);                     \
        *out = (type)(expression);                   \
        return end(SUCCESS);                         \
    }

GIVES(nvmlDeviceGetIndex, unsigned, d - devices)
GIVES(nvmlDeviceGetMinorNumber, unsigned, d - devices)
GIVES(nvmlDeviceGetArchitecture, unsigned, d->architecture)
GIVES(nvmlDeviceGetVirtualizationMode, unsigned, 0)
GIVES(nvmlDeviceGetPowerManagementLimit, unsigned, milli(d->limit_w))
GIVES(nvmlDeviceGetEnforcedPowerLimit, unsigned, milli(d->limit_w))
GIVES(nvmlDeviceGetMaxMigDeviceCount, unsigned, d->mig_mode ? MAX_MIGS : 0)
GIVES(nvmlDeviceIsMigDeviceHandle, unsigned, mig_of(h) >= 0)

int nvmlDeviceGetCudaComputeCapability(Handle h, int *major, int *minor)
{
    DEVICE_CALL(nvmlDeviceGetCudaComputeCapability, h, major && minor);
    *major = (int)d->major;
    *minor = (int)d->minor;
    return end(SUCCESS);
}

int nvmlDeviceGetPowerManagementLimitConstraints(Handle h, unsigned *low, unsigned *high)
{
    DEVICE_CALL(nvmlDeviceGetPowerManagementLimitConstraints, h, low && high);
    *low = (unsigned)milli(d->min_limit_w);
    *high = (unsigned)milli(d->max_limit_w);
    return end(SUCCESS);
}

/* ---- NVML: memory, utilisation, processes: what other meters ask for ----------------------------------------- */

typedef struct { uint64_t total, free, used; } Memory;
typedef struct { unsigned version; uint64_t total, reserved, free, used; } MemoryV2;
typedef struct { unsigned gpu, memory; } Utilization;
_Static_assert(sizeof(Memory) == 24 && sizeof(MemoryV2) == 40, "nvmlMemory_t, nvmlMemory_v2_t");

int nvmlDeviceGetMemoryInfo(Handle h, Memory *memory)
{
    DEVICE_CALL(nvmlDeviceGetMemoryInfo, h, memory);
    *memory = (Memory){ (uint64_t)d->memory_bytes, (uint64_t)d->memory_bytes, 0 };
    return end(SUCCESS);
}

int nvmlDeviceGetMemoryInfo_v2(Handle h, MemoryV2 *memory)
{
    DEVICE_CALL(nvmlDeviceGetMemoryInfo_v2, h, memory);
    if (memory->version != 0x02000028)
        return end(ARGUMENT_VERSION_MISMATCH);
    *memory = (MemoryV2){ memory->version, (uint64_t)d->memory_bytes, 0, (uint64_t)d->memory_bytes, 0 };
    return end(SUCCESS);
}

int nvmlDeviceGetUtilizationRates(Handle h, Utilization *rates)
{
    DEVICE_CALL(nvmlDeviceGetUtilizationRates, h, rates);
    if (d->mig_mode)
        return end(NOT_SUPPORTED);
    *rates = (Utilization){ (unsigned)d->utilization, 0 };
    return end(SUCCESS);
}

int nvmlDeviceGetComputeRunningProcesses_v3(Handle h, unsigned *count, void *processes)
{
    DEVICE_CALL(nvmlDeviceGetComputeRunningProcesses_v3, h, count);
    (void)processes;
    *count = 0;
    return end(SUCCESS);
}

int nvmlDeviceGetProcessUtilization(Handle h, void *samples, unsigned *count, unsigned long long last_seen)
{
    DEVICE_CALL(nvmlDeviceGetProcessUtilization, h, count);
    (void)last_seen;
    *count = 0;
    /* The Python binding asks for the size first and takes anything but this for an error. */
    return end(samples ? SUCCESS : INSUFFICIENT_SIZE);
}

/* ---- NVML: power and energy ------------------------------------------------------------------------------------ */

int nvmlDeviceGetTotalEnergyConsumption(Handle h, unsigned long long *millijoules)
{
    Device *d = NULL;
    uint64_t raw;
    int code = begin(F_nvmlDeviceGetTotalEnergyConsumption, h, &d, 1);
    if (!code)
        code = answer(d, F_nvmlDeviceGetTotalEnergyConsumption, &raw);
    if (!code)
        *millijoules = raw; /* a MIG instance has no counter of its own and gives its parent's */
    return end(code);
}

int nvmlDeviceGetPowerUsage(Handle h, unsigned *milliwatts)
{
    Device *d = NULL;
    uint64_t raw;
    int code = begin(F_nvmlDeviceGetPowerUsage, h, &d, 1);
    if (!code)
        code = answer(d, F_nvmlDeviceGetPowerUsage, &raw);
    if (!code)
        *milliwatts = (unsigned)raw;
    return end(code);
}

typedef union { double d; unsigned u; uint64_t ull; } Value;
typedef struct {
    unsigned field, scope;
    int64_t timestamp_us, latency_us;
    int type, code;
    Value value;
} FieldValue;
_Static_assert(sizeof(FieldValue) == 40 && offsetof(FieldValue, value) == 32, "nvmlFieldValue_t");

static int field_value(Device *d, FieldValue *v)
{
    uint64_t raw = 0;
    Function f;
    int code = SUCCESS;
    v->type = VALUE_UINT;
    switch (v->field) {
    case 83: case 191: f = F_nvmlDeviceGetTotalEnergyConsumption; v->type = VALUE_ULL; break;
    case 185: f = F_POWER_AVERAGE; break;
    case 186: f = v->scope == 1 ? F_POWER_INSTANT_MODULE : F_POWER_INSTANT; break;
    case 187: v->value.u = (unsigned)milli(d->min_limit_w); return SUCCESS;
    case 188: v->value.u = (unsigned)milli(d->max_limit_w); return SUCCESS;
    case 189: case 190: case 192: v->value.u = (unsigned)milli(d->limit_w); return SUCCESS;
    default: return NOT_SUPPORTED;
    }
    if (v->scope > 1 || (v->scope == 1 && (f != F_POWER_INSTANT_MODULE || isnan(d->module_w))))
        return NOT_SUPPORTED;
    d->calls[f]++;
    code = answer(d, f, &raw);
    if (v->type == VALUE_ULL) v->value.ull = raw; else v->value.u = (unsigned)raw;
    return code;
}

int nvmlDeviceGetFieldValues(Handle h, int count, FieldValue *values)
{
    struct timeval t;
    DEVICE_CALL(nvmlDeviceGetFieldValues, h, values && count > 0);
    gettimeofday(&t, NULL);
    for (int i = 0; i < count; i++) {
        values[i].timestamp_us = (int64_t)t.tv_sec * 1000000 + t.tv_usec;
        values[i].latency_us = (int64_t)(d->latency_s * 1e6);
        values[i].code = field_value(d, &values[i]);
    }
    return end(SUCCESS); /* clients must look at the code of each field */
}

typedef struct { uint64_t timestamp_us; Value value; } Sample;
_Static_assert(sizeof(Sample) == 16, "nvmlSample_t");

/* The driver's ring buffer of powers, stamped with the time since 1970 (seen on an H100, driver 580; since boot in older
 * ones, polarsignals/gpu-metrics-agent PR 36). With a stepped clock there is no other time than that. */
int nvmlDeviceGetSamples(Handle h, int kind, unsigned long long last_seen_us, int *type, unsigned *count, Sample *samples)
{
    double last, epoch_s = 0;
    unsigned n = 0;
    DEVICE_CALL(nvmlDeviceGetSamples, h, type && count);
    if (kind != 0)
        return end(NOT_SUPPORTED);
    *type = VALUE_UINT;
    if (isnan(fake_now_s)) {
        struct timeval t;
        gettimeofday(&t, NULL);
        epoch_s = (double)t.tv_sec + 1e-6 * (double)t.tv_usec - now();
    }
    last = published_at(now(), d->samples.period_s, d->samples.phase_s, d->jitter_s);
    for (int k = SAMPLES - 1; k >= 0; k--) {
        double t = last - k * d->samples.period_s;
        uint64_t stamp_us = (uint64_t)((t + epoch_s) * 1e6);
        if (t < 0 || stamp_us <= last_seen_us)
            continue;
        if (samples && n < *count) {
            samples[n].timestamp_us = stamp_us;
            samples[n].value.u = (unsigned)milli(sensed_w(d, &d->samples, t));
        }
        n++;
    }
    if (!samples || n < *count)
        *count = n;
    return end(n || !samples ? SUCCESS : NOT_FOUND);
}

/* ---- NVML: MIG --------------------------------------------------------------------------------------------------- */

int nvmlDeviceGetMigMode(Handle h, unsigned *current, unsigned *pending)
{
    DEVICE_CALL(nvmlDeviceGetMigMode, h, current && pending);
    if (d->major < 8) /* no GPU older than the A100 has it */
        return end(NOT_SUPPORTED);
    *current = *pending = (unsigned)d->mig_mode;
    return end(SUCCESS);
}

int nvmlDeviceGetMigDeviceHandleByIndex(Handle h, unsigned index, Handle *mig)
{
    DEVICE_CALL(nvmlDeviceGetMigDeviceHandleByIndex, h, mig);
    if (index >= (unsigned)d->mig_count)
        return end(NOT_FOUND);
    *mig = handle_of(d, (int)index);
    return end(SUCCESS);
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Handle h, Handle *parent)
{
    DEVICE_CALL(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, h, parent && mig_of(h) >= 0);
    *parent = handle_of(d, -1);
    return end(SUCCESS);
}

int nvmlDeviceGetGpuInstanceId(Handle h, unsigned *id)
{
    DEVICE_CALL(nvmlDeviceGetGpuInstanceId, h, id && mig_of(h) >= 0);
    *id = d->migs[mig_of(h)].gpu_instance;
    return end(SUCCESS);
}

int nvmlDeviceGetComputeInstanceId(Handle h, unsigned *id)
{
    DEVICE_CALL(nvmlDeviceGetComputeInstanceId, h, id && mig_of(h) >= 0);
    *id = d->migs[mig_of(h)].compute_instance;
    return end(SUCCESS);
}

/* ---- control ----------------------------------------------------------------------------------------------------- */

/* Commands, one a line; D is a device number, L stands for the library itself:
 *   restart                      start afresh: no device, no fault, not initialised
 *   add D                        one more device, which draws nothing; D is its number
 *   init CODE                    what nvmlInit returns
 *   driver TEXT
 *   name|uuid|bus D TEXT
 *   set D KEY NUMBER             see `numbers`
 *   power D START WATTS TAU      physical power from START on, approached with time constant TAU
 *   mig D UUID GI CI             one more MIG instance
 *   fault D|L FUNCTION CODE AFTER CALLS    return CODE from time AFTER on, for CALLS calls (-1: for ever)
 *   force D FUNCTION RAW AFTER CALLS       give this mW or mJ instead
 *   heal D|L FUNCTION
 *   freeze D FUNCTION TIME       the value stays what it was at TIME
 */
static int command(const char *line)
{
    char verb[16], target[16], word[TEXT];
    double a, b, c;
    long calls;
    int index, after = 0;
    Fault *fault;
    Device *d;
    Function f;
    if (strncmp(line, "restart", 7) == 0) {
        device_count = references = init_code = 0;
        strcpy(driver_version, USUAL_DRIVER);
        memset(library_faults, 0, sizeof library_faults);
        memset(library_calls, 0, sizeof library_calls);
        return 0;
    }
    if (sscanf(line, "add %d", &index) == 1 && index == device_count && index < MAX_DEVICES) {
        plug_in(&devices[device_count++]);
        return 0;
    }
    if (sscanf(line, "init %d", &init_code) == 1 || sscanf(line, "driver %95[^\n]", driver_version) == 1)
        return 0;
    if (sscanf(line, "%15s %15s %n", verb, target, &after) < 2 || after == 0)
        return -1;
    line += after;
    index = strcmp(target, "L") == 0 ? -1 : atoi(target);
    if (index >= device_count || (index < 0 && strcmp(verb, "fault") != 0 && strcmp(verb, "heal") != 0))
        return -1;
    d = index < 0 ? NULL : &devices[index];
    if (strcmp(verb, "name") == 0) return sscanf(line, "%95[^\n]", d->name) - 1;
    if (strcmp(verb, "uuid") == 0) return sscanf(line, "%95s", d->uuid) - 1;
    if (strcmp(verb, "bus") == 0) return sscanf(line, "%31s", d->bus_id) - 1;
    if (strcmp(verb, "power") == 0) {
        if (sscanf(line, "%lf %lf %lf", &a, &b, &c) != 3)
            return -1;
        add_segment(d, a, b, c);
        return 0;
    }
    if (strcmp(verb, "set") == 0) {
        if (sscanf(line, "%95s %lf", word, &a) != 2)
            return -1;
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            if (strcmp(numbers[i].key, word) == 0)
                return *(double *)((char *)d + numbers[i].offset) = a, 0;
        return -1;
    }
    if (strcmp(verb, "mig") == 0) {
        Mig *mig = &d->migs[d->mig_count];
        if (d->mig_count == MAX_MIGS
            || sscanf(line, "%95s %u %u", mig->uuid, &mig->gpu_instance, &mig->compute_instance) != 3)
            return -1;
        d->mig_count++;
        d->mig_mode = 1;
        return 0;
    }
    if (sscanf(line, "%95s %lf %lf %ld", word, &a, &b, &calls) < 1 || (f = function_named(word)) == FUNCTION_COUNT)
        return -1;
    fault = d ? &d->faults[f] : &library_faults[f];
    if (strcmp(verb, "heal") == 0)
        fault->active = 0;
    else if (strcmp(verb, "fault") == 0)
        *fault = (Fault){ 1, (int)a, 0, b, calls };
    else if (strcmp(verb, "force") == 0)
        *fault = (Fault){ 1, SUCCESS, a, b, calls };
    else if (strcmp(verb, "freeze") == 0)
        d->freeze_s[f] = a;
    else
        return -1;
    return 0;
}

#define LOCKED(type, expression)        \
    type result;                        \
    pthread_mutex_lock(&lock);          \
    result = (expression);              \
    pthread_mutex_unlock(&lock);        \
    return result

int emu_command(const char *line) { LOCKED(int, command(line)); }
double emu_now(void) { LOCKED(double, now()); }
/* NAN gives the real clock, CLOCK_MONOTONIC. */
void emu_set_time(double seconds) { pthread_mutex_lock(&lock); fake_now_s = seconds; pthread_mutex_unlock(&lock); }
int emu_references(void) { LOCKED(int, alive() ? references : 0); }

double emu_true_energy(int device, double t0, double t1)
{
    LOCKED(double, energy_until(&devices[device], t1) - energy_until(&devices[device], t0));
}

double emu_true_power(int device, double t) { LOCKED(double, power_in(segment_at(&devices[device], t), t)); }

long emu_calls(int device, const char *function)
{
    Function f = function_named(function);
    if (f == FUNCTION_COUNT)
        return -1;
    LOCKED(long, device < 0 ? library_calls[f] : devices[device].calls[f]);
}

static void fork_child(void) { pthread_mutex_init(&lock, NULL); } /* whoever held it does not exist in the child */

__attribute__((constructor)) static void load(void)
{
    const char *path = getenv("AIMETER_TEST_NVML");
    char line[512];
    FILE *file = path ? fopen(path, "r") : NULL;
    pthread_atfork(NULL, NULL, fork_child);
    while (file && fgets(line, sizeof line, file))
        if (command(line) != 0)
            fprintf(stderr, "emulated NVML: cannot read: %s", line);
    if (file)
        fclose(file);
}
