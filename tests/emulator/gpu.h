/* The emulated GPU: its physical power, which is known exactly, and the sensors that look at it.
 *
 * The power p(t) is made of pieces whose integral has a closed form. What a client reads is derived from it as real
 * sensors derive it: a power field is the mean of p over a window W, published every T and held; the energy counter
 * is the integral of p, a staircase of period T. Because the truth is a formula and not a sample, a test can ask for
 * the energy between any two instants and get it to the last digit.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { MAX_DEVICES = 16, MAX_MIGS = 7, TEXT = 96, SAMPLES = 120 };
enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    LIBRARY_NOT_FOUND = 12, ARGUMENT_VERSION_MISMATCH = 25,
};
enum { VALUE_UINT = 1, VALUE_ULL = 3 };

/* What can be counted, made to fail, forced to a value or frozen. The last three are answers of one function,
 * nvmlDeviceGetFieldValues, each of which has a return code of its own. */
#define FUNCTIONS(F)                                                                                                 \
    F(nvmlInitWithFlags) F(nvmlInit_v2) F(nvmlShutdown) F(nvmlSystemGetDriverVersion) F(nvmlSystemGetNVMLVersion)    \
    F(nvmlSystemGetCudaDriverVersion_v2) F(nvmlDeviceGetCount_v2) F(nvmlDeviceGetHandleByIndex_v2)                   \
    F(nvmlDeviceGetHandleByUUID) F(nvmlDeviceGetHandleByPciBusId_v2) F(nvmlDeviceGetName) F(nvmlDeviceGetUUID)       \
    F(nvmlDeviceGetPciInfo_v3) F(nvmlDeviceGetIndex) F(nvmlDeviceGetMinorNumber) F(nvmlDeviceGetMemoryInfo)          \
    F(nvmlDeviceGetMemoryInfo_v2) F(nvmlDeviceGetUtilizationRates) F(nvmlDeviceGetPowerUsage)                        \
    F(nvmlDeviceGetTotalEnergyConsumption) F(nvmlDeviceGetPowerManagementLimit) F(nvmlDeviceGetEnforcedPowerLimit)   \
    F(nvmlDeviceGetPowerManagementLimitConstraints) F(nvmlDeviceGetFieldValues) F(nvmlDeviceGetSamples)              \
    F(nvmlDeviceGetComputeRunningProcesses_v3) F(nvmlDeviceGetProcessUtilization) F(nvmlDeviceGetArchitecture)       \
    F(nvmlDeviceGetCudaComputeCapability) F(nvmlDeviceGetMigMode) F(nvmlDeviceGetMaxMigDeviceCount)                  \
    F(nvmlDeviceGetMigDeviceHandleByIndex) F(nvmlDeviceGetDeviceHandleFromMigDeviceHandle)                           \
    F(nvmlDeviceIsMigDeviceHandle) F(nvmlDeviceGetGpuInstanceId) F(nvmlDeviceGetComputeInstanceId)                   \
    F(nvmlDeviceGetVirtualizationMode) F(POWER_AVERAGE) F(POWER_INSTANT) F(POWER_INSTANT_MODULE)
#define AS_ENUM(name) F_##name,
#define AS_TEXT(name) #name,
typedef enum { FUNCTIONS(AS_ENUM) FUNCTION_COUNT } Function;
static const char *const function_names[] = { FUNCTIONS(AS_TEXT) };

/* From start_s on, power goes from from_w towards target_w with time constant tau_s (0: at once). */
typedef struct { double start_s, target_w, tau_s, from_w, before_j; } Segment;
/* What a meter publishes is latency_s old: it tells of the time up to latency_s before. */
typedef struct { double period_s, window_s, phase_s, latency_s; } PowerSensor;
typedef struct { double period_s, phase_s, gain, start_j, reset_s, latency_s; } Counter;
/* A code to return, or a raw value (mW, mJ) to give instead of the true one; for some calls, from a time on. */
typedef struct { int active, code; double value, after_s; long calls; } Fault;
typedef struct { char uuid[TEXT]; unsigned gpu_instance, compute_instance; } Mig;

typedef struct {
    char name[TEXT], uuid[TEXT], bus_id[32];
    double architecture, major, minor, min_limit_w, max_limit_w, limit_w, memory_bytes, utilization;
    double gain, offset_w, quantum_w;  /* of every published power */
    double usage_is_average;           /* which of the two nvmlDeviceGetPowerUsage gives */
    double module_w;                   /* what the module draws beside the GPU (Grace Hopper); NAN: no such scope */
    double latency_s, burst_s, burst_every, taken_at;
    double latency_spread; /* how much longer a reading takes on the average, in parts of latency_s */
    double power_latency_s; /* of what the driver keeps a copy of: every power; 0: as of everything */
    double jitter_s; /* how late any meter may be renewed */
    double mig_mode;
    PowerSensor instant, average, samples;
    Counter counter;
    Segment *segments;
    int segment_count, segment_room, mig_count;
    Mig migs[MAX_MIGS];
    Fault faults[FUNCTION_COUNT];
    double freeze_s[FUNCTION_COUNT];
    long calls[FUNCTION_COUNT], reads;
} Device;

static Device devices[MAX_DEVICES];
static int device_count;
static double fake_now_s = NAN; /* NAN: the real clock */

/* ---- time ---------------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    if (!isnan(fake_now_s))
        return fake_now_s;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void pass(double seconds)
{
    if (seconds <= 0)
        return;
    if (!isnan(fake_now_s)) {
        fake_now_s += seconds;
    } else {
        struct timespec t = { (time_t)seconds, (long)(1e9 * (seconds - floor(seconds))) };
        while (nanosleep(&t, &t) != 0) { }
    }
}

/* A number from 0 to 1 for each k, without a rule that a client could learn (splitmix64). */
static double chance(double k)
{
    uint64_t z = (uint64_t)(int64_t)k * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) / 9007199254740992.0;
}

/* The last publication at or before t: at phase + k * period, each up to jitter_s (less than the period) late. */
static double published_at(double t, double period_s, double phase_s, double jitter_s)
{
    double k, at;
    if (period_s <= 0)
        return t;
    k = floor((t - phase_s) / period_s);
    at = phase_s + k * period_s + jitter_s * chance(k);
    return at <= t ? at : phase_s + (k - 1) * period_s + jitter_s * chance(k - 1);
}

/* ---- physics --------------------------------------------------------------------------------------------------- */

static double power_in(const Segment *s, double t)
{
    double elapsed = t - s->start_s;
    if (s->tau_s <= 0 || elapsed < 0)
        return s->tau_s <= 0 ? s->target_w : s->from_w;
    return s->target_w + (s->from_w - s->target_w) * exp(-elapsed / s->tau_s);
}

/* Integral of a segment from its start to t, exactly. */
static double energy_in(const Segment *s, double t)
{
    double elapsed = t - s->start_s, joules = s->target_w * elapsed;
    if (s->tau_s > 0)
        joules += (s->from_w - s->target_w) * s->tau_s * -expm1(-elapsed / s->tau_s);
    return joules;
}

static const Segment *segment_at(const Device *d, double t)
{
    int low = 0, high = d->segment_count - 1; /* the first also serves every time before its start */
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (d->segments[middle].start_s <= t) low = middle; else high = middle - 1;
    }
    return &d->segments[low];
}

static double energy_until(const Device *d, double t)
{
    const Segment *s = segment_at(d, t);
    return s->before_j + energy_in(s, t);
}

/* From start_s on the device goes towards watts; what had been planned after start_s is dropped. */
static void add_segment(Device *d, double start_s, double watts, double tau_s)
{
    Segment next = { start_s, watts, tau_s, watts, 0 };
    while (d->segment_count > 0 && d->segments[d->segment_count - 1].start_s >= start_s)
        d->segment_count--;
    if (d->segment_count > 0) {
        const Segment *last = &d->segments[d->segment_count - 1];
        next.from_w = power_in(last, start_s);
        next.before_j = last->before_j + energy_in(last, start_s);
    }
    if (d->segment_count == d->segment_room) {
        d->segment_room = d->segment_room ? 2 * d->segment_room : 16;
        d->segments = realloc(d->segments, (size_t)d->segment_room * sizeof *d->segments);
    }
    d->segments[d->segment_count++] = next;
}

/* ---- sensors --------------------------------------------------------------------------------------------------- */

static uint64_t milli(double value) { return value > 0 ? (uint64_t)(value * 1e3 + 1e-6) : 0; }

static double sensed_w(const Device *d, const PowerSensor *sensor, double t)
{
    double end = published_at(t, sensor->period_s, sensor->phase_s, d->jitter_s) - sensor->latency_s, watts;
    if (sensor->window_s > 0)
        watts = (energy_until(d, end) - energy_until(d, end - sensor->window_s)) / sensor->window_s;
    else
        watts = power_in(segment_at(d, end), end);
    watts = watts * d->gain + d->offset_w;
    return d->quantum_w > 0 ? round(watts / d->quantum_w) * d->quantum_w : watts;
}

static double counted_j(const Device *d, double t)
{
    const Counter *c = &d->counter;
    double end = published_at(t, c->period_s, c->phase_s, d->jitter_s) - c->latency_s;
    if (end >= c->reset_s)
        return c->gain * (energy_until(d, end) - energy_until(d, c->reset_s));
    return c->start_j + c->gain * energy_until(d, end);
}

static uint64_t measure(const Device *d, Function f, double t)
{
    if (t > d->freeze_s[f])
        t = d->freeze_s[f];
    switch (f) {
    case F_nvmlDeviceGetTotalEnergyConsumption: return milli(counted_j(d, t));
    case F_nvmlDeviceGetPowerUsage: return milli(sensed_w(d, d->usage_is_average ? &d->average : &d->instant, t));
    case F_POWER_AVERAGE: return milli(sensed_w(d, &d->average, t));
    case F_POWER_INSTANT: return milli(sensed_w(d, &d->instant, t));
    case F_POWER_INSTANT_MODULE: return milli(sensed_w(d, &d->instant, t) + d->module_w);
    default: return 0;
    }
}

static Fault *due(Fault *fault)
{
    if (!fault->active || now() < fault->after_s || fault->calls == 0)
        return NULL;
    if (fault->calls > 0)
        fault->calls--;
    return fault;
}

/* One meter's answer: the fault that is due, or the measured value. */
static int answer(Device *d, Function f, uint64_t *raw)
{
    Fault *fault = due(&d->faults[f]);
    if (fault && fault->code)
        return fault->code;
    *raw = fault ? (uint64_t)fault->value : measure(d, f, now());
    return SUCCESS;
}

/* ---- settings -------------------------------------------------------------------------------------------------- */

#define NUMBER(key, member) { key, offsetof(Device, member) }
static const struct { const char *key; size_t offset; } numbers[] = {
    NUMBER("architecture", architecture), NUMBER("major", major), NUMBER("minor", minor),
    NUMBER("min_limit_w", min_limit_w), NUMBER("max_limit_w", max_limit_w), NUMBER("limit_w", limit_w),
    NUMBER("memory_bytes", memory_bytes), NUMBER("utilization", utilization),
    NUMBER("gain", gain), NUMBER("offset_w", offset_w), NUMBER("quantum_w", quantum_w),
    NUMBER("usage_is_average", usage_is_average), NUMBER("module_w", module_w),
    NUMBER("latency_s", latency_s), NUMBER("taken_at", taken_at), NUMBER("burst_s", burst_s), NUMBER("burst_every", burst_every),
    NUMBER("latency_spread", latency_spread), NUMBER("power_latency_s", power_latency_s),
    NUMBER("jitter_s", jitter_s),
    NUMBER("mig_mode", mig_mode),
    NUMBER("instant_period_s", instant.period_s), NUMBER("instant_window_s", instant.window_s),
    NUMBER("instant_phase_s", instant.phase_s), NUMBER("instant_latency_s", instant.latency_s),
    NUMBER("samples_period_s", samples.period_s), NUMBER("samples_window_s", samples.window_s),
    NUMBER("samples_phase_s", samples.phase_s), NUMBER("samples_latency_s", samples.latency_s),
    NUMBER("average_period_s", average.period_s), NUMBER("average_window_s", average.window_s),
    NUMBER("average_phase_s", average.phase_s), NUMBER("average_latency_s", average.latency_s),
    NUMBER("counter_period_s", counter.period_s), NUMBER("counter_phase_s", counter.phase_s),
    NUMBER("counter_gain", counter.gain), NUMBER("counter_start_j", counter.start_j),
    NUMBER("counter_reset_s", counter.reset_s), NUMBER("counter_latency_s", counter.latency_s),
};

static Function function_named(const char *name)
{
    int f = 0;
    while (f < FUNCTION_COUNT && strcmp(function_names[f], name) != 0)
        f++;
    return (Function)f;
}

static void plug_in(Device *d)
{
    Segment *room = d->segments;
    int count = d->segment_room;
    memset(d, 0, sizeof *d);
    d->segments = room;
    d->segment_room = count;
    d->gain = d->counter.gain = 1;
    d->module_w = NAN;
    d->counter.reset_s = INFINITY;
    for (int f = 0; f < FUNCTION_COUNT; f++)
        d->freeze_s[f] = INFINITY;
    add_segment(d, 0, 0, 0);
}
